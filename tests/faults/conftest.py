from __future__ import annotations

from tests.e2e.conftest import engines
from tests.nvml_library.fixtures import build_library, library_dir

__all__ = ["build_library", "engines", "library_dir"]
