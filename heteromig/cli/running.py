"""`run`, `baseline`, `plan`, `build`, `tune` and `matrix`: one set of options, six ways to use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from heteromig.cli.command import CAMPAIGN, COMMANDS_OF, MATRIX, TUNING, Command, Format
from heteromig.core.errors import UsageError
from heteromig.core.phases import EvidenceLevel
from heteromig.core.spec import Action, Drain, Goal, Mode

_HELP = {
    "run": "Run main on one slice beside backgrounds on all others, and prove it.",
    "baseline": "Run main alone, everything else idle: what `run` is compared with.",
    "plan": "Show what `run` would do: slices, assignment, every command. Launches nothing.",
    "build": "Build the engines that `run` would need, and stop.",
    "tune": "Look for the highest rate at which main is VALID: alone, and then beside its backgrounds.",
    "matrix": "Measure what each set of backgrounds costs each main, and name the worst neighbour.",
}
_EPILOG = (
    "TIME is in milliseconds, or has a unit: 600000, 600s, 10m, 1h. Defaults are in brackets. All but the options of "
    "Output, --resume and --format can also be said by a variable, HETEROMIG_MAIN_BENCHMARK for --main-benchmark, or "
    "in the file of --config: options win over variables, and these over the file. Of Output, --report has a variable."
)


def register(app: typer.Typer) -> None:
    """Add the six commands; they share one function, because they share their options."""
    for name, text in _HELP.items():
        app.command(name, cls=Command, help=text, epilog=_EPILOG)(_run)


def _option(*names: str, panel: str, help: str, **more: Any) -> Any:  # noqa: A002 - Typer's own name
    """An option with its environment variable, which is its long name in capitals."""
    stem = names[0].split("/")[0].removeprefix("--").upper().replace("-", "_")
    return typer.Option(
        *names,
        envvar=f"HETEROMIG_{stem}",
        rich_help_panel=panel,
        help=help,
        case_sensitive=False,
        **more,
    )


_SCENARIOS = "offline, server, singlestream or multistream. [offline]"

_MAIN, _BACKGROUND, _TREE = "Main", "Backgrounds", "NVIDIA's tree (harness make)"
_WHERE, _TIMING, _OUTPUT = "Where it runs", "Timing", "Output"
_COMPARISON, _TUNING, _MATRIX, _CAMPAIGN = "Comparison", TUNING, MATRIX, CAMPAIGN
_REPEAT_MAX = 1000
_GOALS = {"baseline": Goal.BASELINE, "build": Goal.BUILD}

# Optional[...] rather than `| None`: Typer evaluates these at run time, on 3.10 too.
_Text = Optional[str]  # noqa: UP045
_Switch = Optional[bool]  # noqa: UP045


def _run(  # noqa: PLR0917 - Typer makes options of them all
    context: typer.Context,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="TOML file, such as plan.toml of any run.",
            envvar="HETEROMIG_CONFIG",
        ),
    ] = None,
    main_benchmark: Annotated[
        _Text, _option("--main-benchmark", metavar="NAME", panel=_MAIN, help="Measured benchmark. [resnet50]")
    ] = None,
    main_scenario: Annotated[_Text, _option("--main-scenario", metavar="NAME", panel=_MAIN, help=_SCENARIOS)] = None,
    main_benchmark_duration: Annotated[
        _Text,
        _option("--main-benchmark-duration", metavar="TIME", panel=_MAIN, help="LoadGen's min_duration. [10m]"),
    ] = None,
    main_mode: Annotated[
        Optional[Mode],  # noqa: UP045
        _option("--main-mode", metavar="MODE", panel=_MAIN, help="performance or accuracy. [performance]"),
    ] = None,
    main_accuracy: Annotated[
        _Text, _option("--main-accuracy", metavar="PERCENT", panel=_MAIN, help="99 or 99.9. [the benchmark's own]")
    ] = None,
    main_target_qps: Annotated[
        Optional[float],  # noqa: UP045
        _option(
            "--main-target-qps",
            metavar="RATE",
            panel=_MAIN,
            help="Expected or target samples/s. [the harness' own]",
        ),
    ] = None,
    main_slice: Annotated[
        _Text,
        _option("--main-slice", metavar="SLICE", panel=_MAIN, help="UUID, index or profile. [the first slice]"),
    ] = None,
    main_benchmark_cmd_prefix: Annotated[
        _Text,
        _option(
            "--main-benchmark-cmd-prefix",
            metavar="WORDS",
            panel=_MAIN,
            help="Put before main's command, e.g. nsys profile -o main.",
        ),
    ] = None,
    background_benchmarks: Annotated[
        _Text,
        _option(
            "--background-benchmarks",
            metavar="NAMES",
            panel=_BACKGROUND,
            help="all, datacenter, edge, none, or a list a,b,c. A set never holds main's model. [all]",
        ),
    ] = None,
    background_scenario: Annotated[
        _Text, _option("--background-scenario", metavar="NAME", panel=_BACKGROUND, help=_SCENARIOS)
    ] = None,
    background_benchmark_duration: Annotated[
        _Text,
        _option(
            "--background-benchmark-duration",
            metavar="TIME",
            panel=_BACKGROUND,
            help="LoadGen's min_duration, or automatic: enough to outlast main. [automatic]",
        ),
    ] = None,
    background_benchmark_timeout: Annotated[
        _Text,
        _option(
            "--background-benchmark-timeout",
            metavar="TIME",
            panel=_BACKGROUND,
            help="Cap of the automatic duration. [2h]",
        ),
    ] = None,
    drain: Annotated[
        Optional[Drain],  # noqa: UP045
        _option(
            "--drain",
            metavar="HOW",
            panel=_BACKGROUND,
            help="Once main has ended: kill, or wait for their end. [kill; wait with an explicit duration]",
        ),
    ] = None,
    lenient: Annotated[
        _Switch,
        _option(
            "--lenient/--no-lenient",
            panel=_BACKGROUND,
            help="Go on without those that fail; the result is then not called valid.",
        ),
    ] = None,
    main_action: Annotated[
        Optional[Action],  # noqa: UP045
        _option(
            "--main-action",
            metavar="TARGET",
            panel=_TREE,
            help="run_harness, run_audit_test01, run_audit_test04 or run_audit_test05. [run_harness]",
        ),
    ] = None,
    main_benchmark_runargs: Annotated[
        _Text,
        _option(
            "--main-benchmark-runargs",
            metavar="ARGS",
            panel=_TREE,
            help="Added to main's RUN_ARGS, split as a shell would.",
        ),
    ] = None,
    main_config_ver: Annotated[
        _Text,
        _option(
            "--main-config-ver",
            metavar="NAME",
            panel=_TREE,
            help="Configuration version. [hetero, or hetero_high_accuracy]",
        ),
    ] = None,
    background_config_ver: Annotated[
        _Text,
        _option(
            "--background-config-ver",
            metavar="NAME",
            panel=_TREE,
            help="The same of all backgrounds. [that of each benchmark]",
        ),
    ] = None,
    start_from_device: Annotated[
        _Switch,
        _option(
            "--start-from-device/--no-start-from-device",
            panel=_TREE,
            help="Samples start on the device, for main and backgrounds.",
        ),
    ] = None,
    verbose: Annotated[
        _Switch, _option("--verbose/--no-verbose", panel=_TREE, help="A talkative main; see --debug for heteromig.")
    ] = None,
    verbose_all: Annotated[
        _Switch, _option("--verbose-all/--no-verbose-all", panel=_TREE, help="Talkative backgrounds as well.")
    ] = None,
    harness_dir: Annotated[
        _Text,
        _option("--harness-dir", metavar="DIR", panel=_TREE, help="closed/NVIDIA. [the tree that you are in]"),
    ] = None,
    slices: Annotated[
        _Text,
        _option(
            "--slices",
            metavar="SOURCE",
            panel=_WHERE,
            help="mig, gpu, mps:<shares>x<percent>[,<n>gib], or sim:[<n>x]<board>[/<layout>][;...]. [mig]",
        ),
    ] = None,
    gpu: Annotated[
        _Text,
        _option(
            "--gpu",
            metavar="GPU",
            panel=_WHERE,
            help="UUID, or index as in nvidia-smi. [the one with the most slices; to share, the first without MIG]",
        ),
    ] = None,
    layout: Annotated[
        _Text,
        _option(
            "--layout",
            metavar="LAYOUT",
            panel=_WHERE,
            help="Cut the GPU so for this run, 7x1g.10gb or as in mig apply, and back afterwards. [as it is]",
        ),
    ] = None,
    enable_mig_mode: Annotated[
        _Switch,
        _option(
            "--enable-mig-mode/--no-enable-mig-mode",
            panel=_WHERE,
            help="With --layout: turn MIG on where it is off, unless that takes a reset of the GPU.",
        ),
    ] = None,
    harness: Annotated[
        _Text,
        _option(
            "--harness",
            metavar="NAME",
            panel=_WHERE,
            help="What workers run: make, loadgen (on real slices it needs PyTorch) or command. "
            "[make in NVIDIA's tree, else loadgen]",
        ),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        _option("--seed", metavar="N", panel=_WHERE, help="Decides which background goes where. [0]"),
    ] = None,
    pin: Annotated[
        _Switch,
        _option("--pin/--no-pin", panel=_WHERE, help="On simulated slices: a processor for main alone. [pin]"),
    ] = None,
    runs_dir: Annotated[
        _Text, _option("--runs-dir", metavar="DIR", panel=_WHERE, help="Where run directories go. [runs]")
    ] = None,
    engines_dir: Annotated[
        _Text,
        _option(
            "--engines-dir",
            metavar="DIR",
            panel=_WHERE,
            help="Engines, or what is known of those in the tree. [<runs-dir>/.engines]",
        ),
    ] = None,
    allow_shared_dirs: Annotated[
        _Switch,
        _option(
            "--allow-shared-dirs/--no-allow-shared-dirs",
            panel=_WHERE,
            help="Others may write to these two directories. [refused]",
        ),
    ] = None,
    rebuild: Annotated[
        _Switch, _option("--rebuild/--no-rebuild", panel=_WHERE, help="Build engines that are there anew.")
    ] = None,
    sim_faults: Annotated[
        Optional[Path],  # noqa: UP045
        _option(
            "--sim-faults", metavar="FILE", panel=_WHERE, help="Rehearsed faults of devices, simulated slices only."
        ),
    ] = None,
    start_time_buffer: Annotated[
        _Text,
        _option(
            "--start-time-buffer",
            metavar="TIME",
            panel=_TIMING,
            help="From the start of the last background to main. [10s; 10m in NVIDIA's tree]",
        ),
    ] = None,
    main_benchmark_immediate_start: Annotated[
        _Text,
        _option(
            "--main-benchmark-immediate-start",
            metavar="true|false",
            panel=_TIMING,
            help="true: a buffer of 0. [false]",
        ),
    ] = None,
    start_evidence: Annotated[
        Optional[EvidenceLevel],  # noqa: UP045
        _option(
            "--start-evidence",
            metavar="LEVEL",
            panel=_TIMING,
            help="What counts as started: announced, timed or busy. [timed where LoadGen's logs are]",
        ),
    ] = None,
    background_start_timeout: Annotated[
        _Text,
        _option(
            "--background-start-timeout",
            metavar="TIME",
            panel=_TIMING,
            help="For all backgrounds to have started. [10m]",
        ),
    ] = None,
    end_time_buffer_min: Annotated[
        _Text,
        _option(
            "--end-time-buffer-min",
            metavar="TIME",
            panel=_TIMING,
            help="Least slack after main, with --drain wait. [30s]",
        ),
    ] = None,
    gap_threshold: Annotated[
        _Text,
        _option(
            "--gap-threshold",
            metavar="TIME",
            panel=_TIMING,
            help="A background that is silent for longer while main is timed does not cover it then. [5s]",
        ),
    ] = None,
    build_timeout: Annotated[
        _Text, _option("--build-timeout", metavar="TIME", panel=_TIMING, help="For each build. [2h]")
    ] = None,
    main_timeout: Annotated[
        _Text,
        _option("--main-timeout", metavar="TIME", panel=_TIMING, help="For main in all. [3 x its duration + 10m]"),
    ] = None,
    main_exit_timeout: Annotated[
        _Text,
        _option(
            "--main-exit-timeout",
            metavar="TIME",
            panel=_TIMING,
            help="From main's timed end to its exit. [60s; 30m where it is scored afterwards]",
        ),
    ] = None,
    clean_stop: Annotated[
        _Text,
        _option("--clean-stop", metavar="TIME", panel=_TIMING, help="For a clean stop, before TERM. [10s]"),
    ] = None,
    grace: Annotated[_Text, _option("--grace", metavar="TIME", panel=_TIMING, help="From TERM to KILL. [10s]")] = None,
    sample_period: Annotated[
        _Text, _option("--sample-period", metavar="TIME", panel=_TIMING, help="Between device samples. [1s]")
    ] = None,
    repeat: Annotated[
        Optional[int],  # noqa: UP045
        _option(
            "--repeat",
            metavar="N",
            panel=_COMPARISON,
            help="Of run: N runs, a baseline before, between and after them, and their comparison.",
        ),
    ] = None,
    allow_busy: Annotated[
        _Switch,
        _option(
            "--allow-busy/--no-allow-busy",
            panel=_COMPARISON,
            help="Measure a baseline although others use GPUs of this host.",
        ),
    ] = None,
    isolated: Annotated[
        _Switch, _option("--isolated/--no-isolated", panel=_TUNING, help="Main alone only. [then beside backgrounds]")
    ] = None,
    probe_duration: Annotated[
        _Text, _option("--probe-duration", metavar="TIME", panel=_TUNING, help="Of a short run. [60s, or main's]")
    ] = None,
    confirm: Annotated[
        Optional[int],  # noqa: UP045
        _option("--confirm", metavar="N", panel=_TUNING, help="So many full-length runs must pass. [1]"),
    ] = None,
    precision: Annotated[
        Optional[float],  # noqa: UP045
        _option("--precision", metavar="SHARE", panel=_TUNING, help="How near to the highest rate. [0.01]"),
    ] = None,
    start_qps: Annotated[
        Optional[float],  # noqa: UP045
        _option("--start-qps", metavar="RATE", panel=_TUNING, help="Tried first. [--main-target-qps, or 100]"),
    ] = None,
    mains: Annotated[
        _Text, _option("--mains", metavar="NAMES", panel=_MATRIX, help="Measured, a list a,b,c. [--main-benchmark]")
    ] = None,
    scenarios: Annotated[
        _Text, _option("--scenarios", metavar="NAMES", panel=_MATRIX, help="Of each main. [--main-scenario]")
    ] = None,
    background_set: Annotated[
        Optional[list[str]],  # noqa: UP045
        _option(
            "--background-set",
            metavar="NAME=NAMES",
            panel=_MATRIX,
            help="Runs beside each main; may be given several times. [--background-benchmarks]",
        ),
    ] = None,
    one_at_a_time: Annotated[
        _Switch,
        _option(
            "--one-at-a-time/--no-one-at-a-time",
            panel=_MATRIX,
            help="Each benchmark of the sets is a set of its own as well, which names the worst neighbour.",
        ),
    ] = None,
    repetitions: Annotated[
        Optional[int],  # noqa: UP045
        _option(
            "--repetitions",
            metavar="N",
            panel=_MATRIX,
            help="So often each main is measured beside each set; alone, once more. [3]",
        ),
    ] = None,
    retries: Annotated[
        Optional[int],  # noqa: UP045
        _option("--retries", metavar="N", panel=_MATRIX, help="Of a run that is not VALID. [1]"),
    ] = None,
    *,
    resume: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--resume",
            metavar="DIR",
            rich_help_panel=_CAMPAIGN,
            help="Go on with the campaign in this directory, which was begun with the same settings.",
        ),
    ] = None,
    output: Annotated[
        Format,
        typer.Option("--format", rich_help_panel=_CAMPAIGN, help="How to print the answer; csv is for matrix only."),
    ] = Format.TABLE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=_OUTPUT, help="Print every command, launch nothing: `plan`.")
    ] = False,
    live: Annotated[
        _Switch,
        typer.Option("--live/--no-live", rich_help_panel=_OUTPUT, help="Live table on stderr. [on a terminal]"),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=_OUTPUT, help="Nothing on stderr while it runs.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="run.json on stdout, and nothing else.")
    ] = False,
    events: Annotated[
        bool,
        typer.Option(
            "--events", rich_help_panel=_OUTPUT, help="The journal on stdout while it grows, and nothing else."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", rich_help_panel=_OUTPUT, help="Every line of the journal on stderr.")
    ] = False,
    report: Annotated[
        bool,
        _option(
            "--report/--no-report",
            panel=_OUTPUT,
            help="report.html in the run directory at the end (tune.html of a tuning), if heteromig[report] is "
            "installed. [report]",
        ),
    ] = True,
) -> None:
    import msgspec  # noqa: PLC0415 - as below

    from heteromig.runner.config import (  # noqa: PLC0415 - keeps `--help` quick, as all imports here
        BackgroundConfig,
        Config,
        MainConfig,
        MatrixConfig,
        TimingConfig,
        TuneConfig,
        overlay,
        read_config,
        resolve,
    )

    said = Config(
        slices=slices,
        harness=harness,
        harness_dir=harness_dir,
        gpu=gpu,
        layout=layout,
        enable_mig_mode=enable_mig_mode,
        start_from_device=start_from_device,
        verbose=verbose,
        verbose_all=verbose_all,
        start_evidence=start_evidence,
        drain=drain,
        seed=seed,
        pin=pin,
        lenient=lenient,
        allow_busy=allow_busy,
        rebuild=rebuild,
        sample_period=sample_period,
        runs_dir=runs_dir,
        engines_dir=engines_dir,
        allow_shared_dirs=allow_shared_dirs,
        main=MainConfig(
            benchmark=main_benchmark,
            scenario=main_scenario,
            mode=main_mode,
            accuracy=main_accuracy,
            duration=main_benchmark_duration,
            target_qps=main_target_qps,
            action=main_action,
            config_ver=main_config_ver,
            runargs=main_benchmark_runargs,
            cmd_prefix=main_benchmark_cmd_prefix,
            immediate_start=_truth("--main-benchmark-immediate-start", main_benchmark_immediate_start),
            slice=main_slice,
        ),
        background=BackgroundConfig(
            benchmarks=background_benchmarks,
            scenario=background_scenario,
            duration=background_benchmark_duration,
            timeout=background_benchmark_timeout,
            config_ver=background_config_ver,
        ),
        timing=TimingConfig(
            start_time_buffer=start_time_buffer,
            background_start_timeout=background_start_timeout,
            build_timeout=build_timeout,
            main_timeout=main_timeout,
            main_exit_timeout=main_exit_timeout,
            end_time_buffer_min=end_time_buffer_min,
            gap_threshold=gap_threshold,
            clean_stop=clean_stop,
            grace=grace,
        ),
        tune=TuneConfig(
            isolated=isolated,
            probe_duration=probe_duration,
            confirm=confirm,
            precision=precision,
            start_qps=start_qps,
        ),
        matrix=MatrixConfig(
            mains=mains,
            scenarios=scenarios,
            background_sets=_sets(background_set or []),
            one_at_a_time=one_at_a_time,
            repetitions=repetitions,
            retries=retries,
        ),
    )
    whole = overlay(read_config(config) if config else Config(), said)
    if _is_nearer(context, "start_time_buffer", "main_benchmark_immediate_start"):
        whole = msgspec.structs.replace(whole, main=msgspec.structs.replace(whole.main, immediate_start=None))
    _refuse_foreign_options(context)
    spec = resolve(whole, goal=_GOALS.get(context.info_name or "", Goal.RUN))
    if sim_faults is not None and not spec.simulated:
        raise UsageError("--sim-faults rehearses faults of simulated slices; leave it out, or use --slices sim:...")
    planning = dry_run or context.info_name == "plan"
    faults = sim_faults.absolute() if sim_faults else None
    resuming = resume is not None
    _refuse_contradictions(planning=planning, resuming=resuming, live=live, json=json, events=events, debug=debug)
    repeat = _repeats(context, repeat, planning=planning, events=events)
    if context.info_name == "matrix":
        _refuse_matrix(json=json, events=events, output=output)
        from heteromig.cli.crossing import execute_matrix, print_matrix_plan  # noqa: PLC0415
        from heteromig.cli.executing import Showing  # noqa: PLC0415

        if dry_run:
            print_matrix_plan(whole, as_json=json)
            return
        showing = Showing(live=live, quiet=quiet, json=json, events=False, debug=debug, report=report)
        raise typer.Exit(execute_matrix(whole, showing, faults, resume=resume, output=output))
    if context.info_name == "tune":
        _refuse_to_tune(json=json, events=events, output=output)
        from heteromig.cli.executing import Showing  # noqa: PLC0415
        from heteromig.cli.tuning import Tuning, execute_tuning, print_tuning_plan  # noqa: PLC0415

        alone = resolve(whole, goal=Goal.BASELINE)
        tuning = Tuning(alone=alone, beside=spec, config=whole.tune, resume=resume, markdown=output is Format.MARKDOWN)
        if dry_run:
            print_tuning_plan(tuning, as_json=json)
            return
        showing = Showing(live=live, quiet=quiet, json=json, events=False, debug=debug, report=report)
        raise typer.Exit(execute_tuning(tuning, showing, faults))
    if planning:
        from heteromig.cli.planning import print_plan  # noqa: PLC0415

        print_plan(spec, as_json=json)
        return
    from heteromig.cli.executing import Showing, execute_and_show  # noqa: PLC0415

    showing = Showing(live=live, quiet=quiet, json=json, events=events, debug=debug, report=report)
    if repeat is None:
        raise typer.Exit(execute_and_show(spec, showing, faults))
    from heteromig.cli.repeating import execute_series  # noqa: PLC0415

    raise typer.Exit(execute_series(spec, resolve(whole, goal=Goal.BASELINE), repeat, showing, faults))


def _truth(option: str, text: str | None) -> bool | None:
    """What the original launcher takes for true whatever it says (`type=bool`)."""
    if text is None:
        return None
    word = text.strip().lower()
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise UsageError(f"{option} is {text!r}: say true or false.")


def _place_of(context: typer.Context, name: str) -> str:
    """Where a parameter was said: COMMANDLINE, ENVIRONMENT, or DEFAULT where it was not, though the file may say it."""
    source = context.get_parameter_source(name)
    return "DEFAULT" if source is None else source.name


def _is_nearer(context: typer.Context, name: str, other: str) -> bool:
    """Whether the one is said in a place that wins over the place of the other."""
    places = ("DEFAULT", "ENVIRONMENT", "COMMANDLINE")
    return places.index(_place_of(context, name)) > places.index(_place_of(context, other))


def _repeats(context: typer.Context, repeat: int | None, *, planning: bool, events: bool) -> int | None:
    """How many runs are wanted; None for one. A variable counts for `run` only."""
    if context.info_name != "run" or planning:
        if _place_of(context, "repeat") == "COMMANDLINE":
            raise UsageError("--repeat is for run, which measures: leave it out.")
        return None
    if repeat is None:
        return None
    if events:
        raise UsageError("--events shows the journal of one run, and --repeat makes several: leave one of them out.")
    if not 1 <= repeat <= _REPEAT_MAX:
        raise UsageError(f"--repeat is {repeat}, and must be from 1 to {_REPEAT_MAX}.")
    return repeat


def _refuse_to_tune(*, json: bool, events: bool, output: Format) -> None:
    if events:
        raise UsageError("--events shows the journal of one run, and tune makes several: leave it out.")
    if output is Format.CSV:
        raise UsageError("--format csv is for matrix: choose md.")
    if json and output is Format.MARKDOWN:
        raise UsageError("--json and --format md would both write to standard output: choose one.")


def _refuse_foreign_options(context: typer.Context) -> None:
    """Options of campaigns on the command line of others; what a file or a variable says is for whom it is."""
    for param in context.command.params:
        commands = COMMANDS_OF.get(getattr(param, "rich_help_panel", None) or "")
        if commands is None or context.info_name in commands or _place_of(context, param.name or "") != "COMMANDLINE":
            continue
        which = " and ".join(commands)
        make = "makes" if len(commands) == 1 else "make"
        raise UsageError(f"{param.opts[0]} is for {which}, which {make} several runs: leave it out.")


def _refuse_matrix(*, json: bool, events: bool, output: Format) -> None:
    if events:
        raise UsageError("--events shows the journal of one run, and matrix makes several: leave it out.")
    if json and output is not Format.TABLE:
        raise UsageError("--json and --format would both write to standard output: choose one.")


def _sets(said: list[str]) -> dict[str, str | list[str]] | None:
    """What `--background-set` says, NAME=a,b,c each; None where it says nothing."""
    found: dict[str, str | list[str]] = {}
    for text in said:
        name, equals, names = (part.strip() for part in text.partition("="))
        if not (name and equals and names):
            raise UsageError(f"--background-set {text!r} is none: write a name and benchmarks, such as loud=bert,dlrm.")
        if name in found:
            raise UsageError(f"--background-set: {name!r} is named twice: give each set a name of its own.")
        found[name] = names
    return found or None


def _refuse_contradictions(
    *, planning: bool, resuming: bool, live: bool | None, json: bool, events: bool, debug: bool
) -> None:
    if json and events:
        raise UsageError(
            "--json and --events would both write to standard output: choose one. The run directory has run.json and "
            "the journal in any case."
        )
    if events and planning:
        raise UsageError("--events shows what happens, and a plan launches nothing: leave --events out.")
    if planning and resuming:
        raise UsageError("--dry-run says what a new campaign would do, and --resume goes on with one: leave one out.")
    if live and debug:
        raise UsageError("--live and --debug would both write to standard error: choose one.")
