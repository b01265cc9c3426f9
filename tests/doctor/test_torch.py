from __future__ import annotations

from pathlib import Path

import pytest

from heteromig.doctor.findings import Status
from tests.doctor.asking import Answered, heteromig

HEAD = "from typing import Optional\n__version__ = '2.9.0'\n"


def examine(home: Path, library: Path) -> Answered:
    """With another directory to import from. Nothing in it may be imported: that would take seconds."""
    here = Path(__file__).parents[2]
    environ = {"PYTHONPATH": f"{library}:{here}"}
    return Answered(heteromig(home, "doctor", "--json", "--harness", "loadgen", environ=environ))


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [
        (f"{HEAD}cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", Status.OK, "built for CUDA 12.8"),
        (f"{HEAD}cuda: Optional[str] = None\n", Status.WARNING, "built without CUDA"),
        (None, Status.UNKNOWN, "whether it is built for CUDA is not known"),
    ],
)
def test_pytorch_is_told_by_its_files(tmp_path: Path, version: str | None, status: Status, says: str) -> None:
    package = tmp_path / "library" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('it was imported')\n")
    if version is not None:
        (package / "version.py").write_text(version)
    found = examine(tmp_path, tmp_path / "library").one("torch")
    assert (found.status, says in found.what) == (status, True)
