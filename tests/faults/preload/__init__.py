"""A clock that can be set: a shared library for LD_PRELOAD, compiled by the test."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

LIBRARY = "libclock.so"
_SOURCE = Path(__file__).parent / "clock.c"


def build(compiler: str, directory: Path) -> Path:
    """Compile it into that directory."""
    library = directory / LIBRARY
    argv = (
        compiler,
        "-std=gnu11",
        "-O1",
        "-Wall",
        "-Wextra",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(_SOURCE),
        "-ldl",
    )
    subprocess.run(argv, check=True)
    return library


class SettableClock:
    """The offsets that processes with the library see."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set()

    def set(self, *, controller_s: float = 0, main_s: float = 0, backgrounds_s: float = 0) -> None:
        """Set the wall clocks forward, or back, by so much of what the machine's clock says."""
        offsets_ns = struct.pack("=3q", *(round(one * 1e9) for one in (controller_s, main_s, backgrounds_s)))
        with self.path.open("r+b" if self.path.exists() else "wb") as file:  # in place: others have it mapped
            file.write(offsets_ns)
