"""`import-results`: published results of systems with busy neighbours against the same systems alone."""

from __future__ import annotations

import csv
import io
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heteromig.cli.command import Command
from heteromig.cli.printing import say

if TYPE_CHECKING:
    from heteromig.results.comparison import Comparison
    from heteromig.results.importing import Imported


class Format(str, Enum):
    """How the answer is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import-results", cls=Command)(_import_results)


def _import_results(
    tree: Annotated[
        Path,
        typer.Argument(metavar="TREE", help="A round's results, a division, a submitter, or a results directory."),
    ],
    *,
    output: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.TABLE,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline", metavar="SYSTEM=BASELINE", help="Compare SYSTEM with BASELINE; may be given several times."
        ),
    ] = None,
) -> None:
    """Compare published results beside busy neighbours (*_HeteroMultiUse) with those of the same slice alone.

    Exits with 9 when nothing could be compared.
    """
    import msgspec  # noqa: PLC0415 - keeps `--help` quick, as all imports here

    from heteromig.core.verdict import ExitCode  # noqa: PLC0415
    from heteromig.results.importing import import_results, parse_baselines  # noqa: PLC0415

    found = import_results(tree, parse_baselines(tuple(baselines or ())))
    if output is Format.JSON:
        say(msgspec.json.format(msgspec.json.encode(found), indent=2))
    elif output is Format.CSV:
        say(_csv(found.comparisons))
    elif found.comparisons:
        from heteromig.views.console import print_results  # noqa: PLC0415

        print_results(found.comparisons)
    if output is not Format.JSON:
        _complain_of_skipped(found)
    if not found.compared:
        typer.echo(f"heteromig: Nothing could be compared under {found.tree}: {_why(found)}.", err=True)
        raise typer.Exit(ExitCode.INCONCLUSIVE)


def _csv(comparisons: tuple[Comparison, ...]) -> str:
    """One line a comparison under a heading; what is not known is empty."""
    from heteromig.results.comparison import Comparison  # noqa: PLC0415

    memory = io.StringIO()
    writer = csv.writer(memory, lineterminator="\n")
    names = Comparison.__struct_fields__
    writer.writerow(names)
    for comparison in comparisons:
        writer.writerow([_field(name, getattr(comparison, name)) for name in names])
    return memory.getvalue().removesuffix("\n")


def _field(name: str, value: str | float | bool | None) -> str:  # noqa: FBT001 - a value, not a switch
    if value is None:
        return ""
    if isinstance(value, bool):
        return "VALID" if value else "INVALID"
    if name == "ratio":
        return f"{value:.4f}"
    if name.endswith("_percent"):
        return f"{value:.2f}"
    return str(value)


def _complain_of_skipped(found: Imported) -> None:
    from heteromig.views.text import printable  # noqa: PLC0415

    for skipped in found.skipped:
        typer.echo(f"skipped {printable(skipped.path)}: {printable(skipped.reason)}", err=True)


def _why(found: Imported) -> str:
    if not found.systems:
        return "no system is named *_HeteroMultiUse (--baseline SYSTEM=BASELINE compares any two)"
    if not found.comparisons:
        return "none of its systems with busy neighbours has a usable result"
    return "no usable result of a plain system goes with those found (name it with --baseline SYSTEM=BASELINE)"
