"""pynvml in a child process, where the dynamic loader finds the stand-in library.

A `Remote` has pynvml's functions, and those of `idioms`; they run in the child. Structures come back as plain objects
with the same fields, handles as `Handle`s that can be given back, errors as `NVMLError`s raised here. So it can be used
as the `nvml.Library` of heteromig's own code. GPM samples are pynvml's own, with the child's addresses, because they go
into structures, and structures go to the child byte by byte.
"""

from __future__ import annotations

import ctypes
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pynvml


class Handle(NamedTuple):
    """An opaque pointer of the child, with the name of its type in pynvml."""

    kind: str
    address: int


class Packed(NamedTuple):
    """A structure of pynvml."""

    kind: str
    content: bytes


def _sent(value: Any) -> Any:
    if isinstance(value, pynvml.c_nvmlGpmSample_t):
        return Handle("c_nvmlGpmSample_t", ctypes.cast(value, ctypes.c_void_p).value or 0)
    return Packed(type(value).__name__, bytes(value)) if isinstance(value, ctypes.Structure) else value


def _received(value: Any) -> Any:
    if isinstance(value, Handle) and value.kind == "c_nvmlGpmSample_t":
        return ctypes.cast(ctypes.c_void_p(value.address), pynvml.c_nvmlGpmSample_t)
    return value


class Remote:
    """One child process with a pynvml of its own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-m", "tests.nvml_library.serving"),
            cwd=Path(__file__).parents[2],  # a test may have gone elsewhere
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.begin(name, *arguments, **named)
            return self.finish()

        return call

    def begin(self, name: str, *arguments: Any, **named: Any) -> None:
        """Ask for a call without waiting for its end."""
        assert self.process.stdin is not None
        pickle.dump((name, tuple(map(_sent, arguments)), named), self.process.stdin)
        self.process.stdin.flush()

    def finish(self) -> Any:
        """What the call that was begun returns. An EOFError says that the child is dead."""
        assert self.process.stdout is not None
        succeeded, value = pickle.load(self.process.stdout)  # noqa: S301 - from our own child
        if succeeded:
            return _received(value)
        raise pynvml.NVMLLibraryMismatchError if value is None else pynvml.NVMLError(value)

    def close(self) -> int:
        """End the child; its exit status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()
