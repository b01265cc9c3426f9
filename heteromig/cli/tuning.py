"""`tune`: many runs that look for the highest valid rate, alone and beside backgrounds."""

from __future__ import annotations

import functools
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from heteromig.campaign.probes import Side, TuneSettings
from heteromig.campaign.tuning import next_step
from heteromig.campaigns.asking import tune_settings
from heteromig.campaigns.directory import TUNE, Campaign, Ended, ask, begin, held, require_campaign, resume
from heteromig.campaigns.probing import spec_of
from heteromig.campaigns.tuning import tune
from heteromig.campaigns.wording import answer_markdown, answer_text, plan_text
from heteromig.cli.executing import Showing, execute_shown, shows_live
from heteromig.cli.informing import tell
from heteromig.cli.planning import planned
from heteromig.cli.printing import say
from heteromig.cli.reporting import make_own_report
from heteromig.core.spec import RunSpec
from heteromig.core.verdict import INTERRUPTED, ExitCode
from heteromig.harnesses import harness_of
from heteromig.runner.config import TuneConfig
from heteromig.runner.crew import Crew
from heteromig.runner.rundir import create_series_dir
from heteromig.runner.session import Outcome
from heteromig.runner.trust import require_unshared
from heteromig.views.campaign_bar import CampaignProgress
from heteromig.views.console import print_report_made
from heteromig.views.output import width_of


class Tuning(msgspec.Struct, frozen=True):
    """What `tune` was asked: main alone, and beside its backgrounds, and the rest of its options."""

    alone: RunSpec
    beside: RunSpec
    config: TuneConfig
    resume: Path | None
    markdown: bool


class Shown(msgspec.Struct, frozen=True):
    """How it is shown while it goes on; and rehearsed faults of devices, if any."""

    showing: Showing
    sampler_faults: Path | None


def execute_tuning(asked: Tuning, showing: Showing, sampler_faults: Path | None) -> int:
    """Tune, and print the answer; returns the exit code.

    Raises:
        UsageError: the run cannot be tuned, no directory can be made, or that of --resume was asked something else.
        PreflightError: the harness is not installed.
        EvidenceError: the directory of --resume cannot be read.
    """
    try:
        specs, whole = _specs(asked)
        settings = tune_settings(whole, asked.config)
        first = _first(settings, specs, settings.sides[-1])  # which has the backgrounds, where there are any
        harness_of(first).preflight(first)
        what = ask(settings, whole)
        if asked.resume is None:
            require_unshared(whole)
            campaign_dir = create_series_dir(whole, time.time_ns(), "tune")
        else:
            campaign_dir = require_campaign(asked.resume.resolve(), TUNE)  # it may be the link `latest`
        with held(campaign_dir):
            campaign = begin(campaign_dir, what) if asked.resume is None else resume(campaign_dir, what)
            return _go_on(campaign_dir, campaign, specs, asked, Shown(showing, sampler_faults))
    except KeyboardInterrupt:  # before the first run, or after the last one: between them the loop sees to it
        tell("heteromig: Tuning was interrupted while nothing ran.")
        return INTERRUPTED


def _go_on(campaign_dir: Path, campaign: Campaign, specs: Mapping[Side, RunSpec], asked: Tuning, how: Shown) -> int:
    showing, settings, main = how.showing, campaign.asked.tune, campaign.asked.run.main
    shown = msgspec.structs.replace(showing, quiet=showing.quiet or not shows_live(showing))

    def execute(spec: RunSpec, crew: Crew, progress: CampaignProgress) -> Outcome:
        return execute_shown(spec, shown, how.sampler_faults, campaign_dir, crew, campaign=progress)

    inform = functools.partial(tell, quiet=showing.quiet)
    if not campaign.entries:
        inform(plan_text(settings, f"{main.benchmark} {main.scenario}") + "\n")
    campaign = tune(campaign_dir, campaign, specs, execute, inform)
    _conclude(campaign_dir, campaign, json=showing.json, markdown=asked.markdown)
    if showing.report:
        page = make_own_report(campaign_dir, quiet=showing.quiet)
        if page is not None and not showing.json and not asked.markdown:
            print_report_made(str(page))
    return ExitCode.INTERNAL if campaign.exit_code is None else campaign.exit_code


def print_tuning_plan(asked: Tuning, *, as_json: bool) -> None:
    """What would be done, and the commands of the first run of each side.

    Raises:
        UsageError: the run cannot be tuned.
        PreflightError: there are no slices, or the harness is not installed.
    """
    specs, whole = _specs(asked)
    settings = tune_settings(whole, asked.config)
    runs = {side.value: planned(_first(settings, specs, side)) for side in settings.sides}
    if as_json:
        found = {side: run.builtins() for side, run in runs.items()}
        say(msgspec.json.format(msgspec.json.encode({"schema_version": 1, "tune": settings, "runs": found}), indent=2))
        return
    head = plan_text(settings, f"{whole.main.benchmark} {whole.main.scenario}")
    say("\n\n".join([head, *(run.text() for run in runs.values())]))


def _first(settings: TuneSettings, specs: Mapping[Side, RunSpec], side: Side) -> RunSpec:
    """The first run, as it would be on that side."""
    step = next_step(settings, ())
    assert not isinstance(step, Ended)  # noqa: S101 - nothing is known before the first run
    return spec_of(msgspec.structs.replace(step, side=side), specs)


def _specs(asked: Tuning) -> tuple[Mapping[Side, RunSpec], RunSpec]:
    """The runs of each side, and the one that says most."""
    if asked.config.isolated:
        return {Side.ISOLATED: asked.alone}, asked.alone
    return {Side.ISOLATED: asked.alone, Side.BESIDE: asked.beside}, asked.beside


def _conclude(campaign_dir: Path, campaign: Campaign, *, json: bool, markdown: bool) -> None:
    if json:
        say(msgspec.json.format(msgspec.json.encode(campaign), indent=2))
    elif markdown:
        say(answer_markdown(campaign))
    else:
        say(answer_text(campaign, str(campaign_dir), width_of(sys.stdout)))
    if campaign.can_go_on and not json:
        tell(f"To go on, say the same again with --resume {shlex.quote(str(campaign_dir))}")
