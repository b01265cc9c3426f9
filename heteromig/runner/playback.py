"""`replay`: a run from its journal alone, shown as it was while it went on.

Nothing is started, and nothing is written. The clock of the views is the journal's. What workers printed is not shown,
because their output files have no times; only what they said last, which the journal has, is.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.core.units import NS_PER_S, MonotonicNs, UtcNs
from heteromig.core.verdict import ABORT_SIGNALS
from heteromig.runner.clock import Clock, SystemClock
from heteromig.runner.journal import JOURNAL, JournalText, read_journal
from heteromig.runner.liveness import goes_on, life_of_run
from heteromig.runner.recording import Recorder, read_record
from heteromig.runner.replaying import Step, fresh_run, replay
from heteromig.runner.rundir import RUN_JSON
from heteromig.runner.survivors import Life
from heteromig.views.reporter import Reporter, tell
from heteromig.workers.command import Command

_DISPLAY_PERIOD_S = 1.0
"""Of the journal, as in a run; but no more often than ten times a second of ours."""
_DISPLAY_PERIOD_MIN_S = 0.1


class Played(Struct, frozen=True):
    """How far a journal reaches, and what it makes of the run; `ending` says why that is not its end, if it is not."""

    run_dir: Path
    record: RunRecord
    ending: str | None


class Interrupted(Exception):  # noqa: N818 - no error: somebody has seen enough
    """A signal asked for the end of the replay."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def play(run_dir: Path, reporter: Reporter, speed: float | None, clock: Clock | None = None) -> Played:
    """Replay a run, `speed` times as fast as it was; None is as fast as it goes.

    Raises:
        UsageError: `run_dir` is no run directory.
        EvidenceError: the journal cannot be used, it does not replay to what it records, or `run.json` says otherwise.
        Interrupted: a signal came; the reporter has let go of the terminal.
    """
    clock = clock or SystemClock()
    if not any(os.path.lexists(run_dir / name) for name in (JOURNAL, RUN_JSON)):
        raise UsageError(f"{run_dir} is not a run directory: it has neither {JOURNAL} nor {RUN_JSON}.")
    run_dir = run_dir.resolve()
    read_at_utc_ns = clock.utc_ns()
    # The record first: of a run that still goes on, the journal is then not older.
    try:
        written: RunRecord | EvidenceError = read_record(run_dir)
    except EvidenceError as error:
        written = error
    journal = read_journal(run_dir)  # what is wrong with it weighs more
    if isinstance(written, EvidenceError):
        raise written
    with _abort_signals_held() as held:
        player = _Player(run_dir, journal, written, reporter=reporter, speed=speed, clock=clock, held=held)
        record = player.play()
    _require_agreement(run_dir, record, written)
    return Played(
        run_dir=run_dir,
        record=record,
        ending=_ending(record, life_of_run(run_dir, journal), read_at_utc_ns, cut=journal.cut),
    )


class _Player:
    """One replay."""

    def __init__(
        self,
        run_dir: Path,
        journal: JournalText,
        written: RunRecord,
        *,
        reporter: Reporter,
        speed: float | None,
        clock: Clock,
        held: list[signal.Signals],
    ) -> None:
        self._run = fresh_run(run_dir, journal)
        self._run_dir = run_dir
        self._journal = journal
        self._written = written
        self._recorder = Recorder(journal.header, run_dir, written.host)
        self._reporter = reporter
        self._speed = speed
        self._clock = clock
        self._begun_ns = self._next_picture_ns = clock.monotonic_ns()
        self._held = held
        self._commands = {
            worker.index: Command(argv=worker.command, env=worker.env, cwd=Path()) for worker in written.workers
        }
        self._last_lines: dict[int, str] = {}

    def play(self) -> RunRecord:
        """Show all of it; returns what `run.json` has to say."""
        now_ns = self._journal.header.at_ns
        self._reporter.begin(str(self._run_dir), now_ns)
        try:
            steps = replay(self._run_dir, self._journal, self._run)
            for event in self._journal.events:
                self._wait_for(event.at_ns)
                now_ns = max(now_ns, event.at_ns)
                before = self._run.view
                step = next(steps)
                tell(self._reporter, self._run, before, event.at_ns, step.effects)
                self._remember(step)
        finally:
            self._reporter.end(now_ns)
        written = self._written
        try:
            record = self._recorder.describe(self._run, written.observer, self._journal.header.utc_ns(now_ns))
        except (OverflowError, ValueError):  # no such year
            raise EvidenceError(
                f"The journal {self._run_dir / JOURNAL} has impossible times: it was altered."
            ) from None
        # What no journal knows:
        return msgspec.structs.replace(
            record,
            tool=written.tool,
            ended_at=written.ended_at if record.ended_at is not None else None,
            heartbeat_at=written.heartbeat_at,
        )

    def _wait_for(self, at_ns: MonotonicNs) -> None:
        """Let the journal's clock run up to then, and show what there is to see in the meantime."""
        while True:
            ours_ns = self._clock.monotonic_ns()
            left_ns = 0.0 if self._speed is None else at_ns - self._reached(ours_ns, self._speed)
            if self._reporter.wants_ticks and ours_ns >= self._next_picture_ns:
                self._next_picture_ns = ours_ns + round(self._period_s * NS_PER_S)
                self._reporter.tick(self._run, at_ns - max(0, round(left_ns)), self._last_lines)
            if self._speed is None or left_ns <= 0:
                self._pause(0.0)
                return
            wait_s = min(left_ns / self._speed / NS_PER_S, _DISPLAY_PERIOD_S)
            if self._reporter.wants_ticks:
                wait_s = min(wait_s, (self._next_picture_ns - ours_ns) / NS_PER_S)
            self._pause(wait_s)

    @property
    def _period_s(self) -> float:
        """Of pictures, on our clock."""
        return max(_DISPLAY_PERIOD_MIN_S, _DISPLAY_PERIOD_S / self._speed if self._speed else 0.0)

    def _reached(self, ours_ns: MonotonicNs, speed: float) -> float:
        """What the journal's clock says when ours says `ours_ns`."""
        return self._journal.header.at_ns + (ours_ns - self._begun_ns) * speed

    def _remember(self, step: Step) -> None:
        if isinstance(step.event, ev.WorkerExited):
            self._last_lines[step.event.worker] = step.event.last_line
        for effect in step.effects:
            if isinstance(effect, ef.RecordTransition):
                self._recorder.entered(effect.destination, step.event.at_ns)
            elif isinstance(effect, ef.SpawnWorker) and effect.assignment.index in self._commands:
                self._recorder.spawned(effect.assignment, self._commands[effect.assignment.index])

    def _pause(self, seconds: float) -> None:
        """Wait that long, or until a signal asks for the end.

        Raises:
            Interrupted: it did.
        """
        heard = signal.sigtimedwait(self._held, seconds)
        if heard is not None:
            raise Interrupted(heard.si_signo)


def _require_agreement(run_dir: Path, record: RunRecord, written: RunRecord) -> None:
    """What the journal says of the run and what `run.json` says of it, as far as that reaches.

    Raises:
        EvidenceError: they contradict each other.
    """
    if written.ended_at is not None:
        names = [name for name in RunRecord.__struct_fields__ if getattr(record, name) != getattr(written, name)]
    else:
        # It was written once more after each transition, and before the events that followed it.
        entered = [(phase.name, phase.entered_at) for phase in written.phases]
        same = entered == [(phase.name, phase.entered_at) for phase in record.phases][: len(entered)]
        names = ([] if same else ["phases"]) + (["verdict"] if written.verdict not in {None, record.verdict} else [])
    if names:
        raise EvidenceError(
            f"{run_dir / RUN_JSON} and the journal {run_dir / JOURNAL} contradict each other in {', '.join(names)}: "
            "one of them was altered."
        )


def _ending(record: RunRecord, life: Life, now_utc_ns: UtcNs, *, cut: bool) -> str | None:
    """Why the journal ends where it ends; None where the run does."""
    if record.phase == Phase.FINISHED.value:
        return None
    where = f"The journal ends in {record.phase}" + (", in the middle of a line" if cut else "")
    if goes_on(life, record.heartbeat_at, now_utc_ns):
        return f"{where}: the run is still going on."
    return f"{where}: its controller died, or is suspended; it was last heard of at {record.heartbeat_at}."


@contextlib.contextmanager
def _abort_signals_held() -> Iterator[list[signal.Signals]]:
    """They are waited for, so that none comes in the midst of a picture; one that was ignored (nohup) stays ignored."""
    watched = [signum for signum in ABORT_SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        yield watched
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
