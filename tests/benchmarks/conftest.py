from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.benchmarks.program import build

if TYPE_CHECKING:
    from pathlib import Path


class Engines(Protocol):
    def __call__(self, benchmark: str, scenario: str, accuracy: str) -> Path: ...


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """Engines built by the program, each once; not to be written to."""
    cache = tmp_path_factory.mktemp("engines")

    def get(benchmark: str, scenario: str, accuracy: str) -> Path:
        path = cache / f"{benchmark}-{scenario}-{accuracy}"
        if not path.exists():
            built = build(benchmark, scenario, accuracy, path)
            assert built.returncode == 0, built.stderr
        return path

    return get


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    path = tmp_path / "logs"
    path.mkdir()
    return path


@pytest.fixture
def bert(engine: Engines, tmp_path: Path) -> Path:
    """A copy of an engine, to be damaged."""
    path = tmp_path / "engine"
    shutil.copytree(engine("bert", "offline", "99.9"), path)
    return path
