"""From a run directory to its story: the journal replayed, the logs judged anew, and nothing believed that can be so.

What only `run.json` knows, which is the host, what watching cost and what to do next, is taken from there as told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.comparing.baseline import find_baseline
from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.decoding import decode
from heteromig.core.degradation import Degradation
from heteromig.core.errors import EvidenceError
from heteromig.core.guards import Finding
from heteromig.core.overlap import BackgroundOverlap, CertificateSummary
from heteromig.core.phases import Phase
from heteromig.core.record import OverlapRecord, RunRecord, VerdictRecord
from heteromig.core.spec import Goal, Isolation
from heteromig.core.units import NS_PER_S
from heteromig.core.verdict import ExitCode, Reason, decide
from heteromig.core.view import View, WorkerView
from heteromig.harnesses import harness_of
from heteromig.logs.detail import read_parameters
from heteromig.logs.files import read_regular
from heteromig.report.instruments import Readings, instruments
from heteromig.report.lanes import died, lanes, told_workers
from heteromig.report.story import (
    Board,
    Headline,
    Mark,
    Passage,
    Result,
    Section,
    State,
    Stay,
    Step,
    Story,
)
from heteromig.runner.clock import Clock, SystemClock, rfc3339
from heteromig.runner.config import to_toml
from heteromig.runner.journal import Header
from heteromig.runner.liveness import goes_on
from heteromig.runner.recording import read_record
from heteromig.runner.rundir import FileHash, hash_files
from heteromig.runner.verification import Retold, retell
from heteromig.views.plan_view import command_lines
from heteromig.views.summary import next_steps, observer_words, result_words
from heteromig.views.text import printable
from heteromig.views.verdict_text import SIMULATED_NOTE, SOFT_NOTE, clock_words, headline
from heteromig.workers.command import Command
from heteromig.workers.worker import COMMAND_FILE

LENIENT_NOTE = "LENIENT: the run was told to go on without those that fail; what it forgave is listed below."
_NS_PER_MS = 1e6
_LONG_MS = 1000
_WAITS_MAX = 200
"""Rejected guards that are told: each is told once a phase, so that more is no ordinary run."""


class _Recorded(Struct, frozen=True):
    """What a worker's `command.json` says."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str


def tell(run_dir: Path, clock: Clock | None = None) -> Story:
    """The story of a run, however far it got.

    Raises:
        UsageError: `run_dir` is no run directory.
        EvidenceError: its journal cannot be used: it is of another version, or was altered.
    """
    run_dir = run_dir.resolve() if run_dir.is_symlink() else run_dir
    told = retell(run_dir)
    header, view, found = told.journal.header, told.run.view, told.found
    record, unread = _read_record(run_dir)
    end_ns = max([header.at_ns, *(step.event.at_ns for step in told.steps)])
    end_s = (end_ns - header.at_ns) / NS_PER_S
    state = _state(told, record, clock or SystemClock())
    events = [step.event for step in told.steps]
    last_lines = {event.worker: event.last_line for event in events if isinstance(event, ev.WorkerExited)}
    workers = told_workers(header, view, last_lines, dict(_commands(run_dir, view)))
    certificate = found.certificate
    rows = tuple(lanes(header, view, certificate, workers, end_s))
    files, files_note = _files(run_dir)
    runs_something = view.spec.goal is Goal.RUN
    compared = certificate.overlap.backgrounds if certificate is not None and runs_something else ()
    backgrounds = tuple(map(_made_safe, compared))
    overlap = certificate.overlap if certificate is not None and certificate.main_section is not None else None
    taken = {lane.gpu_uuid for lane in rows}
    remarks = tuple(printable(one.remark) for one in found.device_guards if one.remark)
    return Story(
        run_id=printable(header.run_id),
        run_dir=printable(str(run_dir)),
        tool=printable(f"{header.tool.name} {header.tool.version}"),
        host=_host(record),
        started_at=rfc3339(header.at_utc_ns),
        as_of=rfc3339(header.utc_ns(end_ns)),
        length_s=end_s,
        state=state,
        phase=told.run.phase.value,
        headline=_headline(told, state, rfc3339(header.utc_ns(end_ns))),
        banners=tuple(_banners(header)),
        remarks=remarks,
        notes=tuple(printable(note) for note in (*view.notes, *found.notes, *unread)),
        goal=view.spec.goal.value,
        simulated=found.simulated,
        isolation=found.isolation.value,
        lenient=header.spec.lenient,
        degradation=_degradation(run_dir, told),
        boards=tuple(
            Board(printable(gpu.uuid), printable(gpu.name), printable(gpu.driver))
            for gpu in (view.inventory.gpus if view.inventory is not None else ())
            if not taken or gpu.uuid in taken
        ),
        lanes=rows,
        workers=workers,
        section=_section(header, certificate),
        overlap_proven=overlap.proven if overlap is not None and runs_something else None,
        coverage=overlap.coverage if overlap is not None else None,
        slack_before_s=overlap.slack_before_s if overlap is not None else None,
        slack_after_s=overlap.slack_after_s if overlap is not None else None,
        backgrounds=backgrounds,
        gap_threshold_s=certificate.gap_threshold_s if certificate is not None else None,
        clock=clock_words(certificate.clock) if certificate is not None and certificate.clock is not None else "",
        result=_result(run_dir, header, view, certificate) if runs_something else None,
        stays=tuple(_stays(told, record, end_s)),
        marks=tuple(_marks(header, view, events)),
        instruments=tuple(instruments(view, rows, Readings(header, events))),
        passages=tuple(_passages(told)),
        waits=tuple(_waits(told))[:_WAITS_MAX],
        device_guards=tuple(
            msgspec.structs.replace(
                one,
                scope=printable(one.scope),
                before=one.before and printable(one.before),
                after=one.after and printable(one.after),
                evidence=printable(one.evidence),
                remark=printable(one.remark),
            )
            for one in found.device_guards
        ),
        observer=observer_words(record) if record is not None else "",
        plan_toml="\n".join(map(_spelt_out, to_toml(header.spec).splitlines())),
        left_out=tuple(printable(name) for name in (view.plan.left_out if view.plan is not None else ())),
        files=files,
        files_note=files_note,
        next_steps=tuple(_next_steps(told, record, run_dir)),
    )


def _degradation(run_dir: Path, told: Retold) -> Degradation | None:
    """What the neighbours cost, if that is known: a report is none the less one without it."""
    try:
        found = find_baseline(run_dir, told)
    except (OSError, MemoryError):  # other directories than this one are looked into
        return None
    if found is None:
        return None
    return msgspec.structs.replace(
        found,
        baselines=tuple(printable(Path(one).name) for one in found.baselines),
        sentence=printable(found.sentence),
        remarks=tuple(map(printable, found.remarks)),
    )


def _read_record(run_dir: Path) -> tuple[RunRecord | None, tuple[str, ...]]:
    """`run.json`, or a remark on why it says nothing."""
    try:
        return read_record(run_dir), ()
    except EvidenceError as error:
        return None, (f"The host and what watching cost are unknown. {error}",)


def _state(told: Retold, record: RunRecord | None, clock: Clock) -> State:
    if told.run.phase is Phase.FINISHED:
        return State.FINISHED
    heartbeat_at = record.heartbeat_at if record is not None else None
    more = told.life is not None and goes_on(told.life, heartbeat_at, clock.utc_ns())
    return State.GOING_ON if more else State.BROKEN_OFF


def _headline(told: Retold, state: State, as_of: str) -> Headline:
    verdict, phase = told.found.verdict, told.run.phase
    backgrounds = len(told.run.view.backgrounds)
    reasons: Sequence[Reason] = verdict.reasons
    if state is State.FINISHED:
        sentence, rest = headline(verdict.status, reasons, backgrounds=backgrounds)
        return Headline(verdict.status, verdict.exit_code, sentence, tuple(map(_safe_reason, rest)))
    reasons = tuple(reason for reason in reasons if reason != told.unfinished)
    if state is State.GOING_ON:
        sentence = f"the run is in {phase.value} as of {as_of}, and there is no verdict before it has ended."
        return Headline("still going on", None, sentence, tuple(map(_safe_reason, reasons)))
    cut = ", in the middle of a line" if told.journal.cut else ""
    broken = f"the controller ended in {phase.value} without a verdict: its journal breaks off at {as_of}{cut}."
    full = decide((*reasons, Reason(ExitCode.INCONCLUSIVE, broken)), lenient=told.run.view.spec.lenient)
    sentence, rest = headline(full.status, full.reasons, backgrounds=backgrounds)
    return Headline(full.status, full.exit_code, sentence, tuple(map(_safe_reason, rest)))


def _safe_reason(reason: Reason) -> Reason:
    return msgspec.structs.replace(reason, sentence=printable(reason.sentence))


def _banners(header: Header) -> Iterator[str]:
    """What limits the meaning of all that follows."""
    if header.spec.simulated:
        yield SIMULATED_NOTE
    if header.spec.isolation is Isolation.SOFT:
        yield SOFT_NOTE
    if header.spec.lenient:
        yield LENIENT_NOTE


def _host(record: RunRecord | None) -> str:
    if record is None:
        return "unknown"
    host = record.host
    memory = "" if host.memory_bytes is None else f", {host.memory_bytes / 2**30:.0f} GiB"
    cpu = f", {host.cpu_model}" if host.cpu_model else ""
    return printable(
        f"{host.hostname}, Linux {host.kernel}, Python {host.python}{cpu}, {len(host.cpus)} processors{memory}"
    )


def _section(header: Header, certificate: CertificateSummary | None) -> Section | None:
    section = certificate.main_section if certificate is not None else None
    if section is None:
        return None
    return Section(
        begin_s=(section.begin.utc_ns - header.at_utc_ns) / NS_PER_S,
        end_s=(section.end.utc_ns - header.at_utc_ns) / NS_PER_S,
        begin_source=printable(section.begin.source),
        end_source=printable(section.end.source),
    )


def _made_safe(one: BackgroundOverlap) -> BackgroundOverlap:
    return msgspec.structs.replace(one, benchmark=printable(one.benchmark))


def _result(run_dir: Path, header: Header, view: View, certificate: CertificateSummary | None) -> Result | None:
    main = view.main
    if main is None:
        return None
    judged = certificate.main_result if certificate is not None and view.main_finished else None
    metrics = judged.metrics if judged is not None else {}
    parameters, missing = _parameters(run_dir, header, main)
    assignment = main.assignment
    neighbours = len(view.backgrounds)
    beside = f"beside {neighbours} background{'' if neighbours == 1 else 's'}"
    does = header.spec.main.action.audit or assignment.mode.value
    return Result(
        title=printable(
            f"{assignment.benchmark} {assignment.scenario}, {does}, accuracy {assignment.accuracy}, on "
            f"{assignment.profile}, {beside}"
        ),
        words=printable(result_words(assignment.scenario, assignment.mode.value, metrics)),
        valid=judged.valid if judged is not None else None,
        complaints=tuple(printable(one) for one in judged.complaints) if judged is not None else (),
        metrics=tuple((printable(name), _metric(name, value)) for name, value in metrics.items()),
        parameters=parameters,
        parameters_missing=missing,
    )


def _metric(name: str, value: float) -> str:
    """LoadGen's latencies are nanoseconds, which nobody reads."""
    if (name.endswith(("_ns", "_ss", "_ms")) and "latency" in name) and value:
        in_ms = value / _NS_PER_MS
        return f"{value:.15g} ns = " + (f"{in_ms / 1000:.4g} s" if in_ms >= _LONG_MS else f"{in_ms:.4g} ms")
    return f"{value:.10g}"


def _parameters(run_dir: Path, header: Header, main: WorkerView) -> tuple[tuple[tuple[str, str], ...], str]:
    logs = harness_of(header.spec).detail_logs(main.assignment, run_dir)
    if not logs:
        return (), "main left no LoadGen log."
    try:
        found = read_parameters(logs[-1])
    except EvidenceError as error:
        return (), printable(str(error))
    return tuple((printable(name), printable(value)) for name, value in found), (
        "" if found else "LoadGen's log does not say."
    )


def _commands(run_dir: Path, view: View) -> Iterator[tuple[int, str]]:
    """What each worker ran, as a shell reads it; nothing where that is not known."""
    for worker in view.workers:
        try:
            raw = read_regular(run_dir / worker.assignment.directory / COMMAND_FILE, "The command")
            recorded = decode(raw, _Recorded)
        except (FileNotFoundError, EvidenceError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        command = Command(argv=recorded.argv, env=recorded.env, cwd=Path(recorded.cwd))
        if command.argv:
            yield worker.index, command_lines(worker.assignment, command, elsewhere=True)


def _stays(told: Retold, record: RunRecord | None, end_s: float) -> Iterator[Stay]:
    header = told.journal.header
    entered = [(Phase.DISCOVERING, 0.0)]
    entered += [
        (effect.destination, (step.event.at_ns - header.at_ns) / NS_PER_S)
        for step in told.steps
        for effect in step.effects
        if isinstance(effect, ef.RecordTransition)
    ]
    costs = {one.name: one for one in record.observer.by_phase} if record is not None else {}
    for number, (phase, begin_s) in enumerate(entered):
        cost = costs.get(phase.value)
        yield Stay(
            name=phase.value,
            begin_s=begin_s,
            end_s=entered[number + 1][1] if number + 1 < len(entered) else end_s,
            cpu_s=cost.cpu_s if cost is not None else None,
            wakeups=cost.wakeups if cost is not None else None,
        )


def _marks(header: Header, view: View, events: Sequence[ev.AnyEvent]) -> Iterator[Mark]:  # noqa: C901 - one arm an event
    """What a person would want to find on the timeline besides phases and intervals."""
    workers = {worker.index: worker for worker in view.workers}
    for event in events:
        at_s = (event.at_ns - header.at_ns) / NS_PER_S
        match event:
            case ev.StartAnnounced():
                yield Mark(at_s, "marker printed", event.worker)
            case ev.TimedSectionBegan():
                yield Mark(at_s, "timed section begins", event.worker)
            case ev.TimedSectionEnded():
                yield Mark(at_s, "timed section ends", event.worker)
            case ev.WorkerExited():
                worker = workers.get(event.worker)
                bad = worker is not None and died(worker)
                yield Mark(at_s, "exited" if not bad else "died", event.worker, bad)
            case ev.SpawnFailed():
                yield Mark(at_s, f"could not be started: {printable(event.message)}", event.worker, bad=True)
            case ev.DeviceFaulted():
                yield Mark(at_s, printable(event.message), bad=True)
            case ev.SamplerLost():
                yield Mark(at_s, f"sampler lost: {printable(event.message)}", bad=True)
            case ev.SignalReceived():
                yield Mark(at_s, f"signal {event.signum} received", bad=True)
            case ev.KeeperLost() | ev.PreparationFailed() | ev.RestorationFailed() | ev.DiscoveryFailed():
                yield Mark(at_s, printable(event.message), bad=True)
            case ev.DevicesPrepared() | ev.DevicesRestored():
                yield Mark(at_s, printable(event.what))
            case _:
                pass


def _passages(told: Retold) -> Iterator[Passage]:
    for step in told.steps:
        for effect in step.effects:
            if isinstance(effect, ef.RecordTransition):
                yield Passage(
                    at_s=(step.event.at_ns - told.journal.header.at_ns) / NS_PER_S,
                    source=effect.source.value,
                    destination=effect.destination.value,
                    findings=tuple(
                        msgspec.structs.replace(one, evidence=printable(one.evidence)) for one in effect.findings
                    ),
                )


def _waits(told: Retold) -> Iterator[tuple[float, Finding]]:
    for step in told.steps:
        for effect in step.effects:
            if isinstance(effect, ef.RecordRejection):
                at_s = (step.event.at_ns - told.journal.header.at_ns) / NS_PER_S
                yield at_s, msgspec.structs.replace(effect.finding, evidence=printable(effect.finding.evidence))


def _spelt_out(line: str) -> str:
    """A line of TOML whose strings mean the same, without characters that do something to a display."""
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in line)


def _files(run_dir: Path) -> tuple[tuple[FileHash, ...], str]:
    try:
        return tuple(msgspec.structs.replace(one, path=printable(one.path)) for one in hash_files(run_dir)), ""
    except (EvidenceError, FileNotFoundError) as error:
        return (), printable(str(error))


def _next_steps(told: Retold, record: RunRecord | None, run_dir: Path) -> Iterator[Step]:
    """The advice of the terminal, on the verdict that was found now."""
    if record is None:
        return
    verdict, certificate = told.found.verdict, told.found.certificate
    finished = told.run.phase is Phase.FINISHED
    overlap = certificate.overlap if certificate is not None else None
    believed = msgspec.structs.replace(
        record,
        verdict=VerdictRecord(verdict.status, verdict.exit_code, verdict.reasons) if finished else None,
        overlap=OverlapRecord(
            overlap.proven, overlap.coverage, overlap.slack_before_s, overlap.slack_after_s, overlap.backgrounds
        )
        if overlap is not None
        else record.overlap,
    )
    for step in next_steps(believed, str(run_dir)):
        yield Step(printable(step.words), step.command)
