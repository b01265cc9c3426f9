"""NVML with somebody looking over its shoulder: each call is announced, timed, and asked why it was refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from heteromig.core.units import NS_PER_MS
from heteromig.doctor.facts import Answer
from heteromig.doctor.findings import Latency
from heteromig.slices import nvml
from heteromig.slices.nvml import NVMLError

TOO_OLD = "library too old"

_REASONS = {
    nvml.ERROR_NOT_SUPPORTED: "not supported by this board",
    nvml.ERROR_NO_PERMISSION: "no permission",
    nvml.ERROR_FUNCTION_NOT_FOUND: TOO_OLD,
}


class Watched:
    """The calls of a library, passed on.

    `refused` says why a call was refused the last time, by its name. `times_ns` are how long calls took, without the
    `announcing_ns` that were spent on saying so; empty it to measure anew.
    """

    def __init__(self, library: nvml.Library, announce: Callable[[str], None]) -> None:
        self.refused: dict[str, str] = {}
        self.times_ns: dict[str, list[int]] = {}
        self.announcing_ns = 0
        self._library = library
        self._announce = announce
        self._announced = ""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The call of that name."""
        call = getattr(self._library, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            self._about_to(name)
            begun_ns = time.perf_counter_ns()
            try:
                answer = call(*arguments, **named)
            except NVMLError as error:
                self.refused[name] = _REASONS.get(error.value, f"NVML says {str(error)!r}")
                raise
            except Exception:
                # pynvml's NVMLLibraryMismatchError, which is no NVMLError, for a process list of an old driver. What
                # else there may be is passed on by everybody and ends the probe.
                self.refused[name] = TOO_OLD
                raise
            finally:
                self.times_ns.setdefault(name, []).append(time.perf_counter_ns() - begun_ns)
            self.refused.pop(name, None)  # of a newer version of the call than the one that was answered now
            return answer

        watched.__name__ = name
        return watched

    def _about_to(self, name: str) -> None:
        if name != self._announced:  # of many calls in a row, one announcement is as good as many
            begun_ns = time.perf_counter_ns()
            self._announced = name
            self._announce(name)
            self.announcing_ns += time.perf_counter_ns() - begun_ns

    @property
    def lacking(self) -> tuple[str, ...]:
        """The calls that the library is too old for."""
        return tuple(sorted(name for name, why in self.refused.items() if why == TOO_OLD))

    def ask(self, name: str, *arguments: Any) -> Answer[Any]:
        """What that call says, or why it does not.

        Raises:
            NVMLError: the device itself is in trouble, such as a lost GPU.
        """
        value = nvml.supported(getattr(self, name), *arguments)
        return Answer(why=self.refused[name]) if value is None else Answer(value)

    def latencies(self) -> tuple[Latency, ...]:
        """How long each call took, the slowest first."""
        found = [latency(name, times_ns) for name, times_ns in self.times_ns.items()]
        return tuple(sorted(found, key=lambda one: (-one.p50_ms, one.call)))


def latency(call: str, times_ns: list[int]) -> Latency:
    """Nearest ranks, so that each is a time that was measured."""
    ordered = sorted(times_ns)
    return Latency(
        call=call,
        count=len(ordered),
        p50_ms=_at(ordered, 50) / NS_PER_MS,
        p99_ms=_at(ordered, 99) / NS_PER_MS,
    )


def _at(ordered: list[int], percent: int) -> int:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
