"""One plain line per transition, for logs and for terminals that cannot or shall not redraw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from heteromig.core.guards import Finding, Status, devices_restored, every_engine_present, host_idle, run_must_stop
from heteromig.core.machine import Run
from heteromig.core.phases import Keeping, Phase
from heteromig.core.units import NS_PER_S, MonotonicNs
from heteromig.core.verdict import Reason
from heteromig.views.outlet import Outlet
from heteromig.views.text import ELLIPSIS, printable
from heteromig.views.waiting import building_sentence, preparation_sentence

_WAITING_EVERY_NS = 5 * NS_PER_S
"""Between two lines on why a run waits within a phase: with 56 slices, the names change that many times."""
_LONGEST_WAIT = 160
_WAITED_FOR = frozenset(
    {"all_backgrounds_timed", "backgrounds_on_their_slices", "slices_idle", "host_idle", "all_reaped"}
)
"""Guards whose evidence names something that a person can look at."""


class PlainLines:
    """Writes `[  12.3 s] buffering -> main-running: ...` lines; seconds count from `begin`."""

    wants_ticks = False

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._begun_ns: MonotonicNs = 0
        self._waited_ns: MonotonicNs | None = None
        self._told: set[Reason] = set()

    def begin(self, run_directory: str, at_ns: MonotonicNs) -> None:
        """Say where the files are."""
        self._begun_ns = at_ns
        self._say(self._begun_ns, f"run directory {printable(run_directory)}")

    def transition(self, run: Run, source: Phase, destination: Phase, at_ns: MonotonicNs) -> None:
        """Say what changed and on what evidence, and what went wrong since the last line without stopping the run."""
        self._waited_ns = None
        stopping = any(finding.guard == run_must_stop.__name__ for finding in _findings(run))
        news = [reason for reason in run.view.reasons if reason not in self._told]
        self._told.update(news)
        sentences = [printable(reason.sentence) for reason in news]
        if not stopping:
            for sentence in sentences:
                self._say(at_ns, f"noted: {sentence}")
        if destination is Phase.FINISHED:
            why = _verdict(run)
        else:
            why = " ".join(sentences) if stopping else "; ".join(map(_found, _told_of(run)))
        self._say(at_ns, f"{source.value} -> {destination.value}" + (f": {why}" if why else ""))

    def rejection(self, run: Run, finding: Finding, at_ns: MonotonicNs) -> None:
        """Say what is waited for, at most every five seconds; each engine that was built, always."""
        if finding.guard == every_engine_present.__name__:
            self._say(at_ns, building_sentence(run.view))
        elif finding.guard in _WAITED_FOR and (self._waited_ns is None or at_ns - self._waited_ns >= _WAITING_EVERY_NS):
            self._waited_ns = at_ns
            evidence = printable(finding.evidence)
            if len(evidence) > _LONGEST_WAIT:
                evidence = evidence[: _LONGEST_WAIT - 1] + ELLIPSIS
            self._say(at_ns, f"{run.phase.value}: {evidence}")

    def preparation(self, run: Run, at_ns: MonotonicNs) -> None:
        """Say what is being done to the GPU, and what was; the end of that is told with the transition."""
        kept = run.view.prepared if run.view.keeping is Keeping.KEPT else None
        words = preparation_sentence(run.view) if kept is None else printable(kept.what)
        if words:
            self._say(at_ns, f"{run.phase.value}: {words}")

    def tick(self, run: Run, now_ns: MonotonicNs, last_lines: Mapping[int, str]) -> None:
        """Say nothing: there is no line without news."""

    def end(self, at_ns: MonotonicNs) -> None:  # noqa: ARG002 - there is no line without news
        """Let the reader take what is left."""
        self._outlet.close()

    def _say(self, at_ns: MonotonicNs, text: str) -> None:
        self._outlet.write(f"[{max(0, at_ns - self._begun_ns) / NS_PER_S:6.1f} s] {text}\n")


def _findings(run: Run) -> tuple[Finding, ...]:
    return run.transitions[-1].findings if run.transitions else ()


def _told_of(run: Run) -> Iterator[Finding]:
    """Without what goes without saying: where nothing was done to the GPU, and where the host may be in use."""
    unsaid = {
        devices_restored.__name__: run.view.spec.preparation is None,
        host_idle.__name__: run.view.host is None,
    }
    yield from (finding for finding in _findings(run) if not unsaid.get(finding.guard, False))


def _found(finding: Finding) -> str:
    evidence = printable(finding.evidence)
    if finding.status is Status.NOT_OBSERVABLE:
        evidence = f"not observable: {evidence}"
    return f"{finding.guard.replace('_', ' ')} ({evidence})"


def _verdict(run: Run) -> str:
    verdict = run.verdict
    text = f"{verdict.status}, exit {verdict.exit_code}"
    return f"{text}: {printable(verdict.reasons[0].sentence)}" if verdict.reasons else text
