from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.benchmarks.catalog import BENCHMARKS, SETS
from heteromig.core.errors import UsageError
from heteromig.core.phases import EvidenceLevel
from heteromig.core.spec import Drain, Goal, Mode, RunSpec
from heteromig.runner.config import (
    MAX_DURATION_MS,
    BackgroundConfig,
    Config,
    Duration,
    MainConfig,
    TimingConfig,
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


def test_defaults() -> None:
    spec = resolve(SIM)
    assert spec.goal is Goal.RUN
    assert (spec.main.benchmark, spec.main.scenario, spec.main.mode) == ("resnet50", "offline", Mode.PERFORMANCE)
    assert spec.main.duration_ms == 600_000
    assert spec.main.target_qps is None
    assert spec.background.benchmarks == "all"
    assert spec.background.duration_ms is None
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


PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
NAMES = st.sampled_from(sorted(BENCHMARKS))


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any configuration that can be run."""
    name = draw(NAMES)
    info = BENCHMARKS[name].info
    return Config(
        slices=draw(st.sampled_from(["mig", "gpu", "mps:7x14", "sim:a30", "sim:a30/2x2g.12gb", "sim:a100-sxm-80gb"])),
        harness=draw(st.sampled_from([None, "loadgen"])),
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
            benchmark=name,
            scenario=draw(st.sampled_from([None, *info.scenarios])) if "offline" in info.scenarios else "server",
            mode=draw(st.none() | st.sampled_from(Mode)),
            accuracy=draw(st.sampled_from([None, *info.accuracies])),
            duration=draw(_durations(MAX_DURATION_MS // 4)),
            target_qps=draw(st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False)),
        ),
        background=BackgroundConfig(
            benchmarks=draw(
                st.sampled_from([None, "none", *SETS]) | st.lists(NAMES, min_size=1, max_size=5).map(",".join)
            ),
            duration=draw(st.one_of(_durations(), st.just("automatic"))),
            timeout=draw(_durations()),
        ),
        timing=TimingConfig(
            start_time_buffer=draw(_durations()), main_timeout=draw(_durations()), grace=draw(_durations())
        ),
    )


@given(configs(), st.sampled_from(Goal))
def test_resolved_configuration_tells_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, config: Config, goal: Goal
) -> None:
    spec = resolve(config, goal=goal)
    assert _again(tmp_path_factory.getbasetemp(), spec) == spec


@pytest.mark.parametrize("name", ["a\x7fb", 'a"b\\c', "a\nb", "grüße 🙂", "#[x]"])
def test_strange_paths_survive_toml(tmp_path: Path, name: str) -> None:
    spec = resolve(replace(SIM, runs_dir=name))
    assert _again(tmp_path, spec) == spec
