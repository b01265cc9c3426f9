"""The imperative shell: one thread that waits, feeds facts to the core, and does what the core asks for.

It waits for processes (pidfds), the sampler's pipe, signals and a heap of deadlines, and looks at the logs on a tick.
Nothing here decides anything: what an event means is the core's business.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.clocks import MOVED_NS
from heteromig.core.errors import HeteromigError, PreflightError
from heteromig.core.machine import Run
from heteromig.core.phases import Phase, Role
from heteromig.core.plan import Assignment, expected_duration_ms, split_cpus
from heteromig.core.record import RunRecord
from heteromig.core.redaction import Redaction
from heteromig.core.spec import Goal, Preparation, RunSpec
from heteromig.core.units import NS_PER_S, MonotonicNs, UtcNs
from heteromig.core.verdict import ABORT_SIGNALS
from heteromig.harnesses import Harness
from heteromig.runner.clock import Clock, read_both
from heteromig.runner.crew import Crew, Member, copy_log, copy_traces, make_home
from heteromig.runner.evidence import certify_run
from heteromig.runner.journal import Asked, Follower, Header, Heard, Journal
from heteromig.runner.keeper_link import KeeperLink
from heteromig.runner.observer import Observer, process_cpu_s
from heteromig.runner.recording import Recorder, describe_host
from heteromig.runner.rundir import TELEMETRY, tidy
from heteromig.runner.sampler_link import SamplerLink
from heteromig.slices.locks import HeldLocks, lock_directory, lock_gpus
from heteromig.slices.mig.left_over import left_cut
from heteromig.slices.mps.keeping import TERMINATE_CLIENTS
from heteromig.slices.source import parse_slices
from heteromig.views.reporter import Reporter, tell
from heteromig.workers.command import with_environment, without_secrets
from heteromig.workers.guardian import descendants, read_process
from heteromig.workers.sweep import become_subreaper
from heteromig.workers.worker import Worker

_DISPLAY_PERIOD_NS = NS_PER_S
_HEARTBEAT_PERIOD_NS = 5 * NS_PER_S
_CLOCKS_PERIOD_NS = 10 * NS_PER_S
"""How far apart readings of both clocks are at most: between two, a slewed clock is known to within 2.5 ms."""
_CLOCKS_AGAIN_NS = NS_PER_S // 2
"""How old the last reading is at least where a phase ends."""
_LOOKED_AWAY_NS = NS_PER_S
"""Logs that were not read for longer, four ticks, were not watched meanwhile."""
_KILL_HARD_AFTER_S = 2.0
"""A guardian that has not killed its tree by then does not react any more."""
_FIRST_TICK_S = 0.25

_ENCODER = msgspec.json.Encoder()


class Loop:
    """One run from its first event to its verdict."""

    def __init__(
        self,
        *,
        header: Header,
        spec: RunSpec,
        redaction: Redaction,
        run_dir: Path,
        harness: Harness,
        reporter: Reporter,
        clock: Clock,
        faults: str | None,
        followers: Sequence[Follower] = (),
        crew: Crew | None = None,
    ) -> None:
        """`header` holds `spec` as it may be written down, which is all that the core knows of it.

        `crew` has what goes on from run to run, where the spec says that it does.
        """
        self.run = Run(header.spec)
        self.run_dir = run_dir
        self._header = header
        self._spec = spec
        self._redaction = redaction
        self._runs_dir = Path(spec.runs_dir).absolute()
        self._harness = harness
        self._reporter = reporter
        self._clock = clock
        self._cpus = tuple(sorted(os.sched_getaffinity(0)))
        self._shared_cpus = split_cpus(self._cpus)[1] if self._spec.simulated and self._spec.pin else ()
        self._queue: deque[ev.AnyEvent] = deque()
        self._selector = selectors.DefaultSelector()
        self._deadlines: list[tuple[MonotonicNs, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._events = itertools.count(1)
        self._read_ns, self._offset_ns = header.at_ns, header.at_utc_ns - header.at_ns
        """Of the last reading of both clocks in the journal: when, and how far the wall clock was ahead."""
        self._looked_ns = header.at_ns
        self._workers: dict[int, Worker] = {}
        self._prepared: dict[int, tuple[Assignment, UtcNs]] = {}
        """Workers whose harness has something to collect yet, with when they were spawned."""
        self._crew = crew
        self._members: dict[int, Member] = {}
        """Workers of the crew, which write elsewhere."""
        self._unreported: set[int] = set()
        """Workers of whose start nothing is known yet: their reports are waited for."""
        self._locks: HeldLocks | None = None
        self._journal = Journal(run_dir, followers)
        self._telemetry_fd = os.open(
            run_dir / TELEMETRY, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self._observer = Observer(self.run.phase.value)
        self._recorder = Recorder(header, run_dir, describe_host())
        self._sampler = SamplerLink(
            slices=self._spec.slices,
            runs_dir=self._spec.runs_dir,
            run_dir=run_dir,
            period_ms=self._spec.sample_period_ms,
            cpus=self._shared_cpus,
            faults=faults,
            whole_host=self._spec.goal is Goal.BASELINE,
        )
        self._keeper: KeeperLink | None = None
        self._keeper_fd: int | None = None
        self._keeper_pid: int | None = None
        self._sampler_fd: int | None = None
        self._sampler_pid: int | None = None
        self._sampler_cpu_s: float | None = None
        self._tick_ns = round(_FIRST_TICK_S * NS_PER_S)
        self._next_tick_ns = self._next_display_ns = self._next_heartbeat_ns = clock.monotonic_ns()

    def execute(self) -> RunRecord:
        """Run to the end; return what `run.json` says."""
        become_subreaper()
        with self._pinned(), self._signals():
            self._recorder.begin()
            self._journal.write(self._header)
            try:
                self._live()
            finally:
                self._let_go()
            # With the signals still caught: the verdict is on disk, and one that comes now must not cost its seal.
            record = self._recorder.seal(self.run, self._observer.record(self._sampler_cpu_s), self._clock.utc_ns())
        self._journal.close()
        return record

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        now_ns = self._clock.monotonic_ns()
        process = read_process(os.getpid())
        self._put(
            ev.RunStarted(
                at_ns=now_ns,
                at_utc_ns=self._clock.utc_ns(),
                controller_pid=os.getpid(),
                controller_start_time=None if process is None else process.start_time,
            )
        )
        self._take_in()
        while self.run.phase is not Phase.FINISHED:
            ready = [key for key, _ in self._selector.select(self._patience_s())]
            # Samples last: what has ended by now is not missed by one that was taken after its end.
            for key in sorted(ready, key=lambda key: key.fd == self._sampler_fd):
                key.data()
            self._observer.woke()
            self._take_in()  # what was heard comes before what is due
            self._do_due()
            self._take_in()

    def _patience_s(self) -> float:
        until_ns = min(self._next_heartbeat_ns, self._sampler.deadline_ns)
        if self._deadlines:
            until_ns = min(until_ns, self._deadlines[0][0])
        if self._workers:
            until_ns = min(until_ns, self._next_tick_ns)
        if self._reporter.wants_ticks:
            until_ns = min(until_ns, self._next_display_ns)
        return max(0.0, (until_ns - self._clock.monotonic_ns()) / NS_PER_S)

    def _do_due(self) -> None:
        now_ns = self._clock.monotonic_ns()
        self._compare_clocks(now_ns, _CLOCKS_PERIOD_NS)
        if self._workers and now_ns >= self._next_tick_ns:
            self._next_tick_ns = now_ns + self._tick_ns
            self._read_logs(now_ns)
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            heapq.heappop(self._deadlines)[2]()
        self._put(*self._sampler.check(now_ns))
        self._watch_sampler()
        if now_ns >= self._next_heartbeat_ns:
            self._next_heartbeat_ns = now_ns + _HEARTBEAT_PERIOD_NS
            self._record()
        if self._reporter.wants_ticks and now_ns >= self._next_display_ns:
            self._next_display_ns = now_ns + _DISPLAY_PERIOD_NS
            self._take_in()
            lines = {index: worker.last_line for index, worker in self._workers.items()}
            self._reporter.tick(self.run, now_ns, lines)

    def _compare_clocks(self, now_ns: MonotonicNs, period_ns: int) -> None:
        """Journal both clocks when that was last done so long ago, and when the wall clock has moved since."""
        offset_ns = self._clock.utc_ns() - self._clock.monotonic_ns()
        due = now_ns - self._read_ns >= period_ns
        if not due and abs(offset_ns - self._offset_ns) <= MOVED_NS:
            return
        reading = read_both(self._clock)
        if due or abs(reading.offset_ns - self._offset_ns) > MOVED_NS:  # else this process was interrupted above
            self._read_ns, self._offset_ns = reading.at_ns, reading.offset_ns
            self._put(ev.ClocksRead(at_ns=reading.at_ns, at_utc_ns=reading.at_utc_ns))

    def _at(self, after_s: float, action: Callable[[], None]) -> None:
        at_ns = self._clock.monotonic_ns() + round(after_s * NS_PER_S)
        heapq.heappush(self._deadlines, (at_ns, next(self._numbers), action))

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _put(self, *events: ev.AnyEvent) -> None:
        self._queue.extend(events)

    def _take_in(self) -> None:
        while self._queue and self.run.phase is not Phase.FINISHED:
            event = self._queue.popleft()
            before = self.run.view
            effects = self.run.handle(event)
            self._journal.write(Heard(next(self._events), event), *(Asked(effect) for effect in effects))
            if isinstance(event, ev.SampleTaken):
                os.write(self._telemetry_fd, _ENCODER.encode(event.sample) + b"\n")
            tell(self._reporter, self.run, before, event.at_ns, effects)
            for effect in effects:
                self._perform(effect, event.at_ns)

    def _hear_report(self, worker: Worker) -> None:
        report = worker.read_report(self._clock.monotonic_ns())
        if report is not None:
            self._selector.unregister(worker.report_fd)
            self._unreported.discard(worker.index)
            if isinstance(report, ev.SpawnFailed):
                report = msgspec.structs.replace(report, message=self._redaction.text(report.message))
            self._put(report)

    def _read_logs(self, now_ns: MonotonicNs) -> None:
        if now_ns - self._looked_ns > _LOOKED_AWAY_NS:
            self._put(ev.LookedAway(at_ns=now_ns, since_ns=self._looked_ns))
        self._looked_ns = now_ns
        # Main is the first in number: that it ended is heard before what backgrounds did after it, in the same look.
        for _, worker in sorted(self._workers.items()):
            # Spawning many takes longer than a tick: that one runs is heard before what it says.
            if worker.index in self._unreported:
                self._hear_report(worker)
            if worker.index not in self._unreported:
                self._put(*worker.read_logs(now_ns))

    def _hear_exit(self, worker: Worker) -> None:
        now_ns = self._clock.monotonic_ns()
        exited = worker.reap(now_ns)
        if worker.is_alive:
            return
        self._selector.unregister(worker.pidfd)
        if len(self._workers) == 1:
            self._compare_clocks(now_ns, _CLOCKS_AGAIN_NS)  # nothing that is certified is stamped any more
        # All logs, so that main's end is heard before the exit of a background that came after it.
        self._read_logs(now_ns)
        if exited is None:  # the harness never ran; `SpawnFailed` said why
            exited = ev.WorkerExited(at_ns=now_ns, worker=worker.index, exit_code=None, signal=None)
        else:
            exited = msgspec.structs.replace(exited, last_line=self._redaction.text(worker.last_line))
        self._put(exited)
        del self._workers[worker.index]
        worker.close()

    def _hear_sampler(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._next_tick_ns + self._tick_ns:
            # This process was suspended, or starved: there are many samples to hear, and the silence of workers whose
            # logs nobody has read since would look like a stall.
            self._read_logs(now_ns)
        self._put(*self._sampler.read(self._clock.monotonic_ns()))
        self._watch_sampler()

    def _end_sampler(self) -> None:
        """Without an event: it is not lost."""
        self._sampler_cpu_s = process_cpu_s(self._sampler.pid) or self._sampler_cpu_s
        if self._sampler_fd is not None:
            self._selector.unregister(self._sampler_fd)
        self._sampler.close()
        self._sampler_fd = self._sampler_pid = None

    def _watch_sampler(self) -> None:
        """Wait for the sampler there is now; a restart brings another pipe, possibly under the number of the old."""
        if self._sampler.pid != self._sampler_pid:
            if self._sampler_fd is not None:
                self._selector.unregister(self._sampler_fd)
            self._sampler_fd = self._sampler.fd
            self._sampler_pid = self._sampler.pid
            if self._sampler_fd is not None:
                self._selector.register(self._sampler_fd, selectors.EVENT_READ, self._hear_sampler)

    def _hear_keeper(self) -> None:
        assert self._keeper is not None  # noqa: S101 - it is being heard
        self._put(*self._keeper.read(self._clock.monotonic_ns()))
        self._watch_keeper()

    def _watch_keeper(self) -> None:
        """As for the sampler; a keeper may have a successor."""
        assert self._keeper is not None  # noqa: S101 - it has been started
        if self._keeper.pid != self._keeper_pid:
            if self._keeper_fd is not None:
                self._selector.unregister(self._keeper_fd)
            self._keeper_fd = self._keeper.fd
            self._keeper_pid = self._keeper.pid
            if self._keeper_fd is not None:
                self._selector.register(self._keeper_fd, selectors.EVENT_READ, self._hear_keeper)

    # --- doing --------------------------------------------------------------------------------------------------------

    def _perform(self, effect: ef.AnyEffect, at_ns: MonotonicNs) -> None:  # noqa: C901, PLR0912, PLR0915 - one arm an effect
        now_ns = self._clock.monotonic_ns()
        match effect:
            case ef.PrepareDevices():
                self._put(*self._prepare(now_ns))
            case ef.RestoreDevices():
                assert self._keeper is not None  # noqa: S101 - it was asked to prepare
                if self._crew is not None:
                    self._crew.end()
                self._end_sampler()  # what is done to the GPU now is no concern of the run, and it may be in the way
                self._put(*self._keeper.restore(now_ns))
                self._watch_keeper()
            case ef.StartSampler():
                prepared = self.run.view.prepared
                chosen = prepared.gpu_uuid if prepared and self._spec.preparation is Preparation.MPS else None
                self._put(*self._sampler.start(now_ns, gpu=chosen))
                self._watch_sampler()
            case ef.RequestSample():
                self._sampler.request()
            case ef.LockGpus():
                self._put(self._lock(effect.gpu_uuids))
            case ef.InspectEngines():
                self._put(self._inspect(effect))
            case ef.SpawnWorker():
                self._spawn(effect.assignment)
            case ef.ObserveWorkers():
                self._observe(effect.workers)
            case ef.CleanStop():
                for worker in self._chosen(effect.workers):
                    worker.clean_stop()
            case ef.Terminate():
                for worker in self._chosen(effect.workers):
                    worker.terminate()
            case ef.TerminateClients():
                self._take_off(effect.workers)
            case ef.ReleaseWorkers():
                for worker in tuple(self._chosen(effect.workers)):
                    self._put(self._release(worker))
            case ef.Kill():
                for worker in self._chosen(effect.workers):
                    worker.kill()
                self._at(_KILL_HARD_AFTER_S, lambda: self._kill_hard(effect.workers))
            case ef.ArmTimer():
                self._at(
                    effect.after_s,
                    lambda: self._put(
                        ev.DeadlinePassed(at_ns=self._clock.monotonic_ns(), timer=effect.timer, entry=effect.entry)
                    ),
                )
            case ef.SetTick():
                self._tick_ns = round(effect.period_s * NS_PER_S)
                self._next_tick_ns = now_ns + self._tick_ns
            case ef.ComputeCertificate():
                self._journal.require_there()
                self._collect(tuple(self._prepared))
                tidy(self.run_dir)
                summary = certify_run(self.run_dir, self._header, self.run.view, self._harness)
                self._put(ev.CertificateComputed(at_ns=self._clock.monotonic_ns(), summary=summary))
            case ef.WriteVerdict():
                self._record(sync=True)
                self._put(ev.VerdictWritten(at_ns=self._clock.monotonic_ns()))
            case ef.RecordTransition():
                self._observer.entered(effect.destination.value)
                self._recorder.entered(effect.destination, at_ns)
                self._record()
                if effect.destination not in {Phase.VALIDATING, Phase.FINISHED}:
                    self._compare_clocks(now_ns, _CLOCKS_AGAIN_NS)
            case ef.RecordRejection():
                pass  # it is in the journal, and whoever shows the run was told

    def _prepare(self, now_ns: MonotonicNs) -> list[ev.AnyEvent]:
        try:
            if self._crew is None:
                self._keeper = KeeperLink(self._spec, self.run_dir)
            else:
                self._keeper = self._crew.take_keeper(self._spec, now_ns)
        except HeteromigError as error:
            return [ev.PreparationFailed(at_ns=now_ns, message=str(error), exit_code=error.exit_code)]
        found = self._keeper.prepare(now_ns)
        self._watch_keeper()
        return found

    def _collect(self, indices: Iterable[int]) -> None:
        """Bring the evidence of workers that are gone into the run directory; what cannot be brought is missing."""
        for index in indices:
            assignment, started_utc_ns = self._prepared.pop(index)
            worker = self.run.view.worker(index)
            member = self._members.pop(index, None)
            home = self.run_dir if member is None else member.home
            with contextlib.suppress(OSError):
                self._harness.collect(
                    assignment if member is None else member.assignment,
                    self._spec,
                    home,
                    started_utc_ns=started_utc_ns,
                    exit_code=worker.exit_code if worker is not None else None,
                )
            if member is not None:
                with contextlib.suppress(OSError):
                    copy_traces(member, self.run_dir / assignment.directory)

    def _lock(self, gpu_uuids: tuple[str, ...]) -> ev.AnyEvent:
        try:
            prepared = self.run.view.prepared
            others = set(gpu_uuids) - {prepared.gpu_uuid if prepared is not None else None}  # which the keeper locks
            source = parse_slices(self._spec.slices)
            self._locks = lock_gpus(others, lock_directory(source, self._runs_dir))
        except HeteromigError as error:
            return ev.LockRefused(at_ns=self._clock.monotonic_ns(), message=str(error))
        notes = tuple(left_cut(self._runs_dir, source, others))
        return ev.GpusLocked(at_ns=self._clock.monotonic_ns(), notes=notes)

    def _inspect(self, effect: ef.InspectEngines) -> ev.EnginesInspected:
        # A build that has just ended has its engines recorded before anybody asks whether they are there.
        self._collect([index for index, (assignment, _) in self._prepared.items() if assignment.role is Role.BUILD])
        if effect.discard:
            missing = tuple((need, "It is to be rebuilt.") for need in effect.needs)
        else:
            missing = self._harness.missing_engines(effect.needs, self._spec)
        return ev.EnginesInspected(at_ns=self._clock.monotonic_ns(), missing=missing)

    def _take_over(self, assignment: Assignment) -> bool:
        """Go on with a background of the run before, if there is one that does what is asked for."""
        if self._crew is None or assignment.role is not Role.BACKGROUND:
            return False
        now_ns = self._clock.monotonic_ns()
        member = self._crew.take(assignment, now_ns, expected_duration_ms(self._spec))
        if member is None:
            return False
        worker = member.worker
        worker.rejoin(assignment.index)
        self._members[assignment.index] = member
        self._prepared[assignment.index] = (assignment, member.spawned_utc_ns)
        self._recorder.spawned(assignment, member.command)
        self._workers[assignment.index] = worker
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._hear_exit(worker))
        assert worker.guardian_pid is not None  # noqa: S101 - it was timed in the run before
        assert worker.pid is not None  # noqa: S101 - as above
        self._put(
            ev.WorkerSpawned(
                at_ns=now_ns,
                worker=assignment.index,
                guardian_pid=worker.guardian_pid,
                pid=worker.pid,
                since_ns=member.spawned_ns,
            )
        )
        return True

    def _release(self, worker: Worker) -> ev.WorkerReleased:
        """Let it go on without this run, which keeps a copy of what it wrote until now."""
        assert self._crew is not None  # noqa: S101 - only a run with a crew is asked to
        member, (assignment, started_utc_ns) = self._members.pop(worker.index), self._prepared.pop(worker.index)
        self._selector.unregister(worker.pidfd)
        del self._workers[worker.index]
        with contextlib.suppress(OSError):
            copy_traces(member, self.run_dir / assignment.directory)
            # What was for the program alone is in the way of whoever reads the copy.
            self._harness.collect(assignment, self._spec, self.run_dir, started_utc_ns=started_utc_ns, exit_code=None)
        self._crew.put(member)
        return ev.WorkerReleased(at_ns=self._clock.monotonic_ns(), worker=worker.index)

    def _spawn(self, assignment: Assignment) -> None:
        if self._take_over(assignment):
            return
        crew = self._crew if assignment.role is Role.BACKGROUND else None
        home = self.run_dir if crew is None else crew.new_home()
        directory = home / assignment.directory
        command = self._harness.command(assignment, self._spec, home)
        prepared = self.run.view.prepared
        if prepared is not None:
            command = with_environment(command, prepared.environment)
        written = without_secrets(command, self._redaction)
        self._recorder.spawned(assignment, written)
        worker = Worker(
            index=assignment.index,
            directory=directory,
            command=command,
            written=written,
            cpus=assignment.cpus,
            logs=self._harness.logs(assignment, self._spec, home),
            lines=self._harness.lines(assignment),
        )
        try:
            if crew is not None:
                make_home(home)
            directory.mkdir(0o755)
            self._prepared[assignment.index] = (assignment, self._clock.utc_ns())
            self._harness.prepare(assignment, self._spec, home)
            spawned_ns = self._clock.monotonic_ns()
            worker.spawn()
        except (OSError, PreflightError) as error:
            now_ns = self._clock.monotonic_ns()
            worker.close()
            self._put(
                ev.SpawnFailed(at_ns=now_ns, worker=assignment.index, message=self._redaction.text(str(error))),
                ev.WorkerExited(at_ns=now_ns, worker=assignment.index, exit_code=None, signal=None),
            )
            return
        if crew is not None:
            utc_ns = self._prepared[assignment.index][1]
            collect = functools.partial(self._harness.collect, started_utc_ns=utc_ns, exit_code=None)
            tidy = functools.partial(collect, assignment, self._spec, home)
            self._members[assignment.index] = Member(worker, assignment, written, home, spawned_ns, utc_ns, tidy)
        if not self._workers:
            self._looked_ns = self._clock.monotonic_ns()
        self._workers[assignment.index] = worker
        self._selector.register(worker.report_fd, selectors.EVENT_READ, lambda: self._hear_report(worker))
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._hear_exit(worker))
        # Starting dozens takes seconds, and the certificate compares each log with when its worker was heard to run.
        self._unreported.add(worker.index)
        for unreported in self._chosen(tuple(self._unreported)):
            self._hear_report(unreported)

    def _observe(self, indices: tuple[int, ...]) -> None:
        """Before anything is stopped: who is alive and timed at this moment."""
        for worker in self._chosen(indices):
            now_ns = self._clock.monotonic_ns()
            found = worker.observe(now_ns)
            self._put(*worker.read_logs(now_ns))
            if found is not None:
                self._put(found)

    def _chosen(self, indices: tuple[int, ...]) -> Iterator[Worker]:
        return (self._workers[index] for index in indices if index in self._workers)

    def _take_off(self, indices: tuple[int, ...]) -> None:
        """Every process of theirs: which of them are on the GPU, only the daemon knows that it is shared by."""
        guardians = [worker.guardian_pid for worker in self._chosen(indices)]
        pids = [process.pid for guardian in guardians if guardian is not None for process in descendants(guardian)]
        if self._keeper is not None and pids:
            self._keeper.order(" ".join((TERMINATE_CLIENTS, *map(str, pids))))

    def _kill_hard(self, indices: tuple[int, ...]) -> None:
        for worker in self._chosen(indices):
            worker.kill_hard()

    def _record(self, *, sync: bool = False) -> None:
        sampler_cpu_s = process_cpu_s(self._sampler.pid)
        if sampler_cpu_s is not None:  # the last figure before the sampler ended stays
            self._sampler_cpu_s = sampler_cpu_s
        observed = self._observer.record(self._sampler_cpu_s)
        self._recorder.write(self.run, observed, self._clock.utc_ns(), sync=sync)

    # --- coming and going ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _pinned(self) -> Iterator[None]:
        """Keep the controller off the processors that main has for itself."""
        if not self._shared_cpus:
            yield
            return
        os.sched_setaffinity(0, self._shared_cpus)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._cpus)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals that abort a run become events; one that was ignored from the start (nohup) stays ignored."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before = {signum: signal.getsignal(signum) for signum in ABORT_SIGNALS}
        watched = [signum for signum, handler in before.items() if handler is not signal.SIG_IGN]
        wakeup_before = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for signum in watched:
            signal.signal(signum, _wake_up)

        def hear() -> None:
            now_ns = self._clock.monotonic_ns()
            for signum in os.read(read_fd, 4096):
                if signum in watched:
                    self._put(ev.SignalReceived(at_ns=now_ns, signum=signum))

        self._selector.register(read_fd, selectors.EVENT_READ, hear)
        try:
            yield
        finally:
            for signum in watched:
                signal.signal(signum, before[signum])
            signal.set_wakeup_fd(wakeup_before)
            os.close(read_fd)
            os.close(write_fd)

    def _let_go(self) -> None:
        """Whatever happened, an error in this very program included: nothing is left running or held."""
        for worker in self._workers.values():
            worker.close()
        self._collect(tuple(self._prepared))
        self._sampler.close()
        if self._keeper is not None and self._crew is None:
            self._keeper.close()
        elif self._keeper is not None and self._crew is not None:
            with contextlib.suppress(OSError):
                copy_log(self._keeper, self.run_dir)
            self._crew.put_keeper(self._keeper)
        if self._locks is not None:
            self._locks.close()
        self._reporter.end(self._clock.monotonic_ns())
        self._selector.close()
        os.close(self._telemetry_fd)
        self._journal.sync()


def _wake_up(_signum: int, _frame: object) -> None:
    """A handler must exist for a signal to reach the wakeup pipe."""
