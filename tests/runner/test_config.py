from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.benchmarks.catalog import BENCHMARKS, SETS
from heteromig.core.errors import UsageError
from heteromig.core.phases import EvidenceLevel
from heteromig.core.spec import Action, CommandSpec, Drain, Goal, Mode, Preparation, RunSpec, SystemSpec
from heteromig.harnesses import HARNESSES
from heteromig.harnesses.make.arguments import START_FROM_DEVICE, VERBOSE
from heteromig.runner.config import (
    MAX_DURATION_MS,
    BackgroundConfig,
    CommandConfig,
    Config,
    Duration,
    MainConfig,
    SystemConfig,
    TimingConfig,
    _harness_options,
    overlay,
    read_config,
    resolve,
    to_toml,
)

SIM = Config(slices="sim:a30")


def _read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def _again(tmp_path: Path, spec: RunSpec) -> RunSpec:
    return resolve(_read(tmp_path, to_toml(spec)), goal=spec.goal)


@pytest.mark.parametrize(
    ("above", "field", "value"),
    [
        (Config(main=MainConfig(accuracy="99.9")), "config_ver", "hetero_high_accuracy"),
        (Config(main=MainConfig(benchmark="dlrm")), "accuracy", "99.9"),
    ],
)
def test_what_follows_from_the_rest_still_does_over_a_plan(
    tmp_path: Path, above: Config, field: str, value: str
) -> None:
    plan = _read(tmp_path, to_toml(resolve(Config(harness="make", main=MainConfig(benchmark="bert")))))
    assert getattr(resolve(overlay(plan, above)).main, field) == value


def test_limits_grow_over_a_plan_with_what_they_are_for(tmp_path: Path) -> None:
    plan = _read(tmp_path, to_toml(resolve(Config(harness="make"))))
    audit = Config(main=MainConfig(duration="50m", action=Action.TEST01))
    assert resolve(overlay(plan, audit)) == resolve(replace(audit, harness="make"))
    said = _read(tmp_path, to_toml(resolve(Config(harness="make", timing=TimingConfig(main_timeout="50m")))))
    kept = resolve(overlay(said, Config(main=MainConfig(duration="1h"))))
    assert kept.timing.main_timeout_ms == 3_000_000, "what was said stays said"


def test_what_makes_a_run_possible_is_kept_in_a_plan(tmp_path: Path) -> None:
    short = Config(
        harness="make",
        main=MainConfig(benchmark="bert", duration=1, immediate_start=True),
        background=BackgroundConfig(timeout=1),
    )
    assert _again(tmp_path, resolve(short)) == resolve(short)


def test_defaults() -> None:
    spec = resolve(SIM)
    assert spec.goal is Goal.RUN
    assert (spec.main.benchmark, spec.main.scenario, spec.main.mode) == ("resnet50", "offline", Mode.PERFORMANCE)
    assert spec.main.duration_ms == 600_000
    assert spec.main.target_qps is None
    assert spec.background.benchmarks == "all"
    assert spec.background.duration_ms is None
    assert spec.background.timeout_ms == 2 * 3_600_000, "the longest that the original launcher lets them run"
    assert (spec.main.action, spec.main.run_args, spec.main.cmd_prefix) == (Action.RUN_HARNESS, (), ())
    assert (spec.gpu, spec.main.slice, spec.systems, spec.commands, spec.harness_dir) == (None, None, (), (), "")
    assert spec.drain is Drain.KILL
    assert spec.start_evidence is EvidenceLevel.TIMED
    assert spec.timing.start_time_buffer_ms == 10_000
    assert spec.timing.main_timeout_ms == 2_400_000
    assert spec.timing.main_exit_timeout_ms == 60_000
    assert spec.sample_period_ms == 1000
    assert (spec.runs_dir, spec.engines_dir) == ("runs", "runs/.engines")
    assert spec.pin
    assert not spec.lenient
    assert not spec.rebuild
    assert resolve(Config()).slices == "mig"


def test_file_with_everything(tmp_path: Path) -> None:
    config = _read(
        tmp_path,
        """
        slices = "sim:a100-sxm-80gb/7x1g.10gb"
        harness = "loadgen"
        start-evidence = "busy"
        drain = "wait"
        seed = 7
        pin = false
        lenient = true
        rebuild = true
        sample-period = "2s"
        runs-dir = "/data/r"
        engines-dir = "/data/e"
        [main]
        benchmark = "bert"
        scenario = "Server"
        mode = "performance"
        accuracy = 99.9
        duration = "10m"
        target-qps = 12
        [background]
        benchmarks = ["dlrm", "bert"]
        scenario = "offline"
        duration = 5000
        timeout = "1h"
        [timing]
        start-time-buffer = "1.5s"
        grace = 0
        """,
    )
    spec = resolve(config, goal=Goal.BUILD)
    assert spec.goal is Goal.BUILD
    assert spec.slices == "sim:a100-sxm-80gb/7x1g.10gb"
    assert (spec.main.benchmark, spec.main.scenario, spec.main.accuracy) == ("bert", "server", "99.9")
    assert (spec.main.duration_ms, spec.main.target_qps) == (600_000, 12.0)
    assert spec.background.explicit
    assert spec.background.candidates == ("dlrm", "bert")
    assert (spec.background.duration_ms, spec.background.timeout_ms) == (5000, 3_600_000)
    assert (spec.timing.start_time_buffer_ms, spec.timing.grace_ms) == (1500, 0)
    assert (spec.drain, spec.start_evidence, spec.seed) == (Drain.WAIT, EvidenceLevel.BUSY, 7)
    assert (spec.pin, spec.lenient, spec.rebuild) == (False, True, True)
    assert (spec.sample_period_ms, spec.runs_dir, spec.engines_dir) == (2000, "/data/r", "/data/e")


def test_file_for_nvidias_tree(tmp_path: Path) -> None:
    config = _read(
        tmp_path,
        """
        slices = "mig"
        harness = "make"
        harness-dir = "/data/closed/NVIDIA"
        gpu = 1
        verbose = true
        start-from-device = true
        [main]
        benchmark = "bert"
        scenario = "Server"
        accuracy = 99.9
        action = "run_audit_test01"
        config-ver = "hetero_mine"
        runargs = "--gpu_batch_size=64 '--name=a b'"
        cmd-prefix = ["numactl", "-N", "0 1"]
        immediate-start = true
        slice = 3
        [background]
        benchmarks = "datacenter"
        config-ver = "theirs"
        runargs = ["--x=$HOME"]
        [[systems]]
        gpu = "H100 80GB HBM3"
        benchmarks = { resnet50 = ["Offline", "Server"], bert = ["offline", "server"] }
        [[systems]]
        gpu = "A30"
        [systems.benchmarks]
        gptj = ["single-stream"]
        """,
    )
    spec = resolve(config)
    assert (spec.harness, spec.harness_dir, spec.gpu, spec.batch_builds) == ("make", "/data/closed/NVIDIA", "1", True)
    main, background = spec.main, spec.background
    assert (main.action, main.accuracy, main.config_ver, main.slice) == (Action.TEST01, "99.9", "hetero_mine", "3")
    assert main.run_args == (START_FROM_DEVICE, "--gpu_batch_size=64", "--name=a b", *VERBOSE)
    assert main.cmd_prefix == ("numactl", "-N", "0 1")
    assert (background.config_ver, background.run_args) == ("theirs", (START_FROM_DEVICE, "--x=$HOME"))
    assert spec.timing.start_time_buffer_ms == 0
    assert spec.timing.main_timeout_ms == 2 * 2_400_000, "an audit may take two runs"
    assert spec.systems[:2] == (
        SystemSpec("H100 80GB HBM3", (("resnet50", ("offline", "server")), ("bert", ("offline", "server")))),
        SystemSpec("A30", (("gptj", ("singlestream",)),)),
    )
    assert {info.name for info in spec.catalog} >= {"resnet50", "gptj"}
    assert _again(tmp_path, spec) == spec


def test_file_with_programs(tmp_path: Path) -> None:
    config = _read(
        tmp_path,
        """
        slices = "sim:a30"
        [command.measured]
        argv = "./bench --seconds {duration_s} 'two words'"
        start = "^start$"
        result = 'p99_ms=(?P<p99_ms>\\S+)'
        valid-when = "p99_ms <= 15"
        [command.beside]
        argv = ["./noise"]
        model = "noise"
        scenarios = ["Offline", "Server"]
        env = { LEVEL = "7", "a.b" = "c" }
        cwd = "."
        loadgen-logs = "logs"
        clean-stop = "INT"
        end = "^end$"
        """,
    )
    spec = resolve(config)
    assert (spec.harness, spec.main.benchmark, spec.background.candidates) == ("command", "measured", ("beside",))
    assert spec.start_evidence is EvidenceLevel.ANNOUNCED, "one of them writes no LoadGen log"
    assert spec.commands == (
        CommandSpec(
            name="measured",
            argv=("./bench", "--seconds", "{duration_s}", "two words"),
            model="measured",
            scenarios=("offline",),
            start="^start$",
            result=r"p99_ms=(?P<p99_ms>\S+)",
            valid_when=("p99_ms <= 15",),
        ),
        CommandSpec(
            name="beside",
            argv=("./noise",),
            model="noise",
            scenarios=("offline", "server"),
            env={"LEVEL": "7", "a.b": "c"},
            cwd=".",
            end="^end$",
            clean_stop="INT",
            loadgen_logs="logs",
        ),
    )
    assert _again(tmp_path, spec) == spec


def test_inside_nvidias_tree_it_is_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "closed/NVIDIA"
    (tree / "code/common").mkdir(parents=True)
    (tree / "Makefile").touch()
    (tree / "code/main_v2.py").touch()
    monkeypatch.chdir(tree / "code")
    spec = resolve(Config())
    assert (spec.harness, spec.harness_dir) == ("make", str(tree))
    assert resolve(Config(harness="loadgen")).harness_dir == ""
    monkeypatch.chdir(tmp_path)
    assert resolve(Config()).harness == "loadgen"
    named = resolve(Config(harness_dir="closed/NVIDIA"))
    assert (named.harness, named.harness_dir) == ("make", str(tree)), "wherever the run is verified"


@pytest.mark.parametrize(
    ("config", "main", "background"),
    [
        (Config(verbose=True), VERBOSE, ()),
        (Config(verbose_all=True), VERBOSE, VERBOSE),
        (Config(verbose=True, verbose_all=True), VERBOSE, VERBOSE),
        (Config(start_from_device=True), (START_FROM_DEVICE,), (START_FROM_DEVICE,)),
        (Config(verbose=False, verbose_all=False, start_from_device=False), (), ()),
    ],
)
def test_switches_of_the_original_launcher_become_arguments(
    config: Config, main: tuple[str, ...], background: tuple[str, ...]
) -> None:
    spec = resolve(overlay(Config(harness="make"), config))
    assert (spec.main.run_args, spec.background.run_args) == (main, background)


@pytest.mark.parametrize(
    ("runargs", "mode", "expected"),
    [
        ("--test_mode=AccuracyOnly", None, Mode.ACCURACY),
        ("--test_mode AccuracyOnly", Mode.ACCURACY, Mode.ACCURACY),
        ("--test_mode=PerformanceOnly", None, Mode.PERFORMANCE),
        (None, Mode.ACCURACY, Mode.ACCURACY),
        (None, None, Mode.PERFORMANCE),
    ],
)
def test_the_mode_of_main_is_said_in_either_way(runargs: str | None, mode: Mode | None, expected: Mode) -> None:
    assert resolve(Config(harness="make", main=MainConfig(runargs=runargs, mode=mode))).main.mode is expected


def test_a_year_is_the_longest_that_anything_may_take() -> None:
    longest = MainConfig(duration=MAX_DURATION_MS, action=Action.TEST04)
    alone = Config(harness="make", main=longest, background=BackgroundConfig("none"))
    assert resolve(alone).timing.main_timeout_ms == MAX_DURATION_MS


def test_backgrounds_that_surely_end_before_main_are_refused() -> None:
    config = Config(harness="make", main=MainConfig(duration="3h"))
    with pytest.raises(
        UsageError, match=r"at most \(--background-benchmark-timeout\), and main needs them for 3:10:00 h"
    ):
        resolve(config)
    assert resolve(replace(config, background=BackgroundConfig(timeout="4h"))).background.duration_ms is None
    said = resolve(replace(config, background=BackgroundConfig(duration="1h")))
    assert said.background.duration_ms == 3_600_000, "whoever says it knows it"
    assert resolve(config, goal=Goal.BASELINE).background.candidates == ()


@pytest.mark.parametrize(("text", "accuracy"), [("99", "99"), ("99.0", "99"), ("99.9", "99.9"), ('"99.9"', "99.9")])
def test_accuracy_is_a_number_or_text(tmp_path: Path, text: str, accuracy: str) -> None:
    config = _read(tmp_path, f'slices = "sim:a30"\n[main]\nbenchmark = "bert"\naccuracy = {text}\n')
    assert resolve(config).main.accuracy == accuracy


def test_default_accuracy_is_the_benchmarks_own() -> None:
    for name, benchmark in BENCHMARKS.items():
        spec = resolve(replace(SIM, main=MainConfig(benchmark=name)))
        assert spec.main.accuracy == benchmark.info.default_accuracy


def test_what_is_said_above_wins_and_the_rest_stays() -> None:
    below = Config(slices="sim:a30", seed=1, lenient=True, main=MainConfig(benchmark="bert", duration="1s"))
    above = Config(seed=0, lenient=False, main=MainConfig(duration="2s"), timing=TimingConfig(grace="1s"))
    assert overlay(below, above) == Config(
        slices="sim:a30",
        seed=0,
        lenient=False,
        main=MainConfig(benchmark="bert", duration="2s"),
        timing=TimingConfig(grace="1s"),
    )
    assert overlay(below, Config()) == below


@pytest.mark.parametrize("name", sorted(SETS))
@pytest.mark.parametrize("main", sorted(BENCHMARKS))
def test_sets_leave_out_the_model_of_main(name: str, main: str) -> None:
    spec = resolve(replace(SIM, main=MainConfig(benchmark=main), background=BackgroundConfig(benchmarks=name)))
    assert not spec.background.explicit
    assert set(spec.background.candidates) == set(SETS[name]) - {main}


def test_set_holds_only_what_offers_the_scenario() -> None:
    spec = resolve(replace(SIM, background=BackgroundConfig(benchmarks="all", scenario="server")))
    assert spec.background.candidates
    assert all("server" in BENCHMARKS[name].info.scenarios for name in spec.background.candidates)


def test_list_is_taken_as_given() -> None:
    spec = resolve(replace(SIM, background=BackgroundConfig(benchmarks=" resnet50, bert ,bert")))
    assert spec.background.explicit
    assert spec.background.candidates == ("resnet50", "bert", "bert")


def test_no_backgrounds() -> None:
    spec = resolve(replace(SIM, background=BackgroundConfig(benchmarks="none")))
    assert spec.background.candidates == ()
    assert not spec.background.explicit


@pytest.mark.parametrize("name", ["singlestream", "SingleStream", "single-stream", "SINGLE_STREAM"])
def test_scenarios_are_read_in_every_usual_spelling(name: str) -> None:
    config = replace(SIM, main=MainConfig(scenario=name), background=BackgroundConfig(scenario="Multi-Stream"))
    spec = resolve(config)
    assert (spec.main.scenario, spec.background.scenario) == ("singlestream", "multistream")
    assert spec.background.candidates == ("ssd-resnet34", "ssd-mobilenet")


@pytest.mark.parametrize("explicit", ["1s", 5000])
def test_explicit_duration_of_backgrounds_lets_them_finish(explicit: str | int) -> None:
    assert resolve(replace(SIM, background=BackgroundConfig(duration=explicit))).drain is Drain.WAIT
    assert resolve(replace(SIM, background=BackgroundConfig(duration="automatic"))).drain is Drain.KILL


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(harness="lodgen"), "--harness 'lodgen' does not exist; did you mean 'loadgen'?"),
        (Config(harness="zzz"), "--harness 'zzz' does not exist. Known: loadgen"),
        (Config(slices="sim:a31"), "did you mean a30?"),
        (Config(main=MainConfig(benchmark="bret")), "bert"),
        (Config(main=MainConfig(benchmark="dlrm", scenario="Single-Stream")), "has no 'singlestream' scenario"),
        (Config(main=MainConfig(accuracy="95")), "95"),
        (Config(main=MainConfig(duration="soon")), "--main-benchmark-duration: 'soon' is not a duration"),
        (Config(main=MainConfig(duration=0)), "--main-benchmark-duration is 0, and must be at least 1 ms"),
        (Config(main=MainConfig(duration=-5)), "-5 is not a duration"),
        (Config(main=MainConfig(duration="9" * 400 + "h")), "is not a duration"),
        (Config(main=MainConfig(duration=MAX_DURATION_MS + 1)), "must be at most 8784h"),
        (Config(main=MainConfig(target_qps=float("nan"))), "--main-target-qps is nan"),
        (Config(main=MainConfig(target_qps=float("inf"))), "--main-target-qps is inf"),
        (
            Config(background=BackgroundConfig(duration="auto")),
            "--background-benchmark-duration also takes 'automatic'",
        ),
        (Config(background=BackgroundConfig(benchmarks=[])), "--background-benchmarks is empty"),
        (Config(background=BackgroundConfig(benchmarks=" , ")), "--background-benchmarks is empty"),
        (Config(background=BackgroundConfig(benchmarks=["all", "bert"])), "'all' is a set and stands alone"),
        (Config(background=BackgroundConfig(benchmarks="bert,none")), "'none' is a set and stands alone"),
        (Config(background=BackgroundConfig(benchmarks="dlmr")), "dlrm"),
        (Config(sample_period="99ms"), "--sample-period is 99ms, and must be at least 100 ms"),
        (Config(timing=TimingConfig(grace="x")), "--grace: 'x'"),
        (Config(main=MainConfig(runargs="'open")), "--main-benchmark-runargs cannot be split (no closing quotation)"),
        (Config(main=MainConfig(cmd_prefix=["a\nb"])), "--main-benchmark-cmd-prefix holds a line break"),
        (Config(main=MainConfig(runargs="--benchmarks=bert")), "say it with --main-benchmark"),
        (Config(background=BackgroundConfig(runargs="--test_mode=AccuracyOnly")), "runargs of [background] hold"),
        (Config(main=MainConfig(mode=Mode.PERFORMANCE, runargs="--test_mode=AccuracyOnly")), "leave one out"),
        (Config(main=MainConfig(slice="\udcff")), "'\\udcff' is no text in UTF-8"),
        (Config(main=MainConfig(runargs="--x=\udcff")), "'--x=\\udcff' is no text in UTF-8"),
        (Config(harness="command"), "[command.<name>]"),
        (Config(runs_dir="\udcff"), "--runs-dir is '\\udcff', which is no path in UTF-8"),
        (Config(engines_dir="a\0b"), "--engines-dir is 'a\\x00b'"),
    ],
)
def test_refusals(config: Config, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(overlay(SIM, config))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slises = 1", "no key 'slises'"),
        ("slises = 1", "did you mean 'slices'?"),
        ("[main]\nbenchmrk = 1", "no key 'benchmrk' in table [main] of"),
        ("[timing]\ngraze = 1", "did you mean 'grace'?"),
        ("[background]\nxyzzy = 1", "Known: benchmarks, scenario, duration, timeout"),
        ("[mian]\n", "did you mean 'main'?"),
        ("main = 1", "main"),
        ("[command.x]\nargw = 'y'", "argw"),
        ("[command.x]\nstart = 'y'", "argv"),
        ("[[systems]]\ngpu = 'H100'", "benchmarks"),
        ("[[systems]]\ngpu = 'H100'\nbenchmarks = ['bert']", "$.systems[0].benchmarks"),
        ("[main]\naction = 'run_audit_test06'", "$.main.action"),
        ("seed = 'x'", "$.seed"),
        ("drain = 'never'", "$.drain"),
        ("[main]\ntarget-qps = 0", "$.main.target-qps"),
        ("seed = ", "is not TOML"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "is not TOML"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, text)
    assert words in str(caught.value)
    assert "config.toml" in str(caught.value)


def test_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_config(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not TOML"):
        read_config(tmp_path / "binary.toml")


def _durations(most_ms: int = MAX_DURATION_MS) -> st.SearchStrategy[Duration | None]:
    """A number or text of milliseconds, or nothing."""
    numbers = st.integers(1, most_ms)
    return st.one_of(st.none(), numbers, numbers.map("{}ms".format), numbers.map(" {} ms ".format))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
PATHS = TEXT.filter(bool)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", fullmatch=True)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"))
"""What can be an argument of make."""
SPELT = {
    "offline": ["offline", "Offline"],
    "server": ["server", "SERVER"],
    "singlestream": ["singlestream", "SingleStream", "single_stream"],
    "multistream": ["MultiStream", "multi-stream"],
}


def _arguments(words: st.SearchStrategy[list[str]]) -> st.SearchStrategy[str | list[str] | None]:
    """Nothing, a list, or text that a shell would split into that list."""
    return st.none() | words | words.filter(bool).map(shlex.join)


def _own_arguments() -> st.SearchStrategy[str | list[str] | None]:
    """Of the user for NVIDIA's tree, but none that heteromig writes itself."""
    ours = ("--benchmarks", "--scenarios", "--config_ver", "--min_duration", "--action", "--audit_test", "--test_mode")
    return _arguments(st.lists(WORDS.filter(lambda word: word.partition("=")[0] not in ours), max_size=4))


SYSTEMS = st.builds(
    SystemConfig,
    gpu=TEXT,
    benchmarks=st.dictionaries(
        st.sampled_from(["resnet50", "bert", "gptj", "a_b.c"]),
        st.lists(st.sampled_from([name for names in SPELT.values() for name in names]), max_size=3),
        max_size=3,
    ),
)


@st.composite
def commands(draw: st.DrawFn) -> CommandConfig:
    """Any program."""
    plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0{}"))
    word = plain | st.sampled_from(["{slice}", "--s={duration_s}", "{{literal}}", "{directory}/out"])
    result = draw(st.sampled_from([None, r"^p99=(?P<p99>\S+)$"]))
    conditions: list[str | list[str] | None] = [None, "p99 <= 15", ["p99 <= 15", "p99 > 0.5"]]
    return CommandConfig(
        argv=draw(_arguments(st.lists(word, max_size=3).map(lambda rest: ["./run me", *rest])).filter(bool)) or "run",
        model=draw(st.none() | TEXT.filter(bool)),
        scenarios=draw(st.sampled_from([None, ["offline"], ["Offline", "SingleStream"], ["offline", "batch8"]])),
        env=draw(
            st.none() | st.dictionaries(plain.filter(lambda name: name != "" and "=" not in name), word, max_size=3)
        ),
        cwd=draw(st.none() | word.filter(bool)),
        start=draw(st.sampled_from(["^start$", "läuft|runs", '"\\d+"'])),
        end=draw(st.sampled_from([None, "^end$"])),
        result=result,
        valid_when=draw(st.sampled_from(conditions)) if result else None,
        clean_stop=draw(st.sampled_from([None, "TERM", "sigint"])),
        loadgen_logs=draw(st.sampled_from([None, ".", "logs/here"])),
    )


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any configuration that can be run."""
    kind = draw(st.sampled_from([None, "loadgen", "make", "command"]))
    names = st.sampled_from(["a", "b-2", "3.x", "Q+_"])
    base = Config(
        harness=kind,
        harness_dir=draw(st.none() | PATHS) if kind == "make" else None,
        systems=draw(st.none() | st.lists(SYSTEMS, max_size=3)) if kind == "make" else None,
        command=draw(st.dictionaries(names, commands(), min_size=1, max_size=3)) if kind == "command" else None,
    )
    harness_name, options = _harness_options(base)
    harness = HARNESSES[harness_name](options)
    infos = {info.name: info for info in harness.catalog() if info.scenarios}
    info = infos[draw(st.sampled_from(sorted(infos)))]
    scenario = draw(st.sampled_from(info.scenarios))
    beside = st.sampled_from([name for name, one in infos.items() if "offline" in one.scenarios])
    mode = draw(st.none() | st.sampled_from(Mode))
    own = draw(_own_arguments())
    if mode is not Mode.PERFORMANCE and draw(st.booleans()):
        own = [*(own if isinstance(own, list) else []), "--test_mode=AccuracyOnly"]
    slices = draw(st.sampled_from(["mig", "gpu", "mps:7x14", "sim:a30", "sim:a30/2x2g.12gb", "sim:a100-sxm-80gb"]))
    return replace(
        base,
        slices=slices,
        layout=draw(st.sampled_from([None, "7x1g.10gb", "of mine.yaml:x", "/lay outs.json:ä"]))
        if slices not in {"gpu", "mps:7x14"}
        else None,
        enable_mig_mode=draw(st.none() | st.booleans()),
        gpu=draw(st.none() | st.integers(0, 7) | TEXT),
        start_from_device=draw(st.none() | st.booleans()),
        verbose=draw(st.none() | st.booleans()),
        verbose_all=draw(st.none() | st.booleans()),
        start_evidence=draw(st.none() | st.sampled_from(EvidenceLevel)),
        drain=draw(st.none() | st.sampled_from(Drain)),
        seed=draw(st.none() | st.integers(-(2**31), 2**31)),
        pin=draw(st.none() | st.booleans()),
        lenient=draw(st.none() | st.booleans()),
        rebuild=draw(st.none() | st.booleans()),
        sample_period=draw(st.none() | st.integers(100, 10_000)),
        runs_dir=draw(st.none() | PATHS),
        engines_dir=draw(st.none() | PATHS),
        main=MainConfig(
            benchmark=info.name,
            scenario=draw(st.sampled_from(SPELT.get(scenario, [scenario]))),
            mode=mode,
            accuracy=draw(st.sampled_from([None, *info.accuracies])),
            duration=draw(_durations()),
            target_qps=draw(st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False)),
            action=draw(st.none() | st.sampled_from(Action)),
            config_ver=draw(st.none() | NAMES),
            runargs=own,
            cmd_prefix=draw(_arguments(st.lists(WORDS, max_size=3))),
            immediate_start=draw(st.none() | st.booleans()),
            slice=draw(st.none() | st.integers(0, 7) | TEXT),
        ),
        background=BackgroundConfig(
            benchmarks=draw(
                st.sampled_from([None, "none", *harness.sets()])
                | st.lists(beside, min_size=1, max_size=5).map(",".join)
            ),
            duration=draw(st.one_of(_durations(), st.just("automatic"))),
            timeout=draw(_durations()),
            config_ver=draw(st.none() | NAMES),
            runargs=draw(_own_arguments()),
        ),
        timing=TimingConfig(
            start_time_buffer=draw(_durations()), main_timeout=draw(_durations()), grace=draw(_durations())
        ),
    )


@given(configs(), st.sampled_from(Goal))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_resolved_configuration_tells_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, config: Config, goal: Goal
) -> None:
    try:
        spec = resolve(config, goal=goal)
    except UsageError as error:
        assume("--background-benchmark-timeout" not in str(error))
        raise
    assert _again(tmp_path_factory.getbasetemp(), spec) == spec
    assert msgspec.json.decode(msgspec.json.encode(spec), type=RunSpec) == spec


def test_an_empty_layout_is_no_layout_that_was_asked_for() -> None:
    with pytest.raises(UsageError, match="--layout is empty"):
        resolve(replace(SIM, layout=" "))


def test_a_layout_is_for_mig_slices() -> None:
    spec = resolve(replace(SIM, layout="2x2g.12gb", enable_mig_mode=True))
    assert (spec.preparation, spec.layout, spec.enable_mig_mode) == (Preparation.LAYOUT, "2x2g.12gb", True)
    assert resolve(SIM).preparation is None
    assert resolve(replace(SIM, slices="mig", layout="7x1g.10gb")).preparation is Preparation.LAYOUT
    for slices, words in (("gpu", "use --slices mig"), ("mps:7x14", "leave one of them out")):
        with pytest.raises(UsageError, match=words):
            resolve(replace(SIM, slices=slices, layout="7x1g.10gb"))
    with pytest.raises(UsageError, match="has a NUL in it"):
        resolve(replace(SIM, layout="a\0.yaml:b"))


def test_a_file_of_layouts_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(replace(SIM, layout="layouts.yaml:mixed")).layout == f"{tmp_path}/layouts.yaml:mixed"


@pytest.mark.parametrize("name", ["a\x7fb", 'a"b\\c', "a\nb", "grüße 🙂", "#[x]"])
def test_strange_paths_survive_toml(tmp_path: Path, name: str) -> None:
    spec = resolve(replace(SIM, runs_dir=name))
    assert _again(tmp_path, spec) == spec


def test_a_baseline_is_the_same_run_with_nothing_beside_it() -> None:
    config = Config(slices="sim:a30", harness="loadgen", background=BackgroundConfig(benchmarks="bert,dlrm"))
    run, alone = resolve(config), resolve(config, goal=Goal.BASELINE)
    assert run.background.candidates == ("bert", "dlrm")
    assert alone.background.candidates == ()
    assert (alone.main, alone.timing, alone.slices, alone.pin) == (run.main, run.timing, run.slices, run.pin)
