"""The environment of child processes that run this very package, or that guard those which do."""

from __future__ import annotations

import os
from pathlib import Path

SLICE_VARIABLE = "CUDA_VISIBLE_DEVICES"


def package_path() -> str:
    """A PYTHONPATH along which `python -m heteromig...` is found from any directory."""
    here = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return f"{here}{os.pathsep}{inherited}" if inherited else here


def without_slice() -> dict[str, str]:
    """This process' environment but the slice that its own user may have chosen.

    Only harnesses are on a slice; whoever merely watches them must not be taken for an occupant.
    """
    return {name: value for name, value in os.environ.items() if name != SLICE_VARIABLE}
