"""How a run is shown, and how results are printed: what the command line calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from heteromig.core.degradation import Comparison
from heteromig.core.devices import DeviceSample, Inventory
from heteromig.core.record import RunRecord
from heteromig.views.campaign_bar import CampaignProgress
from heteromig.views.comparison_view import comparison
from heteromig.views.doctor_view import Examination, examination
from heteromig.views.live import LiveTable
from heteromig.views.outlet import Outlet
from heteromig.views.output import show, width_of
from heteromig.views.plain import PlainLines
from heteromig.views.reporter import Reporter, Unfailing
from heteromig.views.results_view import Compared, results_table
from heteromig.views.silent import Silent
from heteromig.views.slices_view import slices_tree
from heteromig.views.summary import report_made, summary
from heteromig.views.verification import Verified, verification

_DUMB_TERMINALS = frozenset({"dumb", "unknown"})
_NO = frozenset({"", "0", "false", "no"})


def choose_reporter(
    *,
    live: bool | None,
    quiet: bool,
    campaign: CampaignProgress | None = None,
    environ: Mapping[str, str] | None = None,
    stderr_isatty: bool | None = None,
) -> Reporter:
    """The reporter for standard error: live where somebody is looking at a capable terminal, else plain lines.

    `live` is None where the user said neither `--live` nor `--no-live`. `campaign` is how far that is of which the run
    is one of many. `environ` and `stderr_isatty` are those of
    this process unless given.
    """
    if quiet:
        return Silent()
    if stderr_isatty is None:
        stderr_isatty = is_terminal()
    outlet = Outlet(sys.stderr)
    if wants_live(live=live, environ=os.environ if environ is None else environ, stderr_isatty=stderr_isatty):
        return Unfailing(LiveTable(outlet, campaign), outlet)
    return Unfailing(PlainLines(outlet), outlet)


def wants_live(*, live: bool | None, environ: Mapping[str, str], stderr_isatty: bool) -> bool:
    """Whether the live table is wanted and possible.

    CI, NO_COLOR and a dumb terminal speak for plain lines. An explicit `--live` overrules the first two, but cannot
    move the cursor of a file, of a pipe or of a dumb terminal.
    """
    if not stderr_isatty or environ.get("TERM", "").lower() in _DUMB_TERMINALS:
        return False
    if live is not None:
        return live
    return environ.get("CI", "").lower() in _NO and not environ.get("NO_COLOR", "")


def is_terminal() -> bool:
    """Whether standard error is a terminal; it may be closed."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()  # None where it was closed before Python started
    except ValueError:
        return False


def print_summary(record: RunRecord, run_directory: str) -> None:
    """Print what a person reads first."""
    show(summary(record, run_directory, width_of(sys.stdout)), sys.stdout)


def print_report_made(path: str) -> None:
    """Print where the page of the run is, as the summary's last line."""
    show(report_made(path, width_of(sys.stdout)), sys.stdout)


def print_slices(inventory: Inventory, sample: DeviceSample | None) -> None:
    """Print the GPUs and their slices."""
    show(slices_tree(inventory, sample), sys.stdout)


def print_verification(found: Verified, run_directory: str) -> None:
    """Print what `verify` found."""
    show(verification(found, run_directory, width_of(sys.stdout)), sys.stdout)


def print_results(comparisons: Sequence[Compared]) -> None:
    """Print what `import-results` found."""
    show(results_table(comparisons), sys.stdout)


def print_comparison(found: Comparison) -> None:
    """Print what `compare` found."""
    show(comparison(found, width_of(sys.stdout)), sys.stdout)


def print_examination(report: Examination) -> None:
    """Print what `doctor` found."""
    show(examination(report, width_of(sys.stdout)), sys.stdout)
