"""Who was on which slice when: what is known of the workers, turned into intervals."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence

from heteromig.core.overlap import BackgroundOverlap, CertificateSummary
from heteromig.core.phases import EvidenceLevel, Role, WorkerState
from heteromig.core.spec import Mode
from heteromig.core.units import NS_PER_S
from heteromig.core.view import View, WorkerView
from heteromig.report.story import Gap, Interval, Kind, Lane, Worker
from heteromig.runner.journal import Header
from heteromig.views.text import format_cpus, printable, short_uuid

Bounds = tuple[int | None, int | None]
"""UTC nanoseconds at which a timed section began and ended, None where that is unknown."""


def lanes(
    header: Header, view: View, certificate: CertificateSummary | None, workers: Sequence[Worker], end_s: float
) -> Iterator[Lane]:
    """The slices of the plan, main's first, then those of its GPUs on which nobody ran."""
    if view.inventory is None or view.plan is None:
        return
    by_index = {worker.index: worker for worker in workers}
    compared = {one.worker: one for one in certificate.overlap.backgrounds} if certificate is not None else {}
    taken = {one.slice_uuid: one.index for one in view.plan.workers}
    places = {one.uuid: one for one in view.inventory.slices}
    gpus = {places[uuid].gpu_uuid for uuid in taken if uuid in places}
    idle = [one.uuid for one in view.inventory.slices if one.gpu_uuid in gpus and one.uuid not in taken]
    for uuid in [*taken, *idle]:
        found = [
            interval
            for worker in view.workers
            if worker.assignment.slice_uuid == uuid
            for interval in _intervals(header, worker, _bounds(worker, certificate, compared), end_s)
        ]
        yield Lane(
            slice_uuid=printable(uuid),
            name=short_uuid(uuid),
            profile=printable(places[uuid].profile) if uuid in places else "",
            gpu_uuid=printable(places[uuid].gpu_uuid) if uuid in places else "",
            worker=by_index.get(taken[uuid]) if uuid in taken else None,
            intervals=tuple(sorted(found, key=lambda one: one.begin_s)),
            overlap=compared.get(taken[uuid]) if uuid in taken else None,
            gaps=tuple(_gaps(header, compared.get(taken[uuid]))) if uuid in taken else (),
        )


def _gaps(header: Header, overlap: BackgroundOverlap | None) -> Iterator[Gap]:
    for one in (overlap.gaps if overlap is not None else None) or ():
        yield Gap(_since_utc(header, one.begin_utc_ns), _since_utc(header, one.end_utc_ns), one.watch.value)


def told_workers(
    header: Header, view: View, last_lines: Mapping[int, str], commands: Mapping[int, str]
) -> tuple[Worker, ...]:
    """Every worker of the run, in the order of their numbers."""
    return tuple(
        Worker(
            index=worker.index,
            role=worker.role,
            benchmark=printable(worker.assignment.benchmark),
            scenario=printable(worker.assignment.scenario),
            mode=worker.assignment.mode.value,
            accuracy=printable(worker.assignment.accuracy),
            duration_s=None
            if worker.role is Role.BUILD or worker.assignment.mode is Mode.ACCURACY
            else worker.assignment.duration_ms / 1000,
            slice_uuid=printable(worker.assignment.slice_uuid),
            cpus=format_cpus(worker.assignment.cpus),
            spawned_s=_since(header, worker.spawned_ns),
            exited_s=_since(header, worker.exited_ns),
            ending=_ending(worker),
            last_line=printable(last_lines.get(worker.index, "")),
            command=commands.get(worker.index, ""),
            went_on=worker.state is WorkerState.RELEASED,
        )
        for worker in view.workers
    )


def died(worker: WorkerView) -> bool:
    """Whether it ended badly and of itself."""
    return worker.exited_ns is not None and worker.stopped_by is None and worker.exit_code != 0


def _ending(worker: WorkerView) -> str:
    if worker.spawned_ns is None:
        return f"could not be started: {printable(worker.spawn_failure)}" if worker.spawn_failure else "never started"
    if worker.state is WorkerState.RELEASED:
        return "went on for the next run"
    if worker.exited_ns is None:
        return "still there"
    if worker.signal is not None:
        how = f"killed by {_signal_name(worker.signal)}"
    elif worker.exit_code is not None:
        how = f"exit {worker.exit_code}"
    else:
        how = "killed with its guardian"
    return f"{how}, after {worker.stopped_by}" if worker.stopped_by else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _bounds(
    worker: WorkerView, certificate: CertificateSummary | None, compared: Mapping[int, BackgroundOverlap]
) -> Bounds:
    """The timed section by the logs: the certificate's, where there is one."""
    if certificate is None or worker.role is Role.BUILD:
        return None, None
    if worker.role is Role.MAIN:
        section = certificate.main_section
        return (section.begin.utc_ns, section.end.utc_ns) if section is not None else (None, None)
    found = compared.get(worker.index)
    return (found.begin_utc_ns, found.end_utc_ns) if found is not None else (None, None)


def _intervals(header: Header, worker: WorkerView, bounds: Bounds, end_s: float) -> Iterator[Interval]:
    spawned_s = _since(header, worker.spawned_ns)
    if spawned_s is None:
        return
    gone_s = _since(header, worker.exited_ns)
    last_s = end_s if gone_s is None else gone_s
    if worker.role is Role.BUILD:
        yield Interval(Kind.BUILD, spawned_s, last_s, worker.index)
        return
    begin_s, ended_s = (None if utc_ns is None else _since_utc(header, utc_ns) for utc_ns in bounds)
    timed_s = _since(header, worker.timed_ns) if begin_s is None else begin_s
    announced_s = _since(header, worker.announced_ns)
    if worker.timed_ns is None and header.spec.start_evidence is EvidenceLevel.ANNOUNCED:
        timed_s, announced_s = None, announced_s if begin_s is None else begin_s  # the marker is all that there is
    elif announced_s is not None and timed_s is not None:
        announced_s = min(announced_s, timed_s)  # heard with the next tick, and the log has its own stamps
    steps = [
        (Kind.START, spawned_s),
        (Kind.ANNOUNCED, announced_s),
        (Kind.TIMED, timed_s),
        (Kind.BUSY, _since(header, worker.busy_ns)),
        (Kind.STOP, _since(header, worker.ended_ns) if ended_s is None else ended_s),
    ]
    if worker.state is WorkerState.RELEASED:
        steps.pop()  # the last that is known of its timed section is no end of it
    known = [(kind, at_s) for kind, at_s in steps if at_s is not None]
    at_s = spawned_s
    for number, (kind, begins_s) in enumerate(known):
        at_s = min(max(at_s, begins_s), last_s)  # two clocks and two readers: never backwards
        ends_s = min(max(at_s, known[number + 1][1]), last_s) if number + 1 < len(known) else last_s
        if ends_s > at_s:
            yield Interval(kind, at_s, ends_s, worker.index)


def _since(header: Header, at_ns: int | None) -> float | None:
    return None if at_ns is None else (at_ns - header.at_ns) / NS_PER_S


def _since_utc(header: Header, utc_ns: int) -> float:
    return (utc_ns - header.at_utc_ns) / NS_PER_S
