"""Failures on demand for simulated devices, so that one can see beforehand what a run makes of them.

The simulator reads them from a JSON file that it was explicitly given (`--sim-faults FILE`), anew whenever the file
changed; no file means no failures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from heteromig.core.errors import UsageError


class Rehearsal(Struct, frozen=True, forbid_unknown_fields=True):
    """What should go wrong, such as `{"xid": 79, "gpu_lost": true}`.

    `gpu` is the index of the one GPU that it befalls, the first unless said otherwise.

    `geometry_changed`: somebody destroyed the last slice and made it again, so that it has another UUID.
    `xid`: the driver reports this error once. `gpu_lost`: the GPU fell off the bus. `hang_s`: the next request for
    the processes of a slice does not return for so long. `die`: the process that asks the device is killed. The last
    two remove the file when they happen, so that they do not befall the process that takes over.
    """

    gpu: Annotated[int, Meta(ge=0)] = 0
    geometry_changed: bool = False
    xid: int | None = None
    gpu_lost: bool = False
    hang_s: float = 0.0
    die: bool = False

    @property
    def recut_gpu(self) -> int | None:
        """The GPU that is not cut any more as it was."""
        return self.gpu if self.geometry_changed else None


class RehearsalFile:
    """The file, read again when it was changed. Replace it by renaming, so that it is never seen half written."""

    def __init__(self, path: Path | None, gpus: int = 1) -> None:
        """`gpus` is how many there are."""
        self._path = path
        self._gpus = gpus
        self._version: tuple[int, int, int] | None = None

    def remove(self) -> None:
        """It has happened."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def changed(self) -> Rehearsal | None:
        """The new content if the file is another one than at the last call, else None.

        Raises:
            UsageError: the file cannot be understood, or names no GPU that there is; said once for each version of it.
        """
        if self._path is None:
            return None
        try:
            status = os.stat(self._path)  # noqa: PTH116 - Path.stat costs twice as much, once a period
        except OSError:
            version, data = None, b"{}"
        else:
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            data = b"" if version == self._version else self._path.read_bytes()
        if version == self._version:
            return None
        self._version = version
        try:
            rehearsal = msgspec.json.decode(data, type=Rehearsal)
        except msgspec.DecodeError as error:
            raise UsageError(
                f"The file of simulated failures {self._path} cannot be understood ({error}): write JSON such as "
                '{"xid": 79}, with the keys gpu, geometry_changed, xid, gpu_lost, hang_s and die.'
            ) from error
        if rehearsal.gpu >= self._gpus:
            raise UsageError(
                f"The file of simulated failures {self._path} means GPU {rehearsal.gpu}, and the last one is "
                f"{self._gpus - 1}: name that or one before it, or simulate more (--slices sim:2xa30)."
            )
        return rehearsal
