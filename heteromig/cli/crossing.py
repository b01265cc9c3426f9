"""`matrix`: mains beside sets of backgrounds, cell by cell, and what each of them costs."""

from __future__ import annotations

import functools
import shlex
import sys
import time
from pathlib import Path

import msgspec
import typer

from heteromig.campaign.matrix import RunCell, cells, expected_s, order
from heteromig.campaigns.directory import MATRIX, held, require_campaign
from heteromig.campaigns.matrix import measure_matrix, now_utc
from heteromig.campaigns.matrix_asking import Asking, asking
from heteromig.campaigns.matrix_index import MatrixIndex, begin_matrix, resume_matrix, written_down
from heteromig.campaigns.matrix_wording import answer_csv, answer_markdown, answer_text, plan_text, progress_of
from heteromig.cli.command import Format
from heteromig.cli.executing import Showing, execute_shown, shows_live
from heteromig.cli.informing import tell
from heteromig.cli.printing import say
from heteromig.cli.reporting import make_own_report
from heteromig.comparing.interference import Interference
from heteromig.core.spec import RunSpec
from heteromig.core.verdict import INTERRUPTED, ExitCode
from heteromig.report.making import write_matrix
from heteromig.runner.config import Config
from heteromig.runner.rundir import create_campaign_dir
from heteromig.runner.session import Outcome
from heteromig.runner.trust import require_unshared
from heteromig.views.console import print_report_made
from heteromig.views.output import width_of


class Shown(msgspec.Struct, frozen=True):
    """How it is shown while it goes on, and how its answer is printed; and rehearsed faults of devices, if any."""

    showing: Showing
    output: Format
    sampler_faults: Path | None


def execute_matrix(
    config: Config, showing: Showing, sampler_faults: Path | None, *, resume: Path | None, output: Format
) -> int:
    """Measure it, write down what it came to, and print that; returns the exit code.

    Raises:
        UsageError: it cannot be measured, no directory can be made, or that of `resume` was asked something else.
        PreflightError: there are no slices, or too few, or the harness is not installed.
        EvidenceError: the directory of `resume` cannot be read.
    """
    try:
        asked = asking(config)
        what = written_down(asked)
        require_unshared(asked.first)
        if resume is None:
            campaign_dir = create_campaign_dir(asked.first, time.time_ns(), MATRIX)
        else:
            campaign_dir = require_campaign(resume.resolve(), MATRIX)  # it may be the link `latest`
        with held(campaign_dir):
            index = begin_matrix(campaign_dir, what, now_utc()) if resume is None else resume_matrix(campaign_dir, what)
            return _measure(campaign_dir, index, asked, Shown(showing, output, sampler_faults))
    except KeyboardInterrupt:  # before the first run, or after the last one: between them the loop sees to it
        typer.echo("heteromig: The matrix was interrupted while nothing ran.", err=True)
        return INTERRUPTED


def _measure(campaign_dir: Path, index: MatrixIndex, asked: Asking, how: Shown) -> int:
    showing = how.showing
    shown = msgspec.structs.replace(showing, report=False, quiet=showing.quiet or not shows_live(showing))

    def execute(spec: RunSpec, index: MatrixIndex, step: RunCell) -> Outcome:
        return execute_shown(spec, shown, how.sampler_faults, campaign_dir, campaign=progress_of(index, step))

    inform = functools.partial(tell, quiet=showing.quiet)
    if not index.entries:
        inform(plan_text(asked, width_of(sys.stderr)) + "\n")
    index, found = measure_matrix(campaign_dir, index, asked.specs, execute, inform)
    write_matrix(campaign_dir, found)
    _print(campaign_dir, found, json=showing.json, output=how.output)
    if showing.report:
        page = make_own_report(campaign_dir, quiet=showing.quiet)
        if page is not None and not showing.json and how.output is Format.TABLE:
            print_report_made(str(page))
    if found.can_go_on or index.sentence:
        tell(f"To go on, say the same again with --resume {shlex.quote(str(campaign_dir))}")
    return ExitCode.INTERNAL if index.exit_code is None else index.exit_code


def print_matrix_plan(config: Config, *, as_json: bool) -> None:
    """What would be done: every cell, the order of its runs, and how long all of it takes.

    Raises:
        UsageError: it cannot be measured.
        PreflightError: there are no slices, or too few, or the harness is not installed.
    """
    asked = asking(config)
    if not as_json:
        say(plan_text(asked, width_of(sys.stdout)))
        return
    say(msgspec.json.format(msgspec.json.encode(_as_json(asked)), indent=2))


def _as_json(asked: Asking) -> dict[str, object]:
    settings = asked.settings
    every, sides = cells(settings), order(settings.repetitions)
    return {
        "schema_version": 1,
        "settings": settings,
        "order": sides,
        "cells": every,
        "runs": len(every) * len(sides),
        "expected_s": expected_s(settings),
        "missing_engines": asked.missing_engines,
        "run": written_down(asked).run,
    }


def _print(campaign_dir: Path, found: Interference, *, json: bool, output: Format) -> None:
    if json:
        say(msgspec.json.format(msgspec.json.encode(found), indent=2))
    elif output is Format.MARKDOWN:
        say(answer_markdown(found))
    elif output is Format.CSV:
        say(answer_csv(found).rstrip("\n"))
    else:
        say(answer_text(found, str(campaign_dir), width_of(sys.stdout)))
