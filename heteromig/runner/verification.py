"""`verify`: the verdict again, from the files alone.

The journal's events go through the core once more; the certificate is computed from the logs, not read. What the run
wrote of its own verdict, overlap and certificate is not believed; the recorded hashes only say which file to name.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.machine import REPLIES, Run
from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import Phase
from heteromig.core.verdict import ExitCode, Reason, Verdict, decide
from heteromig.harnesses import HARNESSES
from heteromig.runner.evidence import certify_run
from heteromig.runner.journal import JOURNAL, Asked, JournalText, read_journal
from heteromig.runner.recording import Certificate
from heteromig.runner.rundir import CERTIFICATE, RUN_JSON, hash_files


class Verification(Struct, frozen=True):
    """What `verify` found. `certificate` is the recomputed one; `notes` are remarks that change nothing."""

    run_id: str
    simulated: bool
    verdict: Verdict
    certificate: CertificateSummary | None
    notes: tuple[str, ...]


def verify_run(run_dir: Path) -> Verification:
    """Recompute everything.

    Raises:
        UsageError: `run_dir` is no run directory.
        EvidenceError: its journal cannot be used at all.
    """
    if not (run_dir / JOURNAL).exists():
        if not (run_dir / RUN_JSON).exists():
            raise UsageError(f"{run_dir} is not a run directory: it has neither {JOURNAL} nor {RUN_JSON}.")
        raise EvidenceError(f"{run_dir} has lost its journal {JOURNAL}, so nothing of this run can be checked.")
    journal = read_journal(run_dir)
    run = _replay(run_dir, journal)
    found, notes = _altered(run_dir)
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
        verdict=decide(tuple(reasons), lenient=journal.header.spec.lenient, good=good),
        certificate=run.view.certificate,
        notes=notes,
    )


def _replay(run_dir: Path, journal: JournalText) -> Run:
    """The core again over the same events, but with a certificate of our own."""
    spec = journal.header.spec
    catalog = {info.name: info for info in spec.catalog}
    main = catalog.get(spec.main.benchmark)
    if main is None or spec.main.scenario not in main.scenarios or not catalog.keys() >= {*spec.background.candidates}:
        raise EvidenceError(f"The header of the journal {run_dir / JOURNAL} contradicts itself: it was altered.")
    run = Run(spec)
    name = spec.harness
    if name not in HARNESSES:
        raise EvidenceError(
            f"The run in {run_dir} used the harness {name!r}, which this heteromig does not have (it has "
            f"{', '.join(HARNESSES)}): verify it where it was run."
        )
    harness = HARNESSES[name]
    phases = [
        line.effect.destination
        for line in journal.lines
        if isinstance(line, Asked) and isinstance(line.effect, ef.RecordTransition)
    ]
    altered = EvidenceError(
        f"The journal {run_dir / JOURNAL} does not replay to the phases that it records: it was altered, or "
        "written by another version of heteromig."
    )
    for event in journal.events:
        fact: ev.AnyEvent = event
        if isinstance(event, REPLIES) and run.phase is not Phase.VALIDATING:
            raise altered
        if isinstance(event, ev.CertificateComputed):
            summary = certify_run(run_dir, journal.header, run.view, harness)
            fact = ev.CertificateComputed(at_ns=event.at_ns, summary=summary)
        run.handle(fact)
    if [step.destination for step in run.transitions] != phases:
        raise altered
    return run


def _altered(run_dir: Path) -> tuple[tuple[Reason, ...], tuple[str, ...]]:
    """Files that are not as they were when the run was sealed."""
    path = run_dir / CERTIFICATE
    try:
        certificate = msgspec.json.decode(path.read_bytes(), type=Certificate)
    except OSError:
        return (), (f"There is no {CERTIFICATE}, so the files could not be compared with their recorded hashes.",)
    except msgspec.DecodeError as error:
        return (Reason(ExitCode.INCONCLUSIVE, f"{path} is not readable: {error}."),), ()
    try:
        now = {file.path: file for file in hash_files(run_dir)}
    except EvidenceError as error:
        return (Reason(ExitCode.INCONCLUSIVE, str(error)),), ()
    then = {file.path: file for file in certificate.files}
    reasons = [
        Reason(ExitCode.INCONCLUSIVE, f"{run_dir / name} is missing, though the certificate lists it.")
        if name not in now
        else Reason(ExitCode.INCONCLUSIVE, f"{run_dir / name} was altered after the run: its hash differs.")
        for name, file in then.items()
        if now.get(name) != file
    ]
    notes = tuple(f"{run_dir / name} was added after the run." for name in now if name not in then)
    return tuple(reasons), notes
