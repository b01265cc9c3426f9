"""`doctor`: what a run would find, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from heteromig.cli.command import Command
from heteromig.cli.printing import say

# Optional[...] rather than `| None`: Typer evaluates these at run time, on 3.10 too.
_Text = Optional[str]  # noqa: UP045


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", cls=Command)(_doctor)


def _doctor(  # noqa: PLR0917 - Typer makes options of them all
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", envvar="HETEROMIG_CONFIG", metavar="FILE", help="TOML file, as for run."),
    ] = None,
    slices: Annotated[
        _Text,
        typer.Option(
            "--slices",
            envvar="HETEROMIG_SLICES",
            metavar="SOURCE",
            help="mig, gpu, or sim:[<n>x]<board>[/<layout>][;...]. [mig]",
        ),
    ] = None,
    gpu: Annotated[
        _Text,
        typer.Option(
            "--gpu", envvar="HETEROMIG_GPU", metavar="GPU", help="UUID or index. [the one with the most slices]"
        ),
    ] = None,
    harness: Annotated[
        _Text,
        typer.Option(
            "--harness",
            envvar="HETEROMIG_HARNESS",
            metavar="NAME",
            help="make, loadgen or command. [make in NVIDIA's tree, else loadgen]",
        ),
    ] = None,
    harness_dir: Annotated[
        _Text,
        typer.Option(
            "--harness-dir",
            envvar="HETEROMIG_HARNESS_DIR",
            metavar="DIR",
            help="closed/NVIDIA. [the tree that you are in]",
        ),
    ] = None,
    runs_dir: Annotated[
        _Text,
        typer.Option("--runs-dir", envvar="HETEROMIG_RUNS_DIR", metavar="DIR", help="Where run directories go. [runs]"),
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at everything that a run needs: driver, slices, permissions, health of GPUs, harness, disk.

    Changes nothing. Exits with 7 when a run with the same options would be refused, else with 0.
    """
    import msgspec  # noqa: PLC0415 - keeps `--help` quick, as all imports here

    from heteromig.doctor.examination import examine  # noqa: PLC0415
    from heteromig.harnesses import harness_of  # noqa: PLC0415
    from heteromig.runner.config import Config, overlay, read_config, resolve  # noqa: PLC0415

    said = Config(slices=slices, gpu=gpu, harness=harness, harness_dir=harness_dir, runs_dir=runs_dir)
    spec = resolve(overlay(read_config(config) if config else Config(), said))
    report = examine(spec, harness_of(spec))
    if json:
        say(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        from heteromig.views.console import print_examination  # noqa: PLC0415

        print_examination(report)
    raise typer.Exit(report.exit_code)
