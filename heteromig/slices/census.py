"""Which processes are on which simulated slice, by what their environment says."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from heteromig.core.units import NS_PER_S, MonotonicNs
from heteromig.slices.processes import Image, StatFile, read_variable

_VARIABLE = b"CUDA_VISIBLE_DEVICES"
_LIFETIME_NS = 100_000_000
_NS_PER_TICK = NS_PER_S // os.sysconf("SC_CLK_TCK")
_KEPT_OPEN_AT_MOST = min(512, os.sysconf("SC_OPEN_MAX") // 2)


class _Known(Struct, eq=False):
    """A process, and what need not be read again as long as it goes on executing the same `image`."""

    stat: StatFile
    image: Image | None = None
    device: bytes | None = None


class Seen(NamedTuple):
    """A process on a device; `started` tells it from another one of the same pid."""

    pid: int
    resident_bytes: int
    started: bytes
    cpu_ticks: tuple[bytes, bytes]


class Usage(NamedTuple):
    """The processor time of each process at a moment, by pid and start."""

    at_ns: MonotonicNs
    cpu_ns: dict[tuple[int, bytes], int]

    def since(self, before: Usage) -> float:
        """Processors in use, on the average since then; what ended meanwhile does not count."""
        used_ns = sum(cpu_ns - before.cpu_ns.get(process, 0) for process, cpu_ns in self.cpu_ns.items())
        return used_ns / (self.at_ns - before.at_ns) if self.at_ns > before.at_ns else math.nan


class Census:
    """A count of the processes of this machine.

    It costs one small read a process, so it is taken when it is asked for after `expire`, and kept for a tenth of a
    second: one reading of all slices then shares one count. The environment of a process is read again only when it
    has executed something else since. Kernel threads are recognised once and skipped until their pid is gone.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._kernel_threads: set[str] = set()
        self._on_device: dict[bytes, list[Seen]] = {}
        self._taken_ns = -_LIFETIME_NS
        self._expired = True

    def expire(self, *, older_than_ns: int = 0) -> None:
        """Count anew when asked next, unless that was done so short a time ago."""
        self._expired |= time.monotonic_ns() - self._taken_ns >= older_than_ns

    def processes(self, device: str) -> list[Seen]:
        """Each process on that device."""
        return self._counted().get(device.encode(), [])

    def resident_bytes(self, devices: Iterable[str]) -> int:
        """Resident memory of all processes on these devices."""
        return sum(one.resident_bytes for device in devices for one in self.processes(device))

    def usage(self, devices: Iterable[str]) -> Usage:
        """What all processes on these devices have used of the processors since they began."""
        cpu_ns = {
            (one.pid, one.started): sum(map(int, one.cpu_ticks)) * _NS_PER_TICK
            for device in devices
            for one in self.processes(device)
        }
        return Usage(self._taken_ns, cpu_ns)

    def _counted(self) -> dict[bytes, list[Seen]]:
        now_ns = time.monotonic_ns()
        if self._expired or now_ns - self._taken_ns > _LIFETIME_NS:
            self._count()
            self._taken_ns = now_ns
            self._expired = False
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
            seen = Seen(int(pid), stat.resident_bytes, stat.image[0], stat.cpu_ticks)
            self._on_device.setdefault(one.device, []).append(seen)
