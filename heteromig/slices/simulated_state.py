"""How a simulated GPU is cut, shared by all processes that simulate the same one.

Without a file it is cut as `--slices` says, with the UUIDs that it always has. The file appears when somebody cuts it
anew (`heteromig mig apply`), as the state of a real GPU would change for everybody; what is made anew has UUIDs of its
own, as on a real GPU.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.errors import UsageError


class SimulatedCompute(Struct, frozen=True):
    """A compute instance; `start` and `size` are in compute slices of its GPU instance."""

    number: int
    start: int
    size: int
    uuid: str


class SimulatedInstance(Struct, frozen=True):
    """A GPU instance at a memory slice."""

    profile: str
    start: int
    computes: tuple[SimulatedCompute, ...] = ()


class SimulatedState(Struct, frozen=True, forbid_unknown_fields=True):
    """All that can be changed of a simulated GPU. `changes` counts them, which gives whatever is made another UUID."""

    instances: tuple[SimulatedInstance, ...]
    mig_current: bool = True
    mig_pending: bool = True
    changes: int = 0


Version = tuple[int, int, int]
"""What differs between any two contents of the file."""


class StateFile:
    """The file at `path`, and the state as long as there is none."""

    def __init__(self, path: Path, initial: SimulatedState) -> None:
        self._path = path
        self._initial = initial

    def version(self) -> Version | None:
        """Changes whenever the state does."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 - Path.stat costs twice as much, once a period
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino, status.st_size)

    def read(self) -> SimulatedState:
        """The state now.

        Raises:
            UsageError: the file cannot be understood.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return self._initial
        try:
            return msgspec.json.decode(data, type=SimulatedState)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                f"The state of a simulated GPU in {self._path} cannot be understood ({error}): remove the file, and "
                "the GPU is cut as --slices says."
            ) from None

    def change(self, make: Callable[[SimulatedState], SimulatedState]) -> None:
        """Replace the state by what `make` makes of it; one process at a time.

        What `make` raises leaves everything as it is.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fresh = self._path.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(make(self.read())))
            fresh.replace(self._path)
        finally:
            os.close(lock)
