"""The loop of a tuning: ask the planner, run what it says, write down what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from heteromig.campaign.probes import Confirm, Probe, RunProbe, Side, TuneSettings
from heteromig.campaign.probes import Outcome as ProbeOutcome
from heteromig.campaign.tuning import next_step
from heteromig.campaigns.directory import Campaign, Entry, Wanted, write_campaign
from heteromig.campaigns.probing import probe_of, spec_of, why_of
from heteromig.campaigns.wording import begun_line, ended_line, progress_of
from heteromig.comparing.measured import main_of
from heteromig.core.errors import EvidenceError, HeteromigError, PreflightError
from heteromig.core.record import RunRecord
from heteromig.core.spec import RunSpec
from heteromig.core.verdict import INTERRUPTED, SIGNAL_BASE, ExitCode
from heteromig.logs.detail import DetailFacts, read_detail
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.runner.crew import Crew
from heteromig.runner.journal import read_journal
from heteromig.runner.recording import read_record
from heteromig.runner.session import Outcome
from heteromig.runner.verification import verify_run
from heteromig.views.campaign_bar import CampaignProgress

Execute = Callable[[RunSpec, Crew, CampaignProgress], Outcome]
"""Does one run to its end, into the directory of the campaign, and may show how far that is."""
_Execute = Callable[[RunSpec, CampaignProgress], Outcome]
Tell = Callable[[str], None]
"""Takes a line for people."""


def tune(
    campaign_dir: Path, campaign: Campaign, specs: Mapping[Side, RunSpec], execute: Execute, tell: Tell
) -> Campaign:
    """Run until the planner has its answer, or a run says that there is no use in going on.

    Backgrounds go on between two runs, and so does what is prepared; in the end nothing is left of that. The index is
    written after each run, so that whatever ends this, nothing but the run in hand is lost.

    Raises:
        UsageError: no run directory can be made.
        PreflightError: the harness is not installed.
    """
    crew, timing = Crew(campaign_dir), next(iter(specs.values())).timing
    failure: HeteromigError | None = None
    try:
        campaign = _read_again(campaign_dir, campaign)
        try:
            for known in _runs(campaign, specs, lambda spec, progress: execute(spec, crew, progress), tell):
                campaign = known
                write_campaign(campaign_dir, campaign)
        except KeyboardInterrupt:  # between two runs; within one it is the run that is ended by it
            campaign = campaign.stopped(INTERRUPTED, "Tuning was interrupted between two runs.")
        except HeteromigError as error:
            failure, campaign = error, campaign.stopped(error.exit_code, str(error))
        write_campaign(campaign_dir, campaign)  # before what may take long
    except BaseException:
        left = crew.dismiss(timing)
        if left is not None:
            tell(left)
        raise
    left = crew.dismiss(timing)
    if left is not None:
        campaign = campaign.stopped(_worse(campaign.exit_code), f"{campaign.sentence} {left}")
        write_campaign(campaign_dir, campaign)
    if failure is not None:
        raise failure if left is None else PreflightError(campaign.sentence) from failure
    return campaign


def _runs(campaign: Campaign, specs: Mapping[Side, RunSpec], execute: _Execute, tell: Tell) -> Iterator[Campaign]:
    """The campaign after each run, and with what the planner said in the end."""
    settings = campaign.asked.tune
    while isinstance(step := next_step(settings, campaign.probes), RunProbe | Confirm):
        tell(begun_line(campaign, step))
        began_s = time.monotonic()
        outcome = execute(spec_of(step, specs), progress_of(campaign, step))
        verdict = outcome.record.verdict
        entry = Entry(
            step=step,
            run_dir=outcome.run_dir.name,
            exit_code=ExitCode.INTERNAL if verdict is None else verdict.exit_code,
            took_s=round(time.monotonic() - began_s, 3),
            probe=_probe(settings, step, outcome.run_dir, outcome.record),
        )
        campaign = campaign.after(entry)
        if entry.probe is None:
            said = f"Tuning ended with run {len(campaign.entries)} ({entry.run_dir}): {why_of(verdict)}."
            campaign = campaign.stopped(entry.exit_code, said)
        yield campaign
        tell(ended_line(campaign))
        if entry.probe is None:
            return
    yield campaign.answered(step)


def _worse(exit_code: int | None) -> int:
    """The exit code where the GPU may not be as it was, which weighs as much as in a run."""
    return exit_code if exit_code is not None and exit_code > SIGNAL_BASE else ExitCode.DEVICE


def _read_again(campaign_dir: Path, campaign: Campaign) -> Campaign:
    """The same where every run is verified; one that cannot be believed any more says nothing, and is done again."""
    settings = campaign.asked.tune
    entries = tuple(_verified(settings, campaign_dir / entry.run_dir, entry) for entry in campaign.entries)
    return replace(campaign, entries=entries)


def _verified(settings: TuneSettings, run_dir: Path, entry: Entry) -> Entry:
    """The run says what it says now, whatever the index says of it."""
    if entry.probe is None:
        return entry
    try:
        verdict = verify_run(run_dir).verdict
        probe = _probe(settings, entry.step, run_dir, read_record(run_dir))
    except HeteromigError as error:
        why = str(error).rstrip(".")
    else:
        if verdict.exit_code == entry.exit_code:
            return replace(entry, probe=probe)
        why = why_of(verdict)
    reason = f"what it measured cannot be used: {why}"
    return replace(entry, probe=replace(entry.probe, outcome=ProbeOutcome.SPOILED, reason=reason))


def _probe(settings: TuneSettings, step: Wanted, run_dir: Path, record: RunRecord) -> Probe | None:
    return probe_of(settings, step, record, read_journal(run_dir).events, _logged(run_dir, record))


def _logged(run_dir: Path, record: RunRecord) -> DetailFacts | None:
    """What the last of main's LoadGen logs says; None where there is none that can be read."""
    main = main_of(record)
    logs = [] if main is None else sorted((run_dir / main.directory).rglob(DETAIL_LOG))
    try:
        return read_detail(logs[-1]) if logs else None
    except EvidenceError:
        return None
