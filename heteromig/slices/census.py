"""Which processes are on which simulated slice, by what their environment says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from msgspec import Struct

from heteromig.slices.processes import Image, StatFile, read_variable

_VARIABLE = b"CUDA_VISIBLE_DEVICES"
_LIFETIME_NS = 100_000_000
_KEPT_OPEN_AT_MOST = min(512, os.sysconf("SC_OPEN_MAX") // 2)


class _Known(Struct, eq=False):
    """A process, and what need not be read again as long as it goes on executing the same `image`."""

    stat: StatFile
    image: Image | None = None
    device: bytes | None = None


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
        pids = {name for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - names are enough
        self._kernel_threads &= pids
        for pid in self._known.keys() - pids:
            self._known.pop(pid).stat.close()
        self._on_device = {}
        for pid in pids - self._kernel_threads:
            self._visit(pid)

    def _visit(self, pid: str) -> None:
        one = self._known.get(pid)
        if one is None:
            one = self._known[pid] = _Known(StatFile(pid, keep=len(self._known) < _KEPT_OPEN_AT_MOST))
        stat = one.stat.read()
        if stat is None or stat.is_kernel_thread:
            self._known.pop(pid).stat.close()
            if stat is not None:
                self._kernel_threads.add(pid)
            return
        if one.image != stat.image:
            one.image, one.device = stat.image, read_variable(pid, _VARIABLE)
        if one.device is not None:
            self._on_device.setdefault(one.device, []).append((int(pid), stat.resident_bytes))
