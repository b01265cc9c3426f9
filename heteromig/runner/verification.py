"""`verify`: the verdict again, from the files alone.

The journal's events go through the core once more; the certificate is computed from the logs, not read. What the run
wrote of its own verdict, overlap and certificate is not believed: it is compared with what comes out here, and where it
says something else, that is told. The recorded hashes only say which file to name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.decoding import decode
from heteromig.core.device_guards import DeviceFinding, device_findings
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.machine import Run
from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import Phase
from heteromig.core.record import SCHEMA_VERSION, OverlapRecord, VerdictRecord
from heteromig.core.spec import Isolation
from heteromig.core.verdict import ExitCode, Reason, Verdict, decide
from heteromig.harnesses import HARNESSES, harness_of
from heteromig.logs.files import read_regular
from heteromig.runner.evidence import certify_run
from heteromig.runner.journal import JOURNAL, JournalText, read_journal
from heteromig.runner.liveness import life_of_run
from heteromig.runner.recording import CERTIFICATE_VERSION, Certificate, certificate_of, overlap_of, verdict_of
from heteromig.runner.replaying import Step, fresh_run, replay
from heteromig.runner.rundir import CERTIFICATE, PLAN, RUN_JSON, TELEMETRY, FileHash, hash_files
from heteromig.runner.survivors import Life

_WORKERS = "workers/"
_SEALED = frozenset({JOURNAL, RUN_JSON, PLAN, TELEMETRY})
"""These, and all below `workers/`, are the run's own: none comes into being once the certificate is written."""


class _Stamp(Struct, frozen=True):
    """What is read of a certificate before the rest of it, which another version may have changed."""

    schema_version: int
    run_id: str


class _ToldWorker(Struct, frozen=True):
    """What of a worker in `run.json` can be computed again."""

    index: int
    metrics: dict[str, float]


class _Told(Struct, frozen=True):
    """What of `run.json` can be computed again; None where it does not say, or somebody took it out."""

    simulated: bool | None = None
    isolation: str | None = None
    lenient: bool | None = None
    workers: tuple[_ToldWorker, ...] | None = None
    overlap: OverlapRecord | None = None
    verdict: VerdictRecord | None = None


class Verification(Struct, frozen=True):
    """What `verify` found, all of it recomputed; `notes` are remarks that change nothing."""

    run_id: str
    simulated: bool
    isolation: Isolation
    verdict: Verdict
    certificate: CertificateSummary | None
    device_guards: tuple[DeviceFinding, ...]
    notes: tuple[str, ...]


class Retold(NamedTuple):
    """A run read back: its journal, the core after it, every step on the way, and what was verified.

    `life` is what is known of its controller, and `unfinished` the reason that there is no verdict; both None where the
    run came to its end.
    """

    journal: JournalText
    run: Run
    steps: tuple[Step, ...]
    found: Verification
    life: Life | None
    unfinished: Reason | None


def verify_run(run_dir: Path) -> Verification:
    """Recompute everything.

    Raises:
        UsageError: `run_dir` is no run directory.
        EvidenceError: its journal cannot be used at all.
    """
    return retell(run_dir).found


def retell(run_dir: Path) -> Retold:
    """Recompute everything, for whoever wants to know more than the verdict; raises what `verify_run` does."""
    if not os.path.lexists(run_dir / JOURNAL):
        if not (run_dir / RUN_JSON).exists():
            raise UsageError(f"{run_dir} is not a run directory: it has neither {JOURNAL} nor {RUN_JSON}.")
        raise EvidenceError(f"{run_dir} has lost its journal {JOURNAL}, so nothing of this run can be checked.")
    journal = read_journal(run_dir)
    run, steps = _replay(run_dir, journal)
    found, notes = _altered(run_dir, journal, run)
    reasons = [*run.verdict.reasons, *found]
    life = None if run.phase is Phase.FINISHED else life_of_run(run_dir, journal)
    unfinished = None if life is None else Reason(ExitCode.INCONCLUSIVE, _why_unfinished(journal, run.phase, life))
    if unfinished is not None:
        reasons.append(unfinished)
    clock = run.view.certificate.clock if run.view.certificate is not None else None
    if clock is not None and clock.remark:
        notes = (clock.remark, *notes)
    good = run.verdict.status if not run.verdict.reasons else "valid"
    verification = Verification(
        run_id=journal.header.run_id,
        simulated=journal.header.spec.simulated,
        isolation=journal.header.spec.isolation,
        verdict=decide(tuple(reasons), lenient=journal.header.spec.lenient, good=good),
        certificate=run.view.certificate,
        device_guards=device_findings(run.view),
        notes=notes,
    )
    return Retold(journal, run, steps, verification, life, unfinished)


def _replay(run_dir: Path, journal: JournalText) -> tuple[Run, tuple[Step, ...]]:
    """The core again over the same events, but with a certificate of our own."""
    spec = journal.header.spec
    run = fresh_run(run_dir, journal)
    name = spec.harness
    if name not in HARNESSES:
        raise EvidenceError(
            f"The run in {run_dir} used the harness {name!r}, which this heteromig does not have (it has "
            f"{', '.join(HARNESSES)}): verify it where it was run."
        )
    try:
        harness = harness_of(spec)
    except UsageError as error:
        raise EvidenceError(f"The header of the journal {run_dir / JOURNAL} cannot be used: {error}") from None

    computed: list[CertificateSummary] = []

    def substitute(_run: Run, event: ev.AnyEvent) -> ev.AnyEvent:
        if not isinstance(event, ev.CertificateComputed):
            return event
        return ev.CertificateComputed(at_ns=event.at_ns, summary=computed[-1])

    steps: list[Step] = []
    for step in replay(run_dir, journal, run, substitute=substitute):
        steps.append(step)
        if ef.ComputeCertificate() in step.effects:
            # By what was known when the run computed its own: what was heard while it did so is no part of it.
            summary = certify_run(run_dir, journal.header, run.view, harness)
            computed.append(summary)
    return run, tuple(steps)


def _why_unfinished(journal: JournalText, phase: Phase, life: Life) -> str:
    """Why there is no verdict: the run goes on, or it never came to its end."""
    controller = journal.controller
    if controller is None:
        return f"The journal ends in {phase.value}, before it says who ran the run: its controller died at once."
    pid = controller.controller_pid
    if life is Life.GOES_ON:
        return (
            f"The run is still going on: it is in {phase.value}, and its controller is pid {pid}. Verify it again once "
            "it has ended."
        )
    why = "it died" if life is Life.DEAD else "it died, or the run goes on on another machine"
    return f"The journal ends in {phase.value}, and its controller (pid {pid}) does not run here any more: {why}."


def _altered(run_dir: Path, journal: JournalText, run: Run) -> tuple[tuple[Reason, ...], tuple[str, ...]]:
    """Reasons for files that are not as the run left them, or that say what it did not do, and remarks."""
    told = [Reason(ExitCode.INCONCLUSIVE, sentence) for sentence in _untrue_record(run_dir / RUN_JSON, journal, run)]
    try:
        certificate = _read_certificate(run_dir / CERTIFICATE, journal.header.run_id)
        then = {file.path: file for file in certificate.files}
        now = {file.path: file for file in hash_files(run_dir)}
    except FileNotFoundError:
        return tuple(told), (
            f"There is no {CERTIFICATE}, so the files could not be compared with their recorded hashes.",
        )
    except EvidenceError as error:
        return (Reason(ExitCode.INCONCLUSIVE, str(error)), *told), ()
    reasons = [
        Reason(ExitCode.INCONCLUSIVE, sentence)
        for sentence in (*_changed(run_dir, then, now), *_unlisted(run_dir, then, now))
    ]
    untrue = _differing(certificate, certificate_of(journal.header, run, certificate.files))
    if untrue:
        reasons.append(Reason(ExitCode.INCONCLUSIVE, _contradicts(run_dir / CERTIFICATE, untrue)))
    notes = tuple(
        f"{run_dir / name} was added after the run." for name in now if name not in then and not _is_ours(name)
    )
    return (*reasons, *told), notes


def _differing(told: Certificate, computed: Certificate) -> list[str]:
    """The parts of a certificate that say something else than the one that was computed now."""
    if told.summary is not None and computed.summary is not None:
        parts = [f"summary.{name}" for name in _unequal(told.summary, computed.summary)]
    else:
        parts = [] if told.summary == computed.summary else ["summary"]
    return [*(name for name in _unequal(told, computed) if name != "summary"), *parts]


def _unequal(told: Struct, computed: Struct) -> list[str]:
    names = told.__struct_fields__
    return [name for name in names if getattr(told, name) != getattr(computed, name)]


def _contradicts(path: Path, parts: list[str]) -> str:
    return (
        f"{path} contradicts the logs and the journal ({', '.join(parts)}): it was altered, or they were, or another "
        "version of heteromig wrote it."
    )


def _untrue_record(path: Path, journal: JournalText, run: Run) -> Iterator[str]:
    """What `run.json` says that is not so; nothing where it is not there, which is told where it should be."""
    try:
        raw = read_regular(path, "The record")
        stamp = decode(raw, _Stamp)
        if stamp.schema_version != SCHEMA_VERSION:
            yield _other_version(f"The record {path}", stamp.schema_version, SCHEMA_VERSION)
            return
        told = decode(raw, _Told)
    except FileNotFoundError:
        return
    except EvidenceError as error:
        yield str(error)
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        yield f"The record {path} is not readable ({error}): it was altered."
        return
    except MemoryError:
        yield f"The record {path} does not fit into memory: it was altered."
        return
    if stamp.run_id != journal.header.run_id:
        yield _of_another_run(f"The record {path}", stamp.run_id, journal.header.run_id)
        return
    differing = _unequal(told, _computed_record(journal, run, told))
    untrue = [name for name in differing if getattr(told, name) is not None and name not in _early(run)]
    if untrue:
        yield _contradicts(path, untrue)


def _computed_record(journal: JournalText, run: Run, told: _Told) -> _Told:
    spec = journal.header.spec
    certificate, main = run.view.certificate, run.view.main
    figures = certificate.main_result.metrics if certificate is not None else {}
    return _Told(
        simulated=spec.simulated,
        isolation=spec.isolation.value,
        lenient=spec.lenient,
        workers=tuple(
            _ToldWorker(one.index, figures if main is not None and one.index == main.index else {})
            for one in told.workers or ()
        ),
        overlap=overlap_of(run),
        verdict=verdict_of(run),
    )


def _early(run: Run) -> frozenset[str]:
    """What `run.json` may tell before the journal does: it is written on its own while the run is being judged."""
    judging = run.phase is Phase.VALIDATING
    return frozenset({"workers", "overlap", "verdict"} if judging else ())


def _of_another_run(what: str, run_id: str, journal_run_id: str) -> str:
    return f"{what} is of the run {run_id!r}, and the journal beside it of {journal_run_id!r}."


def _other_version(what: str, version: int, ours: int) -> str:
    return f"{what} was written by another version of heteromig: its schema is {version}, and this one reads {ours}."


def _read_certificate(path: Path, run_id: str) -> Certificate:
    """The certificate, if it is one of this run that this version can read.

    Raises:
        FileNotFoundError: there is none.
        EvidenceError: it cannot be read, or is of another version or run.
    """
    try:
        raw = read_regular(path, "The certificate")
        stamp = decode(raw, _Stamp)
        if stamp.schema_version != CERTIFICATE_VERSION:
            raise EvidenceError(_other_version(f"The certificate {path}", stamp.schema_version, CERTIFICATE_VERSION))
        if stamp.run_id != run_id:
            raise EvidenceError(_of_another_run(f"The certificate {path}", stamp.run_id, run_id))
        return decode(raw, Certificate)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvidenceError(f"The certificate {path} is not readable ({error}): it was altered.") from None
    except MemoryError:
        raise EvidenceError(f"The certificate {path} does not fit into memory: it was altered.") from None


def _changed(run_dir: Path, then: dict[str, FileHash], now: dict[str, FileHash]) -> list[str]:
    return [
        f"{run_dir / name} is missing, though the certificate lists it."
        if name not in now
        else f"{run_dir / name} was altered after the run: its hash differs."
        for name, file in then.items()
        if now.get(name) != file
    ]


def _unlisted(run_dir: Path, then: dict[str, FileHash], now: dict[str, FileHash]) -> list[str]:
    return [
        f"{run_dir / name} was struck from the certificate, or added after the run."
        for name in now
        if name not in then and _is_ours(name)
    ]


def _is_ours(name: str) -> bool:
    return name in _SEALED or name.startswith(_WORKERS)
