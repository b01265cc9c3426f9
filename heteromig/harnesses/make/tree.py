"""NVIDIA's tree (`closed/NVIDIA` of a results repository): how it is recognised."""

from __future__ import annotations

import re
from pathlib import Path

from heteromig.core.errors import PreflightError

_SIGNS = (
    ("scripts/launch_heterogeneous_mig.py",),
    ("code/main_v2.py", "code/common"),
    ("code/main.py", "code/common"),
)
"""What is beside the Makefile, all of one line: the launcher that heteromig replaces, or the driver that `make
run_harness` starts, where the launcher is gone. Others have a `code/main.py` too, but no `code/common`."""

_UNSAFE = re.compile(r"[\s\"'`$&|;<>()*?\[\]\\]")
"""What make or the shells of its recipes would not take for a part of a path: NVIDIA's Makefile quotes none."""


def is_tree(path: Path) -> bool:
    """Whether this is the top of NVIDIA's tree; one that cannot be looked into is none."""
    try:
        return (path / "Makefile").is_file() and any(all((path / name).exists() for name in sign) for sign in _SIGNS)
    except OSError:
        return False


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
        signs = " or ".join(" and ".join(sign) for sign in _SIGNS)
        raise PreflightError(
            f"{path} is not NVIDIA's tree: it has no Makefile beside {signs}. Name closed/NVIDIA with --harness-dir."
        )
    return Path(path)


def require_makeable(path: Path, remedy: str) -> None:
    """Check that make and its recipes can handle `path`, which comes to lie in their directories and variables.

    Raises:
        PreflightError: they cannot.
    """
    unsafe = _UNSAFE.search(str(path))
    if unsafe is not None:
        raise PreflightError(
            f"NVIDIA's Makefile cannot handle the {unsafe[0]!r} in {str(path)!r}, because it quotes no path: {remedy}"
        )
