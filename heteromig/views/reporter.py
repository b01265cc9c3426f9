"""What whoever shows a run is told, live or replayed, and the promise that showing it never influences it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from heteromig.core import effects as ef
from heteromig.core.guards import Finding
from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.units import MonotonicNs
from heteromig.core.view import View
from heteromig.views.outlet import Outlet


class Reporter(Protocol):
    """Shows one run while it goes on. All times are monotonic."""

    @property
    def wants_ticks(self) -> bool:
        """Whether `tick` is to be called, once a second; asked again before each."""
        ...

    def begin(self, run_directory: str, at_ns: MonotonicNs) -> None:
        """The run directory exists; times are shown from here on."""
        ...

    def transition(self, run: Run, source: Phase, destination: Phase, at_ns: MonotonicNs) -> None:
        """The phase has changed; the findings are those of the last of `run.transitions`."""
        ...

    def rejection(self, run: Run, finding: Finding, at_ns: MonotonicNs) -> None:
        """A guard said no, for a reason that was not given before in this phase."""
        ...

    def preparation(self, run: Run, at_ns: MonotonicNs) -> None:
        """What is done to the GPU for the run is begun, done, being taken back, or that is over: `run.view.keeping`."""
        ...

    def tick(self, run: Run, now_ns: MonotonicNs, last_lines: Mapping[int, str]) -> None:
        """Time to draw anew; `last_lines` is the last output line of each worker, as it came."""
        ...

    def end(self, at_ns: MonotonicNs) -> None:
        """The run is over, or the controller is about to fail; called once."""
        ...


def tell(reporter: Reporter, run: Run, before: View, at_ns: MonotonicNs, effects: Iterable[ef.AnyEffect]) -> None:
    """Tell `reporter` what an event has changed, which the run met knowing `before` and answered with `effects`."""
    if run.view.keeping is not before.keeping:
        reporter.preparation(run, at_ns)
    for effect in effects:
        if isinstance(effect, ef.RecordTransition):
            reporter.transition(run, effect.source, effect.destination, at_ns)
        elif isinstance(effect, ef.RecordRejection):
            reporter.rejection(run, effect.finding, at_ns)


class Unfailing:
    """A reporter that passes everything on to another until that one fails, says so once, and is silent from then on.

    A mistake in a view must not cost an hour of measuring. `outlet` is where it is said.
    """

    def __init__(self, reporter: Reporter, outlet: Outlet) -> None:
        self._reporter = reporter
        self._outlet = outlet
        self.failure: Exception | None = None

    @property
    def wants_ticks(self) -> bool:
        """As the reporter within, while it works."""
        return self.failure is None and self._reporter.wants_ticks

    def begin(self, run_directory: str, at_ns: MonotonicNs) -> None:
        """Passed on."""
        self._try(lambda: self._reporter.begin(run_directory, at_ns))

    def transition(self, run: Run, source: Phase, destination: Phase, at_ns: MonotonicNs) -> None:
        """Passed on."""
        self._try(lambda: self._reporter.transition(run, source, destination, at_ns))

    def rejection(self, run: Run, finding: Finding, at_ns: MonotonicNs) -> None:
        """Passed on."""
        self._try(lambda: self._reporter.rejection(run, finding, at_ns))

    def preparation(self, run: Run, at_ns: MonotonicNs) -> None:
        """Passed on."""
        self._try(lambda: self._reporter.preparation(run, at_ns))

    def tick(self, run: Run, now_ns: MonotonicNs, last_lines: Mapping[int, str]) -> None:
        """Passed on."""
        self._try(lambda: self._reporter.tick(run, now_ns, last_lines))

    def end(self, at_ns: MonotonicNs) -> None:
        """Passed on even after a failure, so that the terminal gets its cursor back."""
        failure, self.failure = self.failure, None
        self._try(lambda: self._reporter.end(at_ns))
        self.failure = failure or self.failure

    def _try(self, call: Callable[[], None]) -> None:
        if self.failure is not None:
            return
        try:
            call()
        except Exception as failure:  # noqa: BLE001 - whatever it is, the run goes on
            self.failure = failure
            self._outlet.write(f"\nheteromig: the display failed ({failure!r}); the run goes on without it.\n")
