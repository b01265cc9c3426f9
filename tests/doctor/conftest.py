from __future__ import annotations

from tests.nvml_library.fixtures import build_library, connect, library_dir, make_state
from tests.slices.conftest import spawn

__all__ = ["build_library", "connect", "library_dir", "make_state", "spawn"]
