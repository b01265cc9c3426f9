"""Which processes are on which simulated slice, by what their environment says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from heteromig.slices.processes import Image, read_stat, read_variable

_VARIABLE = b"CUDA_VISIBLE_DEVICES"
_LIFETIME_NS = 100_000_000


class _Known(NamedTuple):
    """What need not be read again as long as the process goes on executing the same `image`."""

    image: Image
    device: bytes | None


class Census:
    """A count of the processes of this machine.

    It costs one small read a process, so it is taken when it is asked for after `expire`, and kept for a tenth of a
    second: one reading of all slices then shares one count. The environment of a process is read again only when it
    has executed something else since. Kernel threads are recognised once and skipped until their pid is gone.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._kernel_threads: set[str] = set()
        self._on_device: dict[bytes, list[tuple[int, int]]] = {}
        self._taken_ns: int | None = None

    def expire(self) -> None:
        """Count anew when asked next."""
        self._taken_ns = None

    def processes(self, device: str) -> list[tuple[int, int]]:
        """Pid and resident bytes of each process on that device."""
        return self._counted().get(device.encode(), [])

    def resident_bytes(self, devices: Iterable[str]) -> int:
        """Resident memory of all processes on these devices."""
        return sum(used_bytes for device in devices for _, used_bytes in self.processes(device))

    def _counted(self) -> dict[bytes, list[tuple[int, int]]]:
        now_ns = time.monotonic_ns()
        if self._taken_ns is None or now_ns - self._taken_ns > _LIFETIME_NS:
            self._count()
            self._taken_ns = now_ns
        return self._on_device

    def _count(self) -> None:
        known: dict[str, _Known] = {}
        kernel_threads: set[str] = set()
        on_device: dict[bytes, list[tuple[int, int]]] = {}
        for pid in os.listdir("/proc"):  # noqa: PTH208 - names are enough, and this runs beside benchmarks
            if not pid.isdigit():
                continue
            if pid in self._kernel_threads:
                kernel_threads.add(pid)
                continue
            stat = read_stat(pid)
            if stat is None:
                continue
            if stat.is_kernel_thread:
                kernel_threads.add(pid)
                continue
            one = self._known.get(pid)
            if one is None or one.image != stat.image:
                one = _Known(image=stat.image, device=read_variable(pid, _VARIABLE))
            known[pid] = one
            if one.device is not None:
                on_device.setdefault(one.device, []).append((int(pid), stat.resident_bytes))
        self._known, self._kernel_threads, self._on_device = known, kernel_threads, on_device
