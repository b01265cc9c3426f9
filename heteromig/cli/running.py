"""`run`, `plan` and `build`: one set of options, three ways to use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from heteromig.cli.printing import say
from heteromig.core.phases import EvidenceLevel
from heteromig.core.spec import Drain, Goal, Mode

_HELP = {
    "run": "Run main on one slice beside backgrounds on all others, and prove it.",
    "plan": "Show what `run` would do: slices, assignment, every command. Launches nothing.",
    "build": "Build the engines that `run` would need, and stop.",
}


def register(app: typer.Typer) -> None:
    """Add the three commands; they share one function, because they share every option."""
    for name, text in _HELP.items():
        app.command(name, help=text)(_run)


def _option(*names: str, panel: str, help: str, **more: Any) -> Any:  # noqa: A002 - Typer's own name
    """An option with its environment variable, which is its long name in capitals."""
    stem = names[0].split("/")[0].removeprefix("--").upper().replace("-", "_")
    return typer.Option(*names, envvar=f"HETEROMIG_{stem}", rich_help_panel=panel, help=help, **more)


_SCENARIOS = "offline, server, singlestream or multistream. [offline]"

_MAIN, _BACKGROUND, _WHERE, _TIMING, _OUTPUT = "Main", "Backgrounds", "Where", "Timing", "Output"

# Optional[...] rather than `| None`: Typer evaluates these at run time, on 3.10 too.
_Text = Optional[str]  # noqa: UP045


def _run(  # noqa: PLR0917 - Typer makes options of them all
    context: typer.Context,
    config: Annotated[
        Optional[Path], typer.Option("--config", "-c", help="TOML file; flags override it.", envvar="HETEROMIG_CONFIG")  # noqa: UP045
    ] = None,
    main_benchmark: Annotated[
        _Text, _option("--main-benchmark", panel=_MAIN, help="Measured benchmark. [resnet50]")
    ] = None,
    main_scenario: Annotated[_Text, _option("--main-scenario", panel=_MAIN, help=_SCENARIOS)] = None,
    main_mode: Annotated[
        Optional[Mode], _option("--main-mode", panel=_MAIN, help="LoadGen's test mode. [performance]")  # noqa: UP045
    ] = None,
    main_accuracy: Annotated[
        _Text, _option("--main-accuracy", panel=_MAIN, help="99 or 99.9. [the benchmark's own]")
    ] = None,
    main_duration: Annotated[
        _Text, _option("--main-duration", panel=_MAIN, help="min_duration: ms, or 30s, 10m. [600000]")
    ] = None,
    main_target_qps: Annotated[
        Optional[float],  # noqa: UP045
        _option("--main-target-qps", panel=_MAIN, help="Expected or target rate. [calibrated at warm-up]"),
    ] = None,
    background_benchmarks: Annotated[
        _Text,
        _option("--background-benchmarks", panel=_BACKGROUND, help="all, datacenter, edge, none, or a,b,c. [all]"),
    ] = None,
    background_scenario: Annotated[_Text, _option("--background-scenario", panel=_BACKGROUND, help=_SCENARIOS)] = None,
    background_duration: Annotated[
        _Text,
        _option("--background-duration", panel=_BACKGROUND, help="min_duration, or automatic. [automatic]"),
    ] = None,
    background_timeout: Annotated[
        _Text, _option("--background-timeout", panel=_BACKGROUND, help="Cap of the automatic duration. [4h]")
    ] = None,
    slices: Annotated[
        _Text, _option("--slices", panel=_WHERE, help="mig, gpu, or sim:[<n>x]<board>[/<layout>][;...]. [mig]")
    ] = None,
    harness: Annotated[_Text, _option("--harness", panel=_WHERE, help="What workers run. [loadgen]")] = None,
    seed: Annotated[
        Optional[int], _option("--seed", panel=_WHERE, help="Decides which benchmark goes where. [0]")  # noqa: UP045
    ] = None,
    pin: Annotated[
        Optional[bool],  # noqa: UP045
        _option("--pin/--no-pin", panel=_WHERE, help="Give main a processor of its own (simulated slices). [pin]"),
    ] = None,
    runs_dir: Annotated[_Text, _option("--runs-dir", panel=_WHERE, help="Where run directories go. [runs]")] = None,
    engines_dir: Annotated[
        _Text, _option("--engines-dir", panel=_WHERE, help="Cache of engines. [<runs-dir>/.engines]")
    ] = None,
    rebuild: Annotated[
        Optional[bool], _option("--rebuild/--no-rebuild", panel=_WHERE, help="Build engines anew.")  # noqa: UP045
    ] = None,
    start_time_buffer: Annotated[
        _Text, _option("--start-time-buffer", panel=_TIMING, help="Wait once all backgrounds are timed. [10s]")
    ] = None,
    background_start_timeout: Annotated[
        _Text, _option("--background-start-timeout", panel=_TIMING, help="For all of them to be timed. [10m]")
    ] = None,
    build_timeout: Annotated[_Text, _option("--build-timeout", panel=_TIMING, help="For each engine. [2h]")] = None,
    main_timeout: Annotated[
        _Text, _option("--main-timeout", panel=_TIMING, help="For main in all. [3 x duration + 10m]")
    ] = None,
    main_exit_timeout: Annotated[
        _Text, _option("--main-exit-timeout", panel=_TIMING, help="From main's timed end to its exit. [60s]")
    ] = None,
    end_time_buffer_min: Annotated[
        _Text, _option("--end-time-buffer-min", panel=_TIMING, help="Least slack after main, drain wait. [30s]")
    ] = None,
    clean_stop: Annotated[
        _Text, _option("--clean-stop", panel=_TIMING, help="For a clean stop, before TERM. [10s]")
    ] = None,
    grace: Annotated[_Text, _option("--grace", panel=_TIMING, help="From TERM to KILL. [10s]")] = None,
    start_evidence: Annotated[
        Optional[EvidenceLevel],  # noqa: UP045
        _option("--start-evidence", panel=_TIMING, help="What counts as started. [timed]"),
    ] = None,
    drain: Annotated[
        Optional[Drain],  # noqa: UP045
        _option("--drain", panel=_TIMING, help="Backgrounds after main. [kill; wait for an explicit duration]"),
    ] = None,
    lenient: Annotated[
        Optional[bool],  # noqa: UP045
        _option(
            "--lenient/--no-lenient", panel=_TIMING, help="Go on without backgrounds that fail; the result says it."
        ),
    ] = None,
    sample_period: Annotated[
        _Text, _option("--sample-period", panel=_TIMING, help="Between device samples. [1s]")
    ] = None,
    sim_faults: Annotated[
        Optional[Path],  # noqa: UP045
        _option("--sim-faults", panel=_WHERE, help="File of rehearsed device faults (simulated slices only)."),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", rich_help_panel=_OUTPUT, help="Same as `plan`.")] = False,
    live: Annotated[
        Optional[bool],  # noqa: UP045
        _option("--live/--no-live", panel=_OUTPUT, help="Live table. [only on a terminal]"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=_OUTPUT, help="Only the result.")] = False,
    json: Annotated[
        bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print run.json on stdout and nothing else.")
    ] = False,
) -> None:
    from heteromig.core.errors import UsageError  # noqa: PLC0415 - keeps `--help` quick, as all imports here
    from heteromig.runner.config import (  # noqa: PLC0415
        BackgroundConfig,
        Config,
        MainConfig,
        TimingConfig,
        overlay,
        read_config,
        resolve,
    )

    said = Config(
        slices=slices,
        harness=harness,
        start_evidence=start_evidence,
        drain=drain,
        seed=seed,
        pin=pin,
        lenient=lenient,
        rebuild=rebuild,
        sample_period=sample_period,
        runs_dir=runs_dir,
        engines_dir=engines_dir,
        main=MainConfig(
            benchmark=main_benchmark,
            scenario=main_scenario,
            mode=main_mode,
            accuracy=main_accuracy,
            duration=main_duration,
            target_qps=main_target_qps,
        ),
        background=BackgroundConfig(
            benchmarks=background_benchmarks,
            scenario=background_scenario,
            duration=background_duration,
            timeout=background_timeout,
        ),
        timing=TimingConfig(
            start_time_buffer=start_time_buffer,
            background_start_timeout=background_start_timeout,
            build_timeout=build_timeout,
            main_timeout=main_timeout,
            main_exit_timeout=main_exit_timeout,
            end_time_buffer_min=end_time_buffer_min,
            clean_stop=clean_stop,
            grace=grace,
        ),
    )
    goal = Goal.BUILD if context.info_name == "build" else Goal.RUN
    spec = resolve(overlay(read_config(config) if config else Config(), said), goal=goal)
    if sim_faults is not None and not spec.simulated:
        raise UsageError("--sim-faults rehearses faults of simulated slices; leave it out, or use --slices sim:...")
    if dry_run or context.info_name == "plan":
        from heteromig.cli.planning import print_plan  # noqa: PLC0415

        print_plan(spec, as_json=json)
        return

    from heteromig.runner.session import execute  # noqa: PLC0415
    from heteromig.views.console import choose_reporter, print_summary  # noqa: PLC0415

    reporter = choose_reporter(live=False if json else live, quiet=quiet)
    outcome = execute(spec, reporter, sampler_faults=str(sim_faults.absolute()) if sim_faults else None)
    if json:
        say((outcome.run_dir / "run.json").read_bytes().rstrip())
    else:
        print_summary(outcome.record, str(outcome.run_dir))
    verdict = outcome.record.verdict
    raise typer.Exit(1 if verdict is None else verdict.exit_code)
