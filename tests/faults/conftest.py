from __future__ import annotations

from tests.nvml_library.fixtures import build_library, library_dir

__all__ = ["build_library", "library_dir"]
