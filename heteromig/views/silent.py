"""`--quiet`: nothing is shown while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping

from heteromig.core.guards import Finding
from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.units import MonotonicNs


class Silent:
    """A reporter that reports nothing."""

    wants_ticks = False

    def begin(self, run_directory: str, at_ns: MonotonicNs) -> None:
        """Say nothing."""

    def transition(self, run: Run, source: Phase, destination: Phase, at_ns: MonotonicNs) -> None:
        """Say nothing."""

    def rejection(self, run: Run, finding: Finding, at_ns: MonotonicNs) -> None:
        """Say nothing."""

    def preparation(self, run: Run, at_ns: MonotonicNs) -> None:
        """Say nothing."""

    def tick(self, run: Run, now_ns: MonotonicNs, last_lines: Mapping[int, str]) -> None:
        """Say nothing."""

    def end(self, at_ns: MonotonicNs) -> None:
        """Say nothing."""
