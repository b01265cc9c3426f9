"""`run.json`, `plan.toml` and `certificate.json`: what a run says of itself, kept up as it goes, sealed at its end."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from heteromig import __version__
from heteromig.core import events as ev
from heteromig.core.decoding import decode
from heteromig.core.device_guards import DeviceFinding, device_findings
from heteromig.core.errors import EvidenceError
from heteromig.core.guards import Finding
from heteromig.core.machine import Run
from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import EvidenceLevel, Keeping, Phase
from heteromig.core.plan import Assignment
from heteromig.core.record import (
    SCHEMA_VERSION,
    GpuRecord,
    HostRecord,
    ObserverRecord,
    OverlapRecord,
    PhaseRecord,
    PreparationRecord,
    ReplacedSlice,
    RunRecord,
    SliceRecord,
    Tool,
    VerdictRecord,
    WorkerRecord,
)
from heteromig.core.spec import Isolation
from heteromig.core.units import MonotonicNs, UtcNs
from heteromig.core.view import View, WorkerView
from heteromig.logs.files import read_regular
from heteromig.runner.clock import rfc3339
from heteromig.runner.config import to_toml
from heteromig.runner.journal import Header
from heteromig.runner.rundir import CERTIFICATE, PLAN, RUN_JSON, FileHash, hash_files, sync_directory, write_json
from heteromig.workers.command import Command
from heteromig.workers.private import create_private

TOOL = Tool(name="heteromig", version=__version__)
CERTIFICATE_VERSION = 2
"""Of `certificate.json`, which changes for other reasons than `run.json`."""


class GuardRecord(Struct, frozen=True):
    """The findings on which the run went from one phase to the next."""

    source: str
    destination: str
    findings: tuple[Finding, ...]


class Certificate(Struct, frozen=True):
    """All of `certificate.json`."""

    schema_version: int
    run_id: str
    simulated: bool
    isolation: Isolation
    level: EvidenceLevel
    summary: CertificateSummary | None
    guards: tuple[GuardRecord, ...]
    device_guards: tuple[DeviceFinding, ...]
    files: tuple[FileHash, ...]


def certificate_of(header: Header, run: Run, files: tuple[FileHash, ...]) -> Certificate:
    """All that a run proves, by its events and its files; `verify` makes it again."""
    return Certificate(
        schema_version=CERTIFICATE_VERSION,
        run_id=header.run_id,
        simulated=header.spec.simulated,
        isolation=header.spec.isolation,
        level=header.spec.start_evidence,
        summary=run.view.certificate,
        guards=tuple(GuardRecord(step.source.value, step.destination.value, step.findings) for step in run.transitions),
        device_guards=device_findings(run.view) if run.view.certificate is not None else (),
        files=files,
    )


def overlap_of(run: Run) -> OverlapRecord:
    """What `run.json` says of the second half of the verdict."""
    overlap = run.view.certificate.overlap if run.view.certificate is not None else None
    return OverlapRecord(
        proven=overlap is not None and overlap.proven,
        coverage=overlap.coverage if overlap else None,
        slack_before_s=overlap.slack_before_s if overlap else None,
        slack_after_s=overlap.slack_after_s if overlap else None,
        backgrounds=overlap.backgrounds if overlap else (),
    )


def verdict_of(run: Run) -> VerdictRecord | None:
    """What `run.json` says of how the run came out, None before that is judged."""
    if run.phase not in {Phase.VALIDATING, Phase.FINISHED} or run.view.certificate is None:
        return None
    return VerdictRecord(run.verdict.status, run.verdict.exit_code, run.verdict.reasons)


class Recorder:
    """The writer of the files above; nothing is written before `begin`."""

    def __init__(self, header: Header, run_dir: Path, host: HostRecord) -> None:
        self._header = header
        self._run_dir = run_dir
        self._host = host
        self._commands: dict[int, tuple[Assignment, Command]] = {}
        self._entered: list[tuple[Phase, MonotonicNs]] = [(Phase.DISCOVERING, header.at_ns)]

    def begin(self) -> None:
        """Write down the plan."""
        with os.fdopen(create_private(self._run_dir / PLAN), "wb") as file:
            file.write(to_toml(self._header.spec).encode())

    def entered(self, phase: Phase, at_ns: MonotonicNs) -> None:
        """The run is in another phase."""
        self._entered.append((phase, at_ns))

    def spawned(self, assignment: Assignment, command: Command) -> None:
        """A worker is about to run this command."""
        self._commands[assignment.index] = (assignment, command)

    def write(self, run: Run, observer: ObserverRecord, now_utc_ns: UtcNs, *, sync: bool = False) -> RunRecord:
        """Replace `run.json` in one step."""
        record = self.describe(run, observer, now_utc_ns)
        write_json(self._run_dir / RUN_JSON, record, sync=sync, private=True)
        return record

    def seal(self, run: Run, observer: ObserverRecord, now_utc_ns: UtcNs) -> RunRecord:
        """The last `run.json`, and the certificate over every file there is then."""
        record = self.write(run, observer, now_utc_ns, sync=True)
        certificate = certificate_of(self._header, run, hash_files(self._run_dir))
        write_json(self._run_dir / CERTIFICATE, certificate, sync=True)
        sync_directory(self._run_dir.parent)
        return record

    def describe(self, run: Run, observer: ObserverRecord, now_utc_ns: UtcNs) -> RunRecord:
        """What `run.json` would say now."""
        view = run.view
        inventory = view.inventory
        finished = run.phase is Phase.FINISHED
        verdict = verdict_of(run)
        cpus = {worker.assignment.slice_uuid: worker.assignment.cpus for worker in view.workers}
        found = device_findings(view) if verdict is not None else ()
        clock = view.certificate.clock if view.certificate is not None else None
        return RunRecord(
            schema_version=SCHEMA_VERSION,
            tool=TOOL,
            run_id=self._header.run_id,
            started_at=rfc3339(self._header.at_utc_ns),
            ended_at=rfc3339(now_utc_ns) if finished else None,
            heartbeat_at=rfc3339(now_utc_ns),
            phase=run.phase.value,
            goal=view.spec.goal.value,
            harness=view.spec.harness,
            simulated=view.spec.simulated,
            isolation=view.spec.isolation.value,
            lenient=view.spec.lenient,
            host=self._host,
            gpus=tuple(GpuRecord(gpu.uuid, gpu.name, gpu.driver) for gpu in inventory.gpus) if inventory else (),
            slices=tuple(
                SliceRecord(
                    uuid=place.uuid,
                    kind=place.kind.value,
                    profile=place.profile,
                    gpu_uuid=place.gpu_uuid,
                    gpu_instance_id=place.gpu_instance_id,
                    compute_instance_id=place.compute_instance_id,
                    cpus=cpus.get(place.uuid, ()),
                )
                for place in (inventory.slices if inventory else ())
            ),
            workers=tuple(self._describe_worker(worker, run) for worker in view.workers),
            left_out=view.plan.left_out if view.plan else (),
            overlap=overlap_of(run),
            observer=observer,
            phases=tuple(
                PhaseRecord(
                    name=phase.value,
                    entered_at=rfc3339(self._header.utc_ns(at_ns)),
                    left_at=rfc3339(self._header.utc_ns(self._entered[number + 1][1]))
                    if number + 1 < len(self._entered)
                    else None,
                )
                for number, (phase, at_ns) in enumerate(self._entered)
            ),
            notes=(
                *(one.remark for one in found if one.remark),
                *((clock.remark,) if clock is not None and clock.remark else ()),
                *view.notes,
            ),
            device_guards=found,
            verdict=verdict,
            preparation=_describe_preparation(view),
        )

    def _describe_worker(self, worker: WorkerView, run: Run) -> WorkerRecord:
        assignment, command = self._commands.get(worker.index, (worker.assignment, None))
        begin, end = self._timed(worker, run)
        certificate = run.view.certificate
        is_main = run.view.main is worker
        return WorkerRecord(
            index=worker.index,
            role=worker.role.value,
            benchmark=assignment.benchmark,
            scenario=assignment.scenario,
            mode=assignment.mode.value,
            accuracy=assignment.accuracy,
            config_ver=assignment.config_ver,
            slice_uuid=assignment.slice_uuid,
            directory=assignment.directory,
            pid=worker.pid,
            command=command.argv if command else (),
            env=command.env if command else {},
            exit_code=worker.exit_code,
            signal=worker.signal,
            timed_begin=begin,
            timed_end=end,
            evidence=_level(worker),
            stopped_by=worker.stopped_by,
            metrics=certificate.main_result.metrics if is_main and certificate else {},
        )

    def _timed(self, worker: WorkerView, run: Run) -> tuple[str | None, str | None]:
        """The timed section from LoadGen's own stamps where they are known, else as it was seen live."""
        certificate = run.view.certificate
        if certificate is not None:
            if run.view.main is worker and certificate.main_section is not None:
                section = certificate.main_section
                return rfc3339(section.begin.utc_ns), rfc3339(section.end.utc_ns)
            for background in certificate.overlap.backgrounds:
                if background.worker == worker.index and background.begin_utc_ns and background.end_utc_ns:
                    return rfc3339(background.begin_utc_ns), rfc3339(background.end_utc_ns)
        begin_ns = worker.timed_ns
        if begin_ns is None and self._header.spec.start_evidence is EvidenceLevel.ANNOUNCED:
            begin_ns = worker.announced_ns
        begin = rfc3339(self._header.utc_ns(begin_ns)) if begin_ns is not None else None
        end = rfc3339(self._header.utc_ns(worker.ended_ns)) if worker.ended_ns is not None else None
        return begin, end


def _describe_preparation(view: View) -> PreparationRecord | None:
    kind, prepared, restoration = view.spec.preparation, view.prepared, view.restoration
    if kind is None:
        return None
    restored = restoration if isinstance(restoration, ev.DevicesRestored) else None
    failed = restoration if isinstance(restoration, ev.RestorationFailed) else None
    goes_on = "It stays so for the next run of the campaign." if view.keeping is Keeping.HANDED_ON else None
    return PreparationRecord(
        kind=kind.value,
        gpu_uuid=prepared.gpu_uuid if prepared else None,
        what=prepared.what if prepared else None,
        replaced=tuple(ReplacedSlice(*pair) for pair in prepared.replaced) if prepared else (),
        restored=True if restored else False if failed else None,
        sentence=restored.what if restored else failed.message if failed else goes_on,
        returned=tuple(ReplacedSlice(*pair) for pair in restored.replaced) if restored else (),
    )


def _level(worker: WorkerView) -> str | None:
    if worker.busy_ns is not None:
        return EvidenceLevel.BUSY.value
    if worker.timed_ns is not None:
        return EvidenceLevel.TIMED.value
    return EvidenceLevel.ANNOUNCED.value if worker.announced_ns is not None else None


class _Stamp(Struct, frozen=True):
    """What is read of a record before the rest of it, which another version may have changed."""

    schema_version: int


def read_record(run_dir: Path) -> RunRecord:
    """What `run.json` says.

    Raises:
        EvidenceError: there is none, it cannot be read, or it is of another version.
    """
    path = run_dir / RUN_JSON
    try:
        raw = read_regular(path, "The record of the run")
        version = decode(raw, _Stamp).schema_version
        if version != SCHEMA_VERSION:
            raise EvidenceError(
                f"{path} was written by another version of heteromig: its schema is {version}, and this one reads "
                f"{SCHEMA_VERSION}. Use the version that wrote it."
            )
        return decode(raw, RunRecord)
    except FileNotFoundError:
        raise EvidenceError(f"There is no {path}, which says where and at what cost the run was watched.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvidenceError(f"{path} is not readable ({error}): it was altered.") from None
    except MemoryError:
        raise EvidenceError(f"{path} does not fit into memory: it was altered.") from None


def describe_host() -> HostRecord:
    """This machine."""
    return HostRecord(
        hostname=socket.gethostname(),
        kernel=platform.release(),
        python=platform.python_version(),
        cpu_model=_cpu_model(),
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        memory_bytes=psutil.virtual_memory().total,
    )


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
