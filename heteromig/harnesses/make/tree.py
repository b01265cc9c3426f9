"""NVIDIA's tree (`closed/NVIDIA` of a results repository): how it is recognised."""

from __future__ import annotations

from pathlib import Path

from heteromig.core.errors import PreflightError

_SIGNS = ("scripts/launch_heterogeneous_mig.py", "code/main_v2.py", "code/main.py")
"""One of these is beside the Makefile: the launcher that heteromig replaces, or what `make run_harness` starts."""


def is_tree(path: Path) -> bool:
    """Whether this is the top of NVIDIA's tree."""
    return (path / "Makefile").is_file() and any((path / sign).is_file() for sign in _SIGNS)


def find_tree(start: Path) -> Path | None:
    """The tree that `start` is in; None where it is in none."""
    return next((path for path in (start, *start.parents) if is_tree(path)), None)


def require_tree(path: str) -> Path:
    """`path` as the top of NVIDIA's tree.

    Raises:
        PreflightError: it is none.
    """
    if not path:
        raise PreflightError(
            "--harness make needs NVIDIA's tree: start heteromig inside closed/NVIDIA, or name it with --harness-dir."
        )
    if not is_tree(Path(path)):
        raise PreflightError(
            f"{path} is not NVIDIA's tree: it has no Makefile beside {' or '.join(_SIGNS)}. Name closed/NVIDIA with "
            "--harness-dir."
        )
    return Path(path)
