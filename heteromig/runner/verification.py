"""`verify`: the verdict again, from the files alone.

The journal's events go through the core once more; the certificate is computed from the logs, not read. What the run
wrote of its own verdict, overlap and certificate is not believed; the recorded hashes only say which file to name.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core import events as ev
from heteromig.core.device_guards import DeviceFinding, device_findings
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.machine import Run
from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import Phase
from heteromig.core.record import SCHEMA_VERSION
from heteromig.core.spec import Isolation
from heteromig.core.verdict import ExitCode, Reason, Verdict, decide
from heteromig.harnesses import HARNESSES, harness_of
from heteromig.logs.files import read_regular
from heteromig.runner.evidence import certify_run
from heteromig.runner.journal import JOURNAL, JournalText, read_journal
from heteromig.runner.recording import Certificate
from heteromig.runner.replaying import replay
from heteromig.runner.rundir import CERTIFICATE, PLAN, RUN_JSON, TELEMETRY, FileHash, hash_files

_WORKERS = "workers/"
_SEALED = frozenset({JOURNAL, RUN_JSON, PLAN, TELEMETRY})
"""These, and all below `workers/`, are the run's own: none comes into being once the certificate is written."""


class _Stamp(Struct, frozen=True):
    """What is read of a certificate before the rest of it, which another version may have changed."""

    schema_version: int
    run_id: str


class Verification(Struct, frozen=True):
    """What `verify` found, all of it recomputed; `notes` are remarks that change nothing."""

    run_id: str
    simulated: bool
    isolation: Isolation
    verdict: Verdict
    certificate: CertificateSummary | None
    device_guards: tuple[DeviceFinding, ...]
    notes: tuple[str, ...]


def verify_run(run_dir: Path) -> Verification:
    """Recompute everything.

    Raises:
        UsageError: `run_dir` is no run directory.
        EvidenceError: its journal cannot be used at all.
    """
    if not os.path.lexists(run_dir / JOURNAL):
        if not (run_dir / RUN_JSON).exists():
            raise UsageError(f"{run_dir} is not a run directory: it has neither {JOURNAL} nor {RUN_JSON}.")
        raise EvidenceError(f"{run_dir} has lost its journal {JOURNAL}, so nothing of this run can be checked.")
    journal = read_journal(run_dir)
    run = _replay(run_dir, journal)
    found, notes = _altered(run_dir, journal.header.run_id)
    reasons = [*run.verdict.reasons, *found]
    if run.phase is not Phase.FINISHED:
        reasons.append(
            Reason(
                ExitCode.INCONCLUSIVE,
                f"The journal ends in {run.phase.value}: the run is still going on, or its controller died.",
            )
        )
    good = run.verdict.status if not run.verdict.reasons else "valid"
    return Verification(
        run_id=journal.header.run_id,
        simulated=journal.header.spec.simulated,
        isolation=journal.header.spec.isolation,
        verdict=decide(tuple(reasons), lenient=journal.header.spec.lenient, good=good),
        certificate=run.view.certificate,
        device_guards=device_findings(run.view),
        notes=notes,
    )


def _replay(run_dir: Path, journal: JournalText) -> Run:
    """The core again over the same events, but with a certificate of our own."""
    spec = journal.header.spec
    catalog = {info.name: info for info in spec.catalog}
    main = catalog.get(spec.main.benchmark)
    if main is None or spec.main.scenario not in main.scenarios or not catalog.keys() >= {*spec.background.candidates}:
        raise EvidenceError(f"The header of the journal {run_dir / JOURNAL} contradicts itself: it was altered.")
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

    def substitute(run: Run, event: ev.AnyEvent) -> ev.AnyEvent:
        if not isinstance(event, ev.CertificateComputed):
            return event
        return ev.CertificateComputed(
            at_ns=event.at_ns, summary=certify_run(run_dir, journal.header, run.view, harness)
        )

    run = Run(spec)
    for _ in replay(run_dir, journal, run, substitute=substitute):
        pass
    return run


def _altered(run_dir: Path, run_id: str) -> tuple[tuple[Reason, ...], tuple[str, ...]]:
    """Reasons for files that are not as they were when the run was sealed, and remarks."""
    try:
        then = {file.path: file for file in _read_certificate(run_dir / CERTIFICATE, run_id).files}
        now = {file.path: file for file in hash_files(run_dir)}
    except FileNotFoundError:
        return (), (f"There is no {CERTIFICATE}, so the files could not be compared with their recorded hashes.",)
    except EvidenceError as error:
        return (Reason(ExitCode.INCONCLUSIVE, str(error)),), ()
    reasons = [
        Reason(ExitCode.INCONCLUSIVE, sentence)
        for sentence in (*_changed(run_dir, then, now), *_unlisted(run_dir, then, now))
    ]
    notes = tuple(
        f"{run_dir / name} was added after the run." for name in now if name not in then and not _is_ours(name)
    )
    return tuple(reasons), notes


def _read_certificate(path: Path, run_id: str) -> Certificate:
    """The certificate, if it is one of this run that this version can read.

    Raises:
        FileNotFoundError: there is none.
        EvidenceError: it cannot be read, or is of another version or run.
    """
    try:
        raw = read_regular(path, "The certificate")
        stamp = msgspec.json.decode(raw, type=_Stamp)
        if stamp.schema_version != SCHEMA_VERSION:
            raise EvidenceError(
                f"The certificate {path} was written by another version of heteromig: its schema is "
                f"{stamp.schema_version}, and this one reads {SCHEMA_VERSION}."
            )
        if stamp.run_id != run_id:
            raise EvidenceError(
                f"The certificate {path} is of the run {stamp.run_id!r}, and the journal beside it of {run_id!r}."
            )
        return msgspec.json.decode(raw, type=Certificate)
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
