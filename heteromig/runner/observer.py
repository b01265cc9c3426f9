"""What watching costs: the controller's own CPU time and wakeups, phase by phase."""

from __future__ import annotations

import resource

import psutil

from heteromig.core.record import ObserverPhase, ObserverRecord


class Observer:
    """Counts from the moment it is made."""

    def __init__(self, phase: str) -> None:
        self._phase = phase
        self._start_s = self._mark_s = _cpu_s()
        self._wakeups = self._mark_wakeups = 0
        self._by_phase: list[ObserverPhase] = []

    def woke(self) -> None:
        """The loop returned from waiting."""
        self._wakeups += 1

    def entered(self, phase: str) -> None:
        """The run is in another phase from here on."""
        self._by_phase.append(self._current())
        self._phase = phase
        self._mark_s, self._mark_wakeups = _cpu_s(), self._wakeups

    def record(self, sampler_cpu_s: float | None) -> ObserverRecord:
        """So far; the phase that the run is in is the last."""
        return ObserverRecord(
            cpu_s=round(_cpu_s() - self._start_s, 6),
            sampler_cpu_s=sampler_cpu_s,
            wakeups=self._wakeups,
            by_phase=(*self._by_phase, self._current()),
        )

    def _current(self) -> ObserverPhase:
        return ObserverPhase(
            name=self._phase,
            cpu_s=round(_cpu_s() - self._mark_s, 6),
            wakeups=self._wakeups - self._mark_wakeups,
        )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def process_cpu_s(pid: int | None) -> float | None:
    """User and system seconds of another process so far; None where it cannot be read."""
    if pid is None:
        return None
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return round(times.user + times.system, 6)
