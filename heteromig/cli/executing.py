"""What `run`, `baseline` and `build` do: execute, show it in the meantime, and print how it came out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from msgspec import Struct

from heteromig.cli.printing import say
from heteromig.cli.reporting import make_own_report
from heteromig.core.record import RunRecord
from heteromig.core.spec import RunSpec
from heteromig.core.verdict import ExitCode
from heteromig.runner.crew import Crew
from heteromig.runner.session import Outcome, execute
from heteromig.views.campaign_bar import CampaignProgress
from heteromig.views.console import choose_reporter, is_terminal, print_report_made, print_summary, wants_live
from heteromig.views.outlet import Outlet
from heteromig.views.relay import Relay


class Showing(Struct, frozen=True):
    """What goes where: `live` is None where the user said neither; `json` and `events` take standard output.

    `report` says whether the run makes a page of itself in the end.
    """

    live: bool | None
    quiet: bool
    json: bool
    events: bool
    debug: bool
    report: bool


def shows_live(showing: Showing) -> bool:
    """Whether each run of a campaign is shown by the live table; where it is not, a line for each run is enough."""
    if showing.live is None and (showing.json or showing.debug):
        return False
    return wants_live(live=showing.live, environ=os.environ, stderr_isatty=is_terminal())


def execute_and_show(spec: RunSpec, showing: Showing, sampler_faults: Path | None) -> int:
    """Run it to the end and print how it came out; returns the exit code.

    Raises:
        UsageError: no run directory can be made.
        PreflightError: the harness is not installed.
    """
    outcome = execute_shown(spec, showing, sampler_faults)
    if showing.json:
        say((outcome.run_dir / "run.json").read_bytes().rstrip())
    elif not showing.events:
        print_summary(outcome.record, str(outcome.run_dir))
    if showing.report:
        page = make_own_report(outcome.run_dir, quiet=showing.quiet)
        if page is not None and not showing.json and not showing.events:
            print_report_made(str(page))
    return exit_code_of(outcome.record)


def exit_code_of(record: RunRecord) -> int:
    """That of a run that has ended."""
    return ExitCode.INTERNAL if record.verdict is None else record.verdict.exit_code


def execute_shown(
    spec: RunSpec,
    showing: Showing,
    sampler_faults: Path | None,
    series_dir: Path | None = None,
    crew: Crew | None = None,
    *,
    campaign: CampaignProgress | None = None,
) -> Outcome:
    """Run it to the end, and show it in the meantime.

    If there are several, `series_dir` is where its directory goes, `crew` has what goes on from one to the next, and
    `campaign` says how far all of it is.

    Raises:
        UsageError: no run directory can be made.
        PreflightError: the harness is not installed.
    """
    for_programs = showing.json or showing.events or showing.debug
    live = False if for_programs and showing.live is None else showing.live
    reporter = choose_reporter(live=live, quiet=showing.quiet, campaign=campaign)
    relays = {
        stream: Relay(stream.fileno())
        for stream, wanted in ((sys.stdout, showing.events), (sys.stderr, showing.debug))
        if wanted
    }
    try:
        return execute(
            spec,
            reporter,
            sampler_faults=str(sampler_faults) if sampler_faults else None,
            followers=tuple(relays.values()),
            series_dir=series_dir,
            crew=crew,
        )
    finally:
        for stream, relay in relays.items():
            _close(relay, "standard output" if stream is sys.stdout else "standard error")


def _close(relay: Relay, name: str) -> None:
    shortfall = relay.close()
    if shortfall is not None:
        outlet = Outlet(sys.stderr)  # which does not wait for whoever does not read that either
        outlet.write(
            f"heteromig: {shortfall.missing} of {shortfall.lines} lines of the journal did not reach {name}, because "
            f"{shortfall.why}. All of them are in {shortfall.path}.\n"
        )
        outlet.close()
