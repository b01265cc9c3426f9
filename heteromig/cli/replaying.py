"""`replay`: a run that is over, or is not, shown again from its journal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Optional

import typer

from heteromig.cli.command import Command
from heteromig.core.errors import UsageError

_AT_FULL_SPEED = "max"
_WATCHED_SPEED = 10.0
"""A run of half an hour in three minutes: slow enough to see what happens, quick enough to wait for the end."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay", cls=Command)(_replay)


def _replay(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="E.g. runs/latest.")],
    *,
    speed: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it at run time, on 3.10 too
        typer.Option(
            "--speed", metavar="N", help="N times as fast as it was, or max. [10 for the live table, else max]"
        ),
    ] = None,
    live: Annotated[
        Optional[bool],  # noqa: UP045 - as above
        typer.Option("--live/--no-live", help="Live table on stderr. [on a terminal]"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr in the meantime.")] = False,
) -> None:
    """Show a run again from its journal, and check that it comes out the same; exit with its code."""
    from heteromig.campaigns.directory import refuse_campaign  # noqa: PLC0415 - keeps `--help` quick, as all here
    from heteromig.comparing.series import refuse_series  # noqa: PLC0415
    from heteromig.core.verdict import SIGNAL_BASE, ExitCode  # noqa: PLC0415
    from heteromig.runner.playback import Interrupted, play  # noqa: PLC0415
    from heteromig.views.console import choose_reporter, print_summary  # noqa: PLC0415

    refuse_series(run_dir)
    refuse_campaign(run_dir)
    reporter = choose_reporter(live=live, quiet=quiet)
    times = _times(speed) if speed is not None else _WATCHED_SPEED if reporter.wants_ticks else None
    try:
        played = play(run_dir, reporter, times)
    except Interrupted as interrupted:
        raise typer.Exit(SIGNAL_BASE + interrupted.signum) from None
    print_summary(played.record, str(played.run_dir))
    if played.ending is not None:
        typer.echo(f"heteromig: {played.ending}", err=True)
    verdict = played.record.verdict
    raise typer.Exit(ExitCode.INCONCLUSIVE if verdict is None or played.ending is not None else verdict.exit_code)


def _times(text: str) -> float | None:
    """What `--speed` says; None is as fast as it goes."""
    if text.strip().lower() == _AT_FULL_SPEED:
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise UsageError(f"--speed is {text!r}: give a number above 0, such as 1, 10 or 0.5, or max.")
    return speed
