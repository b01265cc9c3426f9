from __future__ import annotations

from tests.nvml_library.fixtures import build_library, connect, cuda_dir, library_dir, make_state

__all__ = ["build_library", "connect", "cuda_dir", "library_dir", "make_state"]
