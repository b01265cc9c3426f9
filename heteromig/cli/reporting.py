"""`report`: a run or a campaign as a page, as Markdown or as a trace; and the page that each makes in the end."""

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
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="E.g. runs/latest, or the directory of a tuning.")],
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
            help="Where to. [report.html in the run directory, tune.html in that of a tuning; standard output for md "
            "and trace]",
        ),
    ] = None,
) -> None:
    """Make a report of a run, or of a tuning, however far it got."""
    from heteromig.campaigns.directory import MATRIX, kind_of  # noqa: PLC0415 - as below
    from heteromig.campaigns.matrix import matrix_in  # noqa: PLC0415 - as below
    from heteromig.comparing.series import refuse_series  # noqa: PLC0415 - keeps `--help` quick, as all imports here
    from heteromig.core.errors import UsageError  # noqa: PLC0415
    from heteromig.report.making import (  # noqa: PLC0415
        Format,
        make_pages,
        refuse_evidence,
        report,
        write_matrix,
        write_where_told,
    )

    if kind not in _FORMATS:
        raise UsageError(f"--format {kind!r} is none: say {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}.")
    if output is not None:
        refuse_evidence(run_dir, output)
    refuse_series(run_dir)
    if output is not None:
        write_where_told(output, report(run_dir, Format(kind)))
    elif kind == Format.HTML.value:
        say(str(make_pages(run_dir)))
        if kind_of(run_dir) == MATRIX:
            write_matrix(run_dir, matrix_in(run_dir))
    else:
        say(report(run_dir, Format(kind)).rstrip("\n"))


def make_own_report(directory: Path, *, quiet: bool) -> Path | None:
    """The page of a run or a campaign that is over; of a campaign, also those of its runs that have none.

    Whatever goes wrong is said in a sentence, and changes nothing else.
    """
    try:
        from heteromig.report.making import how_to_make_it, make_pages, missing_packages  # noqa: PLC0415

        missing = missing_packages()
        if missing:
            if not quiet:
                _remark(how_to_make_it(missing, directory))
            return None
        return make_pages(directory)
    except HeteromigError as error:
        _remark(f"The report was not made: {error}")
    except KeyboardInterrupt:
        _remark(f"The report was not made, because you interrupted it: heteromig report {shlex.quote(str(directory))}")
    except Exception as error:  # noqa: BLE001 - the run is over and its verdict stands, whatever a report says
        what = f"{type(error).__name__}: {error}".rstrip(".")
        _remark(f"The report was not made, which is a bug in heteromig ({what}). The verdict stands.")
    return None


def _remark(sentence: str) -> None:
    sys.stderr.write(f"heteromig: {sentence}\n")
    sys.stderr.flush()
