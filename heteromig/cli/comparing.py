"""`compare`: two runs side by side, or the runs of a series against its baselines."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from heteromig.cli.command import Command
from heteromig.cli.printing import say

if TYPE_CHECKING:
    from heteromig.core.degradation import Comparison


class Format(str, Enum):
    """How the answer is printed."""

    TABLE = "table"
    MARKDOWN = "md"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", cls=Command)(_compare)


def _compare(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="Directory of a run, such as a baseline, or of a series (run --repeat).")
    ],
    second: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it at run time, on 3.10 too
        typer.Argument(metavar="B", help="What is compared with A. Without it, A's runs with A's baselines."),
    ] = None,
    *,
    fail_if: Annotated[
        Optional[list[str]],  # noqa: UP045 - as above
        typer.Option(
            "--fail-if",
            metavar="LIMIT",
            help="qps:-2% or p99:+10%: how much a metric may change; may be given several times.",
        ),
    ] = None,
    allow_differences: Annotated[
        bool, typer.Option("--allow-differences", help="Compare although settings, layout, engine or driver differ.")
    ] = False,
    allow_invalid: Annotated[
        bool, typer.Option("--allow-invalid", help="Compare although a run is not valid, and proves nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    output: Annotated[Format, typer.Option("--format", help="How to print it, if not as JSON.")] = Format.TABLE,
) -> None:
    """Compare runs: what did neighbours cost, and how sure is that? Verifies each of them first.

    Exits with 0, with 8 when a limit of --fail-if is exceeded, with 9 when the runs cannot tell, and with 2 when they
    are not comparable.
    """
    from heteromig.campaigns.directory import refuse_campaign  # noqa: PLC0415 - keeps `--help` quick, as all here
    from heteromig.comparing.comparison import Allowed, compare  # noqa: PLC0415

    for directory in (first, second):
        if directory is not None:
            refuse_campaign(directory)
    allowed = Allowed(differences=allow_differences, invalid=allow_invalid)
    found = compare(first, second, gates=fail_if or (), allowed=allowed)
    show_comparison(found, json=json, markdown=output is Format.MARKDOWN)
    raise typer.Exit(found.exit_code)


def show_comparison(found: Comparison, *, json: bool, markdown: bool = False) -> None:
    """Print it on standard output."""
    if json:
        import msgspec  # noqa: PLC0415 - keeps `--help` quick

        say(msgspec.json.format(msgspec.json.encode(found), indent=2))
    elif markdown:
        from heteromig.views.comparison_view import comparison_markdown  # noqa: PLC0415

        say(comparison_markdown(found))
    else:
        from heteromig.views.console import print_comparison  # noqa: PLC0415

        print_comparison(found)
