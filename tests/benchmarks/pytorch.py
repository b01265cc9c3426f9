"""PyTorch as far as it is looked at without being imported, in whatever version and build a test needs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

IMPORTED = "PyTorch was imported"


def install(
    folder: Path,
    version: str = "2.11.0+cu130",
    cuda: str | None = "13.0",
    *,
    when_imported: BaseException | None = None,
) -> Path:
    """A package in `folder` that says what version it is, and does not let itself be imported."""
    package = folder / "torch"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(f"raise {when_imported or SystemExit(IMPORTED)!r}\n")
    (package / "version.py").write_text(
        f"from typing import Optional\n__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\n"
    )
    return folder


def prefer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find the package in `folder` rather than one that is installed."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(folder))


def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find none."""
    monkeypatch.setitem(sys.modules, "torch", None)
