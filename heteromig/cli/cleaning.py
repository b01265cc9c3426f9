"""`clean`: what runs that were killed left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from heteromig.cli.command import Command
from heteromig.cli.printing import say
from heteromig.core.verdict import ExitCode

if TYPE_CHECKING:
    from heteromig.runner.cleaning import Found

_SCHEMA_VERSION = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("clean", cls=Command)(_clean)


def _clean(
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", metavar="DIR", envvar="HETEROMIG_RUNS_DIR", help="Where run directories are.")
    ] = Path("runs"),
    slices: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it at run time, on 3.10 too
        typer.Option("--slices", metavar="SOURCE", help="Only what was done to these, as --slices said then. [all]"),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put right what runs left that were killed.

    Their processes are killed, GPUs that they cut are cut back, MPS daemons are ended, stale locks and half-written
    files are removed. Runs that go on are left alone. Exits with 0, also when there was nothing to do, and with 7 when
    something could not be put right.
    """
    import msgspec  # noqa: PLC0415 - keeps `--help` quick, as all imports here

    from heteromig.runner.cleaning import Outcome, clean_runs  # noqa: PLC0415
    from heteromig.views.text import sentence, shown_path  # noqa: PLC0415

    found = clean_runs(runs_dir, slices, dry_run=dry_run)
    if json:
        everything = {"schema_version": _SCHEMA_VERSION, "dry_run": dry_run, "found": found}
        say(msgspec.json.format(msgspec.json.encode(everything), indent=2))
    else:
        told = [one for one in found if one.outcome is not Outcome.FAILED]
        if told or not found:
            say("\n".join(map(_text, told)) or f"Nothing to clean in {shown_path(str(runs_dir))}.")
    failures = [one for one in found if one.outcome is Outcome.FAILED]
    for one in failures:
        typer.echo(f"heteromig: {shown_path(one.run_dir)}: {sentence(one.sentence)}", err=True)
    if failures:
        raise typer.Exit(ExitCode.DEVICE)


def _text(one: Found) -> str:
    from heteromig.views.text import printable, sentence, shown_path  # noqa: PLC0415

    anew = (slice_ for slice_ in one.replaced if slice_.before is not None and slice_.before != slice_.after)
    slices = (f"  {slice_.profile}@{slice_.start}  {slice_.after}  was {slice_.before}" for slice_ in anew)
    processes = (f"  {process.pid}  {printable(process.command)}" for process in one.processes)
    return "\n".join([f"{shown_path(one.run_dir)}: {sentence(one.sentence)}", *slices, *processes])
