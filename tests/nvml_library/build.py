"""Compiling the stand-in library with the system's C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.nvml_library.layout import c_header
from tests.nvml_library.state import SOURCES

LIBRARY = "libnvidia-ml.so.1"
CUDA = "libcuda.so.1"


def compiler() -> str | None:
    """The system's C compiler, by the name that make uses for it."""
    return shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc")


def build(compiler: str, directory: Path, without: Iterable[str] = ()) -> Path:
    """Make the library in a directory of its own, which is returned: it belongs into LD_LIBRARY_PATH.

    Functions named in `without` are missing from it, as in the library of an older driver.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "state.h").write_text(c_header())
    missing = "".join(f"{name};" for name in without)
    (directory / "exports").write_text("{ global: *; " + (f"local: {missing} " if missing else "") + "};\n")
    subprocess.run(
        (
            *(compiler, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra"),
            *("-shared", "-fPIC", "-fvisibility=hidden", "-pthread", f"-I{directory}"),
            *(f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={directory / 'exports'}"),
            *("-o", str(directory / LIBRARY), *map(str, SOURCES)),
        ),
        check=True,
    )
    return directory


def build_cuda(compiler: str, directory: Path) -> None:
    """Make the stand-in for libcuda beside the library."""
    source = Path(__file__).parent / "cuda" / "cuda.c"
    subprocess.run(
        (
            *(compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC"),
            *(f"-Wl,-soname,{CUDA}", "-o", str(directory / CUDA), str(source)),
        ),
        check=True,
    )
