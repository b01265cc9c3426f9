"""`report`: a run as a page, as Markdown or as a trace; and the page that every run makes of itself in the end."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from heteromig.cli.command import Command
from heteromig.cli.printing import say
from heteromig.core.errors import HeteromigError

_FORMATS = ("html", "md", "trace")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report", cls=Command)(_report)


def _report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="E.g. runs/latest.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="html: one page; md: short, for a pull request; trace: Chrome trace events, for Perfetto.",
        ),
    ] = "html",
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it at run time, on 3.10 too
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to. [report.html in the run directory; standard output for md and trace]",
        ),
    ] = None,
) -> None:
    """Make a report of a run, however far it got."""
    from heteromig.campaigns.directory import refuse_campaign  # noqa: PLC0415 - keeps `--help` quick, as all here
    from heteromig.comparing.series import refuse_series  # noqa: PLC0415
    from heteromig.core.errors import UsageError  # noqa: PLC0415
    from heteromig.report.making import Format, refuse_evidence, report, write, write_where_told  # noqa: PLC0415
    from heteromig.runner.rundir import REPORT  # noqa: PLC0415

    if kind not in _FORMATS:
        raise UsageError(f"--format {kind!r} is none: say {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}.")
    if output is not None:
        refuse_evidence(run_dir, output)
    refuse_series(run_dir)
    refuse_campaign(run_dir)
    text = report(run_dir, Format(kind))
    if output is not None:
        write_where_told(output, text)
    elif kind == Format.HTML.value:
        write(run_dir / REPORT, text)
        say(str(run_dir / REPORT))
    else:
        say(text.rstrip("\n"))


def make_own_report(run_dir: Path, *, quiet: bool) -> Path | None:
    """The page of a run that is over. Whatever goes wrong is said in a sentence, and changes nothing else."""
    try:
        from heteromig.report.making import Format, how_to_make_it, missing_packages, report, write  # noqa: PLC0415
        from heteromig.runner.rundir import REPORT  # noqa: PLC0415

        missing = missing_packages()
        if missing:
            if not quiet:
                _remark(how_to_make_it(missing, shlex.quote(str(run_dir))))
            return None
        write(run_dir / REPORT, report(run_dir, Format.HTML))
    except HeteromigError as error:
        _remark(f"The report was not made: {error}")
    except KeyboardInterrupt:
        _remark(f"The report was not made, because you interrupted it: heteromig report {shlex.quote(str(run_dir))}")
    except Exception as error:  # noqa: BLE001 - the run is over and its verdict stands, whatever a report says
        what = f"{type(error).__name__}: {error}".rstrip(".")
        _remark(f"The report was not made, which is a bug in heteromig ({what}). The verdict stands.")
    else:
        return run_dir / REPORT
    return None


def _remark(sentence: str) -> None:
    sys.stderr.write(f"heteromig: {sentence}\n")
    sys.stderr.flush()
