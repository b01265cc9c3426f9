"""`slices`, `states`, `verify`, `schema` and `exit-codes`: commands that look and change nothing."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from heteromig.cli.command import Command
from heteromig.cli.printing import say


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("slices", cls=Command)(_slices)
    app.command("states", cls=Command)(_states)
    app.command("verify", cls=Command)(_verify)
    app.command("schema", cls=Command)(_schema)
    app.command("exit-codes", cls=Command)(_exit_codes)


def _slices(
    slices: Annotated[
        str,
        typer.Option(
            "--slices", envvar="HETEROMIG_SLICES", help="mig, gpu, mps:7x14, or sim:[<n>x]<board>[/<layout>][;...]."
        ),
    ] = "mig",
    gpu: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it at run time, on 3.10 too
        typer.Option("--gpu", envvar="HETEROMIG_GPU", metavar="GPU", help="The GPU to share under MPS, UUID or index."),
    ] = None,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", envvar="HETEROMIG_RUNS_DIR", help="Simulated UUIDs derive from it.")
    ] = Path("runs"),
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the GPUs, the slices on each, and who is using them."""
    import msgspec  # noqa: PLC0415 - keeps `--help` quick, as all imports here

    from heteromig.slices.access import enumerate_slices  # noqa: PLC0415

    inventory, sample = enumerate_slices(slices, runs_dir, gpu, activity=json)
    if json:
        everything = {"schema_version": 1, "inventory": inventory, "sample": sample}
        say(msgspec.json.format(msgspec.json.encode(everything), indent=2))
        return
    from heteromig.views.console import print_slices  # noqa: PLC0415

    print_slices(inventory, sample)


def _states() -> None:
    """Print the state machine as a Mermaid diagram, generated from its table."""
    from heteromig.core.machine import diagram  # noqa: PLC0415

    say(diagram())


def _verify(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="E.g. runs/latest.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recompute the verdict from the files of a run alone; exit with its code."""
    import msgspec  # noqa: PLC0415

    from heteromig.campaigns.directory import refuse_campaign  # noqa: PLC0415
    from heteromig.comparing.series import is_series  # noqa: PLC0415
    from heteromig.core.errors import UsageError  # noqa: PLC0415
    from heteromig.runner.verification import verify_run  # noqa: PLC0415

    if is_series(run_dir):
        raise UsageError(
            f"{run_dir} is a series: verify the run directories in it one by one, or verify and compare all of them "
            f"with heteromig compare {run_dir}."
        )
    refuse_campaign(run_dir)
    found = verify_run(run_dir)
    if json:
        say(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        from heteromig.views.console import print_verification  # noqa: PLC0415

        print_verification(found, str(run_dir))
    raise typer.Exit(found.verdict.exit_code)


class _Schema(Enum):
    """What there are schemas of; `runner.schemas` has the same names."""

    RUN = "run"
    EVENTS = "events"
    CERTIFICATE = "certificate"


def _schema(
    name: Annotated[
        _Schema, typer.Argument(metavar="NAME", help="run, events (a line of events.jsonl) or certificate.")
    ],
) -> None:
    """Print the JSON Schema of a file of a run."""
    from heteromig.runner.schemas import schema_file  # noqa: PLC0415

    say(schema_file(name.value).read_bytes().rstrip())


def _exit_codes() -> None:
    """Print what each exit code means."""
    from heteromig.core.verdict import EXIT_CODES  # noqa: PLC0415

    width = max(len(status) for _, status, _ in EXIT_CODES)
    say("\n".join(f"{code:>3}  {status:<{width}}  {meaning}" for code, status, meaning in EXIT_CODES))
