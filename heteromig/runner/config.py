"""What to run, from four places: defaults < TOML file < `HETEROMIG_*` environment < flags.

A `Config` holds what one place said; None is "said nothing". Environment and flags arrive together from the command
line, which knows which of the two won.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from heteromig.core.devices import SliceKind
from heteromig.core.errors import HeteromigError, UsageError
from heteromig.core.gaps import MIN_GAP_NS
from heteromig.core.names import NAME_RULE, odd_names
from heteromig.core.phases import EvidenceLevel
from heteromig.core.redaction import REDACTED, redacted_parts
from heteromig.core.spec import (
    GAP_THRESHOLD_MS,
    Action,
    BackgroundSpec,
    CommandSpec,
    Drain,
    Goal,
    MainSpec,
    Mode,
    Preparation,
    RunSpec,
    SystemSpec,
    TimingSpec,
)
from heteromig.core.units import NS_PER_MS, format_duration_s, parse_duration_ms
from heteromig.harnesses import HARNESSES, Harness, HarnessOptions
from heteromig.harnesses.make.arguments import (
    START_FROM_DEVICE,
    VERBOSE,
    require_for_backgrounds,
    settle_mode,
    split_arguments,
)
from heteromig.harnesses.make.tree import find_tree
from heteromig.slices.mig.parted import names_file
from heteromig.slices.source import SliceSource, parse_slices

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Whole = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)]
"""What JSON's numbers hold; TOML's hexadecimal ones have any length, and Python does not print them all."""

Duration = Whole | str
"""Milliseconds, or text with a unit: `600000`, `"600s"`, `"10m"`."""

Positive = Annotated[float, Meta(gt=0)]

_CONFIG_BYTES_MAX = 1 << 20
"""Whoever names something larger, or a device that never ends, has named something else."""

MAX_DURATION_MS = 366 * 24 * 3_600_000
"""No run takes longer than a year; LoadGen and the journal hold no more than 64 bits of whatever unit."""


Arguments = str | list[str]
"""Text that is split as a shell would split it, or the arguments themselves."""


class MainConfig(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """The `[main]` table. `slice` is a UUID, an index or a profile; `immediate_start` is a start time buffer of 0."""

    benchmark: str | None = None
    scenario: str | None = None
    mode: Mode | None = None
    accuracy: str | float | None = None
    duration: Duration | None = None
    target_qps: Positive | None = None
    action: Action | None = None
    config_ver: str | None = None
    runargs: Arguments | None = None
    cmd_prefix: Arguments | None = None
    immediate_start: bool | None = None
    slice: str | Whole | None = None


class BackgroundConfig(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """The `[background]` table. `duration` may be `"automatic"`."""

    benchmarks: str | list[str] | None = None
    scenario: str | None = None
    duration: Duration | None = None
    timeout: Duration | None = None
    config_ver: str | None = None
    runargs: Arguments | None = None


class TimingConfig(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """The `[timing]` table."""

    start_time_buffer: Duration | None = None
    background_start_timeout: Duration | None = None
    build_timeout: Duration | None = None
    main_timeout: Duration | None = None
    main_exit_timeout: Duration | None = None
    end_time_buffer_min: Duration | None = None
    gap_threshold: Duration | None = None
    clean_stop: Duration | None = None
    grace: Duration | None = None


class TuneConfig(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """The `[tune]` table, which `run` and the others leave alone."""

    isolated: bool | None = None
    probe_duration: Duration | None = None
    confirm: Whole | None = None
    precision: Positive | None = None
    start_qps: Positive | None = None


class MatrixConfig(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """The `[matrix]` table, which all but `matrix` leave alone.

    `background_sets` are benchmarks by the name of their set, or what `[background] benchmarks` takes; `target_qps` the
    rate of each main in Server.
    """

    mains: str | list[str] | None = None
    scenarios: str | list[str] | None = None
    background_sets: dict[str, str | list[str]] | None = None
    one_at_a_time: bool | None = None
    repetitions: Whole | None = None
    retries: Whole | None = None
    target_qps: dict[str, Positive] | None = None


class SystemConfig(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One `[[systems]]` table: a kind of GPU, by a part of its product name, and the scenarios of its benchmarks."""

    gpu: str
    benchmarks: dict[str, list[str]]


class CommandConfig(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """One `[command.<name>]` table; see `CommandSpec`."""

    argv: Arguments
    model: str | None = None
    scenarios: list[str] | None = None
    env: dict[str, str] | None = None
    cwd: str | None = None
    start: str | None = None
    end: str | None = None
    result: str | None = None
    valid_when: str | list[str] | None = None
    clean_stop: str | None = None
    loadgen_logs: str | None = None


class Config(Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Everything that one place said. `verbose`, `verbose_all` and `start_from_device` become arguments of `make`."""

    slices: str | None = None
    harness: str | None = None
    harness_dir: str | None = None
    gpu: str | Whole | None = None
    layout: str | None = None
    enable_mig_mode: bool | None = None
    start_from_device: bool | None = None
    verbose: bool | None = None
    verbose_all: bool | None = None
    systems: list[SystemConfig] | None = None
    command: dict[str, CommandConfig] | None = None
    start_evidence: EvidenceLevel | None = None
    drain: Drain | None = None
    seed: Whole | None = None
    pin: bool | None = None
    lenient: bool | None = None
    allow_busy: bool | None = None
    rebuild: bool | None = None
    sample_period: Duration | None = None
    runs_dir: str | None = None
    engines_dir: str | None = None
    allow_shared_dirs: bool | None = None
    main: MainConfig = MainConfig()
    background: BackgroundConfig = BackgroundConfig()
    timing: TimingConfig = TimingConfig()
    tune: TuneConfig = TuneConfig()
    matrix: MatrixConfig = MatrixConfig()


def read_config(path: Path) -> Config:
    """The configuration in a TOML file.

    Raises:
        UsageError: it cannot be read, is no TOML, or has a key or value that does not exist.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    if len(data) > _CONFIG_BYTES_MAX:
        raise UsageError(f"The configuration {path} has more than {_CONFIG_BYTES_MAX} bytes: it is something else.")
    try:
        tree = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # numbers with too many digits, brackets within brackets
        raise UsageError(f"The configuration {path} is not TOML: {error}.") from None
    _refuse_unknown_keys(tree, Config, str(path), "")
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"The configuration {path}: {error}.") from None


_S = TypeVar("_S", bound=Struct)


def overlay(below: _S, above: _S) -> _S:
    """`below`, with all that `above` says laid over it."""
    changes: dict[str, Any] = {}
    for field in msgspec.structs.fields(above):
        value = getattr(above, field.name)
        if isinstance(value, Struct):
            changes[field.name] = overlay(getattr(below, field.name), value)
        elif value is not None:
            changes[field.name] = value
    return msgspec.structs.replace(below, **changes)


def resolve(config: Config, *, goal: Goal = Goal.RUN) -> RunSpec:
    """The complete, checked specification of a run.

    Raises:
        UsageError: a benchmark, scenario, duration, harness or slice source does not exist or does not fit, or a text
            is none that a journal can hold.
    """
    harness_name, options = _harness_options(config)
    harness = _choose(HARNESSES, harness_name, "--harness")(options)
    source = parse_slices(config.slices or "mig")
    main = _main(config, harness)
    background = _background(config, harness, main.benchmark)
    if goal is Goal.BASELINE:
        background = msgspec.structs.replace(background, benchmarks="none", explicit=False, candidates=())
    timing = _timing(config, harness, main)
    runs_dir = _directory("--runs-dir", config.runs_dir or "runs")
    level = EvidenceLevel.TIMED if harness.writes_loadgen_logs else EvidenceLevel.ANNOUNCED
    spec = RunSpec(
        goal=goal,
        slices=str(source),
        harness=harness.name,
        simulated=source.simulated,
        main=main,
        background=background,
        timing=timing,
        catalog=harness.catalog(),
        start_evidence=config.start_evidence or level,
        drain=config.drain or (Drain.KILL if background.duration_ms is None else Drain.WAIT),
        seed=config.seed or 0,
        pin=config.pin is not False,
        lenient=bool(config.lenient),
        rebuild=bool(config.rebuild),
        sample_period_ms=_duration("--sample-period", config.sample_period, 1000, at_least_ms=100),
        runs_dir=runs_dir,
        uses_gpu=harness.uses_gpu,
        batch_builds=harness.batches_builds,
        engines_dir=_directory("--engines-dir", config.engines_dir or str(Path(runs_dir) / ".engines")),
        gpu=None if config.gpu is None else str(config.gpu),
        preparation=_preparation(config, source),
        layout=_layout(config.layout or ""),
        enable_mig_mode=bool(config.enable_mig_mode),
        systems=harness.systems(),
        harness_dir=options.harness_dir,
        commands=options.commands,
        allow_shared_dirs=bool(config.allow_shared_dirs),
        allow_busy=bool(config.allow_busy),
    )
    if goal.measures:
        _require_outlasting(main, background, timing)
    odd = next(odd_names(spec), None)
    if odd is not None:
        raise UsageError(f"{odd!r} cannot be part of the name of a directory, which it would become: use {NAME_RULE}.")
    left_out = redacted_parts(spec)
    if left_out:
        raise UsageError(
            f"{', '.join(left_out)}: {REDACTED} stands where a run wrote down no secret. Put the secret back, or leave "
            "the variable out and set it where heteromig is started: programs inherit that, and no file holds it."
        )
    try:
        msgspec.json.encode(spec)
    except UnicodeEncodeError as error:  # bytes of the command line or the environment
        raise UsageError(f"{error.object!r} is no text in UTF-8: say it in other letters.") from None
    return spec


def _preparation(config: Config, source: SliceSource) -> Preparation | None:
    if source.kind is SliceKind.MPS:
        if config.layout:
            raise UsageError(
                f"--layout {config.layout} cuts a GPU into MIG slices, and --slices {source} shares one without MIG: "
                "leave one of them out."
            )
        return Preparation.MPS
    if config.layout is None:
        return None
    if not config.layout.strip():
        raise UsageError("--layout is empty: write a layout such as 7x1g.10gb, or leave the option out.")
    if "\0" in f"{config.layout}{config.gpu}":
        raise UsageError(f"--layout {config.layout!r} on --gpu {config.gpu!r} has a NUL in it: no such thing has.")
    if source.kind not in {SliceKind.MIG, SliceKind.SIM}:
        raise UsageError(f"--layout {config.layout} makes MIG slices, and --slices is {source}: use --slices mig.")
    return Preparation.LAYOUT


def _layout(text: str) -> str:
    """A file is named so that it is found from any directory."""
    return str(Path(text).absolute()) if names_file(text) else text


def _harness_options(config: Config) -> tuple[str, HarnessOptions]:
    """The name of the harness, and what the configuration says for it: inside NVIDIA's tree, `make` is the default."""
    here = find_tree(Path.cwd()) if config.harness_dir is None else Path(config.harness_dir).absolute()
    name = config.harness or ("command" if config.command else "make" if here is not None else "loadgen")
    return name, HarnessOptions(
        harness_dir=_directory("--harness-dir", str(here)) if name == "make" and here is not None else "",
        systems=tuple(
            SystemSpec(
                gpu=one.gpu, benchmarks=tuple((name, _scenarios(wanted)) for name, wanted in one.benchmarks.items())
            )
            for one in config.systems or ()
        ),
        commands=tuple(_command(name, one) for name, one in (config.command or {}).items()),
    )


def _command(name: str, config: CommandConfig) -> CommandSpec:
    conditions = config.valid_when or ()
    return CommandSpec(
        name=name,
        argv=_command_line(name, config.argv),
        model=config.model or name,
        scenarios=_scenarios(config.scenarios or ["offline"]),
        env=config.env or {},
        cwd=config.cwd,
        start=config.start,
        end=config.end,
        result=config.result,
        valid_when=(conditions,) if isinstance(conditions, str) else tuple(conditions),
        clean_stop=config.clean_stop,
        loadgen_logs=config.loadgen_logs,
    )


def _command_line(name: str, said: Arguments) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(said)) if isinstance(said, str) else tuple(said)
    except ValueError as error:
        why = str(error).lower()
        raise UsageError(f"The argv of [command.{name}] cannot be split ({why}): {said!r}. Write a list.") from None


def _scenarios(names: list[str]) -> tuple[str, ...]:
    return tuple(_scenario(name) for name in names)


def _directory(option: str, path: str) -> str:
    """A path that can be a path, and can be written into a journal."""
    if "\0" in path or path.encode(errors="replace").decode() != path:
        raise UsageError(f"{option} is {path!r}, which is no path in UTF-8: choose another one.")
    return path


_Named = TypeVar("_Named")


def _choose(known: dict[str, _Named], name: str, what: str) -> _Named:
    if name not in known:
        raise UsageError(f"{what} {name!r} does not exist{_nearest(name, known)} Known: {', '.join(known)}.")
    return known[name]


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def _scenario(name: str | None) -> str:
    """`SingleStream`, `single-stream` and `single_stream` are `singlestream`, which is what everybody else reads."""
    return (name or "offline").lower().replace("-", "").replace("_", "")


def _main(whole: Config, harness: Harness) -> MainSpec:
    config = whole.main
    default = "resnet50" if harness.name != "command" else harness.catalog()[0].name
    name = _as_known(config.benchmark or default, harness)
    info = harness.benchmark(name)
    scenario = _scenario(config.scenario)
    # TOML's 99 and 99.0 are the same number, and the catalog says 99.
    accuracy = info.default_accuracy if config.accuracy is None else str(config.accuracy).removesuffix(".0")
    harness.require_supported(name, scenario, accuracy)
    if config.target_qps is not None and not 0 < config.target_qps < math.inf:
        raise UsageError(f"--main-target-qps is {config.target_qps:g}, and must be a number of samples above 0.")
    own = split_arguments("--main-benchmark-runargs", config.runargs or "")
    mode, own = settle_mode(own, config.mode)
    return MainSpec(
        benchmark=name,
        scenario=scenario,
        mode=mode,
        accuracy=accuracy,
        duration_ms=_duration("--main-benchmark-duration", config.duration, 600_000, at_least_ms=1),
        target_qps=config.target_qps,
        action=config.action or Action.RUN_HARNESS,
        config_ver=config.config_ver or info.config_ver(accuracy),
        run_args=(*_common_arguments(whole), *own, *(VERBOSE if whole.verbose or whole.verbose_all else ())),
        cmd_prefix=split_arguments("--main-benchmark-cmd-prefix", config.cmd_prefix or ""),
        slice=None if config.slice is None else str(config.slice),
    )


def _as_known(name: str, harness: Harness) -> str:
    """The benchmark that differs from `name` in upper and lower case only; `name` itself where there is none."""
    known = [info.name for info in harness.catalog()]
    return name if name in known else next((one for one in known if one.lower() == name.lower()), name)


def _common_arguments(config: Config) -> tuple[str, ...]:
    """Those that go to main and to backgrounds alike."""
    return (START_FROM_DEVICE,) if config.start_from_device else ()


def _background(whole: Config, harness: Harness, main: str) -> BackgroundSpec:
    config = whole.background
    wanted = config.benchmarks if config.benchmarks is not None else "all"
    scenario = _scenario(config.scenario)
    known = dict.fromkeys(one for info in harness.catalog() for one in info.scenarios)
    if config.scenario is not None and scenario not in known:  # a set would hold nobody, and main be alone
        raise UsageError(f"--background-scenario {config.scenario!r} does not exist: choose one of {', '.join(known)}.")
    sets = harness.sets()
    names = [name.strip() for name in (wanted.split(",") if isinstance(wanted, str) else wanted)]
    if not any(names):
        raise UsageError(
            "--background-benchmarks is empty: name benchmarks, a set (all, edge, datacenter), or none for main alone."
        )
    set_names = {*sets, "none"}
    names = [name.lower() if name.lower() in set_names else _as_known(name, harness) for name in names]
    named_set = names[0] if len(names) == 1 and names[0] in set_names else None
    if named_set is None:
        for name in names:
            if name in set_names:
                raise UsageError(
                    f"--background-benchmarks {','.join(names)}: {name!r} is a set and stands alone; "
                    "list benchmarks, or name one set."
                )
        candidates = tuple(names)
    else:
        model = harness.benchmark(main).model
        members = sets.get(named_set, ())
        candidates = tuple(
            name
            for name in members
            if harness.benchmark(name).model != model and scenario in harness.benchmark(name).scenarios
        )
    for name in candidates:
        harness.require_supported(name, scenario, harness.benchmark(name).default_accuracy)
    automatic = config.duration is None or str(config.duration).lower() == "automatic"
    return BackgroundSpec(
        benchmarks=",".join(names),
        explicit=named_set is None,
        candidates=candidates,
        scenario=scenario,
        duration_ms=None
        if automatic
        else _duration("--background-benchmark-duration", config.duration, 0, at_least_ms=1, also="automatic"),
        timeout_ms=_duration("--background-benchmark-timeout", config.timeout, 2 * 3_600_000, at_least_ms=1),
        config_ver=config.config_ver or "",
        run_args=(
            *_common_arguments(whole),
            *require_for_backgrounds(split_arguments("runargs of [background]", config.runargs or "")),
            *(VERBOSE if whole.verbose_all else ()),
        ),
    )


def _require_outlasting(main: MainSpec, background: BackgroundSpec, timing: TimingSpec) -> None:
    """Backgrounds whose duration is chosen for them end before main where the cap on it is too low."""
    least_ms = timing.start_time_buffer_ms + main.duration_ms * main.action.loadgen_runs
    if background.candidates and background.duration_ms is None and least_ms > background.timeout_ms:
        raise UsageError(
            f"Backgrounds would run for {format_duration_s(background.timeout_ms / 1000)} at most "
            f"(--background-benchmark-timeout), and main needs them for {format_duration_s(least_ms / 1000)} at least: "
            "allow more."
        )


def _timing(whole: Config, harness: Harness, main: MainSpec) -> TimingSpec:
    config = whole.timing
    buffer_ms = _duration("--start-time-buffer", config.start_time_buffer, harness.start_time_buffer_ms)
    runs = main.action.loadgen_runs
    return TimingSpec(
        start_time_buffer_ms=0 if whole.main.immediate_start else buffer_ms,
        background_start_timeout_ms=_duration(
            "--background-start-timeout", config.background_start_timeout, 600_000, at_least_ms=1
        ),
        build_timeout_ms=_duration("--build-timeout", config.build_timeout, 7_200_000, at_least_ms=1),
        # Twice what an Offline run of that length may take, and ten minutes to load and to post-process.
        main_timeout_ms=_duration(
            "--main-timeout",
            config.main_timeout,
            min(3 * main.duration_ms * runs + 600_000 * runs, MAX_DURATION_MS),
            at_least_ms=1,
        ),
        main_exit_timeout_ms=_duration(
            "--main-exit-timeout", config.main_exit_timeout, harness.main_exit_timeout_ms(main), at_least_ms=1
        ),
        end_time_buffer_min_ms=_duration("--end-time-buffer-min", config.end_time_buffer_min, 30_000),
        gap_threshold_ms=_duration(
            "--gap-threshold", config.gap_threshold, GAP_THRESHOLD_MS, at_least_ms=MIN_GAP_NS // NS_PER_MS
        ),
        clean_stop_ms=_duration("--clean-stop", config.clean_stop, 10_000),
        grace_ms=_duration("--grace", config.grace, 10_000),
    )


def _duration(
    option: str, value: Duration | None, default_ms: int, *, at_least_ms: int = 0, also: str | None = None
) -> int:
    if value is None:
        return default_ms
    try:
        duration_ms = parse_duration_ms(value)
    except UsageError as error:
        hint = f" {option} also takes {also!r}." if also else ""
        raise UsageError(f"{option}: {error}{hint}") from None
    if duration_ms < at_least_ms:
        raise UsageError(f"{option} is {value}, and must be at least {at_least_ms} ms.")
    if duration_ms > MAX_DURATION_MS:
        raise UsageError(f"{option} is {value}, and must be at most {MAX_DURATION_MS // 3_600_000}h, a year.")
    return duration_ms


def _refuse_unknown_keys(tree: dict[str, Any], struct: type[Struct], path: str, table: str) -> None:
    known = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for key, value in tree.items():
        if key not in known:
            where = f"table [{table}] of {path}" if table else path
            raise UsageError(f"There is no key {key!r} in {where}{_nearest(key, known)} Known: {', '.join(known)}.")
        nested = known[key].type
        if isinstance(value, dict) and isinstance(nested, type) and issubclass(nested, Struct):
            _refuse_unknown_keys(value, nested, path, key)


def to_toml(spec: RunSpec) -> str:
    """The resolved specification as a configuration that gives the same run again.

    TOML's basic strings, numbers and arrays are JSON's, so that the JSON encoder writes the values.
    """
    duration_ms = spec.background.duration_ms
    config = Config(
        slices=spec.slices,
        harness=spec.harness,
        start_evidence=spec.start_evidence,
        drain=spec.drain,
        seed=spec.seed,
        pin=spec.pin,
        lenient=spec.lenient,
        allow_busy=spec.allow_busy or None,
        rebuild=spec.rebuild,
        sample_period=spec.sample_period_ms,
        runs_dir=spec.runs_dir,
        engines_dir=spec.engines_dir,
        allow_shared_dirs=spec.allow_shared_dirs or None,
        harness_dir=spec.harness_dir or None,
        gpu=spec.gpu,
        layout=spec.layout or None,
        enable_mig_mode=spec.enable_mig_mode or None,
        systems=[
            SystemConfig(gpu=one.gpu, benchmarks={name: list(scenarios) for name, scenarios in one.benchmarks})
            for one in spec.systems
        ]
        or None,
        command={one.name: _command_config(one) for one in spec.commands} or None,
        main=MainConfig(
            benchmark=spec.main.benchmark,
            scenario=spec.main.scenario,
            mode=spec.main.mode,
            accuracy=spec.main.accuracy,
            duration=spec.main.duration_ms,
            target_qps=spec.main.target_qps,
            action=spec.main.action,
            config_ver=spec.main.config_ver or None,
            runargs=list(spec.main.run_args) or None,
            cmd_prefix=list(spec.main.cmd_prefix) or None,
            slice=spec.main.slice,
        ),
        background=BackgroundConfig(
            benchmarks=spec.background.benchmarks,
            scenario=spec.background.scenario,
            duration="automatic" if duration_ms is None else duration_ms,
            timeout=spec.background.timeout_ms,
            config_ver=spec.background.config_ver or None,
            runargs=list(spec.background.run_args) or None,
        ),
        timing=TimingConfig(
            start_time_buffer=spec.timing.start_time_buffer_ms,
            background_start_timeout=spec.timing.background_start_timeout_ms,
            build_timeout=spec.timing.build_timeout_ms,
            main_timeout=spec.timing.main_timeout_ms,
            main_exit_timeout=spec.timing.main_exit_timeout_ms,
            end_time_buffer_min=spec.timing.end_time_buffer_min_ms,
            gap_threshold=spec.timing.gap_threshold_ms,
            clean_stop=spec.timing.clean_stop_ms,
            grace=spec.timing.grace_ms,
        ),
    )
    config = _without_derived(config, spec.goal)
    left_out = redacted_parts(spec)
    remark = [f"# {REDACTED} stands for a secret, to be put back before this runs again: {', '.join(left_out)}."]
    return "\n".join([*(remark if left_out else ()), *_toml_lines(config, "")])


_DERIVED = (
    ("", "start_evidence"),
    ("", "drain"),
    ("main", "accuracy"),
    ("main", "config_ver"),
    ("timing", "start_time_buffer"),
    ("timing", "main_timeout"),
    ("timing", "main_exit_timeout"),
)
"""Table and key of what follows from the rest, unless it is said."""


def _without_derived(config: Config, goal: Goal) -> Config:
    """The same without what it would be anyway, so that this still follows where options are laid over it."""
    try:
        whole = resolve(config, goal=goal)
    except HeteromigError:  # of another machine, or without its secrets: nobody can tell
        return config
    for table, key in _DERIVED:
        if table:
            changed = msgspec.structs.replace(getattr(config, table), **{key: None})
            leaner = msgspec.structs.replace(config, **{table: changed})
        else:
            leaner = msgspec.structs.replace(config, **{key: None})
        with contextlib.suppress(UsageError):  # without it there may be no such run
            if resolve(leaner, goal=goal) == whole:
                config = leaner
    return config


def _command_config(spec: CommandSpec) -> CommandConfig:
    return CommandConfig(
        argv=list(spec.argv),
        model=spec.model,
        scenarios=list(spec.scenarios),
        env=spec.env or None,
        cwd=spec.cwd,
        start=spec.start,
        end=spec.end,
        result=spec.result,
        valid_when=list(spec.valid_when) or None,
        clean_stop=spec.clean_stop,
        loadgen_logs=spec.loadgen_logs,
    )


def _toml_lines(struct: Struct, table: str) -> list[str]:
    lines = [f"[{table}]"] if table else []
    nested: list[str] = []
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, TuneConfig | MatrixConfig):
            continue  # they are about several runs, and this is one
        if isinstance(value, Struct):
            nested += ["", *_toml_lines(value, field.encode_name)]
        elif value is not None:
            lines.append(f"{field.encode_name} = {_toml_value(msgspec.to_builtins(value))}")
    return [*lines, *nested] if table else [*lines, *nested, ""]


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{_toml_value(key)} = {_toml_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")  # the one that JSON lets through
