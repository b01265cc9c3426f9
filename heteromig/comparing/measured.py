"""What one run measured, under which settings, out of its directory."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from heteromig.comparing.devices import read_devices
from heteromig.comparing.settings import read_settings
from heteromig.core import events as ev
from heteromig.core.device_guards import HOST_IDLE
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.guards import Status
from heteromig.core.phases import Role
from heteromig.core.record import RunRecord, WorkerRecord
from heteromig.core.spec import Goal, Mode
from heteromig.core.verdict import Verdict
from heteromig.results.metrics import ENERGY, POWER, QPS, read_figures
from heteromig.runner.recording import read_record
from heteromig.runner.verification import Retold, retell


class Measured(Struct, frozen=True):
    """One run. `figures` are its metrics by name, `missing` says why others are not there, as the end of a sentence.

    `settings` are (name, value) of all that has to be the same on both sides, `place` those of the machine and the
    board, which need not be. `host_busy`: a baseline beside which others used the host.
    """

    run_dir: Path
    run_id: str
    goal: Goal
    simulated: bool
    benchmark: str
    scenario: str
    verdict: Verdict
    figures: dict[str, float]
    missing: dict[str, str]
    settings: tuple[tuple[str, str], ...]
    place: tuple[tuple[str, str], ...]
    backgrounds: tuple[str, ...]
    host_busy: bool

    @property
    def is_baseline(self) -> bool:
        """Whether main was alone."""
        return self.goal is Goal.BASELINE


def main_of(record: RunRecord) -> WorkerRecord | None:
    """The measured worker, None where a run never came to plan one."""
    return next((worker for worker in record.workers if worker.role == Role.MAIN.value), None)


def measure(run_dir: Path, *, allow_invalid: bool = False) -> Measured:
    """A run whose verdict is recomputed from its files first.

    Raises:
        UsageError: it is no run directory, or of a run that measures no speed.
        EvidenceError: it cannot be read, or is not valid; `allow_invalid` lets the latter pass.
    """
    told = retell(run_dir)
    found = told.found
    if found.verdict.status != "valid" and not allow_invalid:
        why = found.verdict.reasons[0].sentence if found.verdict.reasons else "it measured nothing."
        raise EvidenceError(
            f"{run_dir} cannot be compared, because it is {found.verdict.status} (exit {found.verdict.exit_code}): "
            f"{why} To compare all the same, add --allow-invalid."
        )
    return measured(run_dir, told)


def measured(run_dir: Path, told: Retold) -> Measured:
    """The same of a run that was verified, however that came out.

    Raises:
        UsageError: it is no run directory, or of a run that measures no speed.
        EvidenceError: its record cannot be read, or it had no plan.
    """
    journal, certificate, guards = told.journal, told.found.certificate, told.found.device_guards
    record = read_record(run_dir)
    main = main_of(record)
    spec = journal.header.spec
    if not spec.goal.measures:
        raise UsageError(f"{run_dir} is of a build, which measures nothing: name directories of runs.")
    if spec.main.mode is not Mode.PERFORMANCE:
        raise UsageError(f"{run_dir} is of a run in {spec.main.mode.value} mode, which measures no speed.")
    if main is None:
        raise EvidenceError(f"{run_dir} cannot be compared: it ended before it had a plan, so that nothing is known.")
    gpu_uuid = next((place.gpu_uuid for place in record.slices if place.uuid == main.slice_uuid), "")
    section = certificate.main_section if certificate is not None else None
    samples = [
        (journal.header.utc_ns(event.sample.taken_ns), event.sample)
        for event in journal.events
        if isinstance(event, ev.SampleTaken)
    ]
    bounds = None if section is None else (section.begin.utc_ns, section.end.utc_ns)
    seen, missing = read_devices(samples, gpu_uuid, bounds)
    figures = {
        **(read_figures(spec.main.scenario, certificate.main_result.metrics) if certificate is not None else {}),
        **seen,
    }
    if POWER.name in figures and QPS.name in figures:
        figures[ENERGY.name] = figures[POWER.name] / figures[QPS.name]
    else:
        missing[ENERGY.name] = missing.get(POWER.name, "there is no throughput")
    gpu = next((one for one in record.gpus if one.uuid == gpu_uuid), None)
    return Measured(
        run_dir=run_dir,
        run_id=record.run_id,
        goal=spec.goal,
        simulated=spec.simulated,
        benchmark=spec.main.benchmark,
        scenario=spec.main.scenario,
        verdict=told.found.verdict,
        figures=figures,
        missing=missing,
        settings=read_settings(run_dir, record, main, spec),
        place=(("host", record.host.hostname), ("GPU", "unknown" if gpu is None else gpu.uuid)),
        backgrounds=tuple(
            worker.benchmark for worker in record.workers if worker.role == Role.BACKGROUND.value and worker.pid
        ),
        host_busy=any(one.guard == HOST_IDLE and one.status is Status.VIOLATED for one in guards),
    )
