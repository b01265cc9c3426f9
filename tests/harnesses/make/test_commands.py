"""The commands that a plan becomes: what is executed, where, and in which environment."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.phases import EvidenceLevel, Role
from heteromig.core.plan import Assignment
from heteromig.core.spec import Action, Drain, Mode, SystemSpec
from heteromig.harnesses import HARNESSES, HarnessOptions
from heteromig.harnesses.make.harness import MakeHarness
from heteromig.runner.config import BackgroundConfig, Config, MainConfig, SystemConfig
from heteromig.workers.command import Command
from tests.harnesses.make.plans import RUN, Planned
from tests.nvidia_tree.tree import environment, launches, plant


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that nobody writes into."""
    return plant(tmp_path_factory.mktemp("commands"))


def command(planned: Planned, assignment: Assignment) -> Command:
    return planned.harness.command(assignment, planned.spec, planned.run_dir)


def arguments(command: Command) -> list[str]:
    """What the driver gets, of a command that is `make TARGET RUN_ARGS=...`."""
    name, equals, value = command.argv[-1].partition("=")
    assert (name, equals) == ("RUN_ARGS", "=")
    return shlex.split(value)


def test_registered_under_its_name() -> None:
    harness = HARNESSES["make"](HarnessOptions())
    assert isinstance(harness, MakeHarness)
    assert (harness.name, harness.start_time_buffer_ms, harness.uses_gpu) == ("make", 600_000, True)
    assert harness.batches_builds
    assert harness.writes_loadgen_logs


def test_builds_are_one_a_configuration_version(tree: Path) -> None:
    planned = Planned(tree, MainConfig(benchmark="ssd-resnet34", scenario="server"), BackgroundConfig("datacenter"))
    low, high = sorted(planned.builds(), key=lambda build: build.config_ver)
    for build in (low, high):
        found = command(planned, build)
        assert found.argv[:2] == ("make", "generate_engines")
        assert found.cwd == tree
        assert found.env == {
            "CUDA_VISIBLE_DEVICES": planned.main.slice_uuid,
            "LOG_DIR": f"{planned.run_dir}/{build.directory}/logs",
        }
        assert found.clean_stop_signal is None
    assert arguments(command(planned, low)) == [
        "--scenarios=offline,server",
        "--benchmarks=resnet50,ssd-resnet34,bert,rnnt",
        "--config_ver=hetero",
    ]
    assert arguments(command(planned, high)) == [
        "--scenarios=offline",
        "--benchmarks=dlrm,3d-unet",
        "--config_ver=hetero_high_accuracy",
    ]


def test_bert_is_built_for_both_where_both_are_asked_for(tree: Path) -> None:
    planned = Planned(tree, MainConfig(benchmark="bert", accuracy="99.9"), BackgroundConfig("bert,bert"))
    assert [arguments(command(planned, build)) for build in planned.builds()] == [
        ["--scenarios=offline", "--benchmarks=bert", "--config_ver=hetero_high_accuracy"],
        ["--scenarios=offline", "--benchmarks=bert", "--config_ver=hetero"],
    ]


def test_each_profile_is_built_for_on_a_slice_of_it(tree: Path) -> None:
    planned = Planned(tree, background=BackgroundConfig("bert,bert"), slices=3, profiles=("3g.40gb", "1g.10gb"))
    places = [(build.profile, command(planned, build).env["CUDA_VISIBLE_DEVICES"]) for build in planned.builds()]
    assert places == [
        ("3g.40gb", planned.plan.workers[0].slice_uuid),
        ("1g.10gb", planned.plan.workers[1].slice_uuid),
    ]


def test_main_runs_in_the_tree_and_logs_where_the_launcher_does(tree: Path) -> None:
    planned = Planned(tree, MainConfig(benchmark="ssd-resnet34", scenario="Server", duration="10m"))
    log_dir = command(planned, planned.main).env["LOG_DIR"]
    assert re.fullmatch(r"build/logs/2026\.11\.24-00\.25\.20-[0-9a-f]{8}", log_dir)
    assert command(planned, planned.main) == Command(
        argv=(
            "make",
            "run_harness",
            "RUN_ARGS=--benchmarks=ssd-resnet34 --scenarios=server --config_ver=hetero --min_duration=600000",
        ),
        env={"CUDA_VISIBLE_DEVICES": planned.main.slice_uuid, "LOG_DIR": log_dir},
        cwd=tree,
        clean_stop_signal=None,
    )


def test_log_dirs_of_runs_of_the_same_second_are_apart(tree: Path, tmp_path: Path) -> None:
    planned = Planned(tree)
    runs = [
        planned.run_dir,
        planned.run_dir.with_name(f"{RUN}-2"),
        planned.run_dir.with_name("20261124T002520Z-llama2-70b-server-13"),
        tmp_path / "elsewhere" / RUN,
    ]
    names = set()
    for planned.run_dir in runs:
        names.add(command(planned, planned.main).env["LOG_DIR"])
    assert len(names) == len(runs)
    assert {name.rpartition("-")[0] for name in names} == {"build/logs/2026.11.24-00.25.20"}
    planned.run_dir = planned.run_dir.with_name("<run>")
    assert command(planned, planned.main).env["LOG_DIR"] == "build/logs/<run>"


def test_backgrounds_run_in_shadows_and_log_below_their_own_directories(tree: Path) -> None:
    planned = Planned(
        tree, background=BackgroundConfig("bert,dlrm,bert", duration="45s"), config=Config(start_from_device=True)
    )
    found = [command(planned, background) for background in planned.plan.backgrounds]
    run_args = "--benchmarks={} --scenarios=offline --config_ver={} --min_duration=45000 --min_query_count=1"
    low, high = run_args.format("bert", "hetero"), run_args.format("dlrm", "hetero_high_accuracy")
    assert [one.argv for one in found] == [
        ("make", "run_harness", f"RUN_ARGS={said} --start_from_device") for said in (low, high, low)
    ]
    directories = [
        planned.run_dir / "workers" / f"{name}"
        for name in ("1-background-bert", "2-background-dlrm", "3-background-bert")
    ]
    assert [one.cwd for one in found] == [directory / "tree" for directory in directories]
    assert [one.env for one in found] == [
        {"CUDA_VISIBLE_DEVICES": background.slice_uuid, "LOG_DIR": f"{directory}/logs"}
        for background, directory in zip(planned.plan.backgrounds, directories, strict=True)
    ]
    assert len({planned.main.slice_uuid, *(one.env["CUDA_VISIBLE_DEVICES"] for one in found)}) == 4
    assert arguments(command(planned, planned.main))[-1] == "--start_from_device"


@pytest.mark.parametrize("action", [Action.TEST01, Action.TEST04, Action.TEST05])
def test_compliance_tests_have_targets_of_their_own(tree: Path, action: Action) -> None:
    planned = Planned(tree, MainConfig(action=action, runargs="--offline_expected_qps=5"))
    assert command(planned, planned.main).argv[1] == action.value
    assert arguments(command(planned, planned.main))[-1] == "--offline_expected_qps=5"
    assert {command(planned, one).argv[1] for one in planned.plan.backgrounds} == {"run_harness"}


@pytest.mark.parametrize(
    ("main", "added"),
    [
        (MainConfig(mode=Mode.ACCURACY), ["--test_mode=AccuracyOnly"]),
        (MainConfig(runargs="--test_mode=AccuracyOnly"), ["--test_mode=AccuracyOnly"]),
        (MainConfig(runargs="--test_mode AccuracyOnly"), ["--test_mode", "AccuracyOnly"]),
        (MainConfig(mode=Mode.ACCURACY, runargs="--test_mode=AccuracyOnly --x"), ["--test_mode=AccuracyOnly", "--x"]),
        (MainConfig(mode=Mode.ACCURACY, runargs="--x=--test_mode"), ["--test_mode=AccuracyOnly", "--x=--test_mode"]),
        (MainConfig(mode=Mode.PERFORMANCE), []),
        (MainConfig(runargs=["--fast", "a b", ""]), ["--fast", "a b", ""]),
    ],
)
def test_what_mains_own_arguments_become(tree: Path, main: MainConfig, added: list[str]) -> None:
    planned = Planned(tree, main)
    assert arguments(command(planned, planned.main))[4:] == added
    assert planned.main.mode is (Mode.ACCURACY if "AccuracyOnly" in " ".join(added) else Mode.PERFORMANCE)


@pytest.mark.parametrize(
    ("config", "main", "backgrounds"),
    [
        (Config(verbose=True), ["--verbose", "--verbose_nvtx"], []),
        (Config(verbose_all=True), ["--verbose", "--verbose_nvtx"], ["--verbose", "--verbose_nvtx"]),
        (Config(verbose=False), [], []),
    ],
)
def test_talkative_harnesses(tree: Path, config: Config, main: list[str], backgrounds: list[str]) -> None:
    planned = Planned(tree, config=config)
    assert arguments(command(planned, planned.main))[4:] == main
    for background in planned.plan.backgrounds:
        assert arguments(command(planned, background))[5:] == backgrounds


def test_configuration_versions_may_be_others(tree: Path) -> None:
    planned = Planned(
        tree,
        MainConfig(benchmark="bert", config_ver="default"),
        BackgroundConfig("dlrm,bert", config_ver="hetero_triton", runargs="--gpu_batch_size=7"),
    )
    assert "--config_ver=default" in arguments(command(planned, planned.main))
    for background in planned.plan.backgrounds:
        assert "--config_ver=hetero_triton" in arguments(command(planned, background))
        assert arguments(command(planned, background))[-1] == "--gpu_batch_size=7"
    assert {build.config_ver for build in planned.builds()} == {"default", "hetero_triton"}


def test_a_prefix_goes_before_mains_command_and_no_other(tree: Path) -> None:
    planned = Planned(tree, MainConfig(cmd_prefix="nice -n 5"))
    assert command(planned, planned.main).argv[:5] == ("nice", "-n", "5", "make", "run_harness")
    assert {command(planned, one).argv[0] for one in (*planned.plan.backgrounds, *planned.builds())} == {"make"}


def test_a_make_around_heteromig_is_none_of_the_harness_business(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", " -n --jobserver-auth=3,4 -- RUN_ARGS=else")
    monkeypatch.setenv("MAKELEVEL", "2")
    monkeypatch.delenv("MFLAGS", raising=False)
    planned = Planned(tree)
    env = command(planned, planned.main).env
    assert {name: value for name, value in env.items() if name.startswith("M")} == {"MAKEFLAGS": "", "MAKELEVEL": ""}


AWKWARD = [
    "--a=two words",
    "it's",
    'say "so"',
    "$HOME",
    "$$",
    "$(shell date)",
    "`date`",
    "a\\b",
    "#",
    "*",
    ";ls",
    "",
    "ü",
    "x=%y",
]


@pytest.mark.parametrize("action", [Action.RUN_HARNESS, Action.TEST01])
def test_arguments_arrive_as_they_were_split(tree: Path, tmp_path: Path, action: Action) -> None:
    planned = Planned(tree, MainConfig(action=action, runargs=AWKWARD))
    found = command(planned, planned.main)
    record = tmp_path / "record"
    subprocess.run(
        found.argv,
        cwd=found.cwd,
        env=environment({**found.env, "LOG_DIR": str(tmp_path), "STANDIN_RECORD": str(record)}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # the driver refuses arguments that it does not know
    )
    first = launches(record)[0]
    assert first.goal == action.value
    assert first.cuda_visible_devices == planned.main.slice_uuid
    given = [word for word in first.argv if word.partition("=")[0] not in {"--action", "--audit_test"}]
    assert given[: 4 + len(AWKWARD)] == [*arguments(found)[:4], *AWKWARD]


# --- where logs appear ------------------------------------------------------------------------------------------------


def put_detail(*directories: Path) -> None:
    for directory in directories:
        directory.mkdir(parents=True)
        (directory / "mlperf_log_detail.txt").touch()


def test_logs_of_each_worker_are_looked_for_in_its_own_place(tmp_path: Path) -> None:
    planned = Planned(plant(tmp_path), MainConfig(benchmark="bert"), BackgroundConfig("bert,bert"))
    first, second = planned.plan.backgrounds
    log_dirs = [
        planned.tree / command(planned, planned.main).env["LOG_DIR"],
        *(planned.run_dir / background.directory / "logs" for background in (first, second)),
    ]
    for log_dir in log_dirs:
        put_detail(log_dir / "SYSTEM" / "bert-99" / "Offline", log_dir / "SYSTEM" / "bert-99" / "Server")
    for worker, log_dir in zip(planned.plan.workers, log_dirs, strict=True):
        place = planned.harness.logs(worker, planned.spec, planned.run_dir)
        assert place is not None
        assert place.detail_logs() == [log_dir / "SYSTEM" / "bert-99" / "Offline" / "mlperf_log_detail.txt"]
    assert planned.harness.logs(planned.builds()[0], planned.spec, planned.run_dir) is None


def test_logs_of_a_compliance_test_are_looked_for_without_its_copies(tmp_path: Path) -> None:
    planned = Planned(plant(tmp_path), MainConfig(action=Action.TEST04))
    logs = planned.tree / "build" / "compliance_logs"
    wanted = [logs / test / "SYSTEM" / "resnet50" / "Offline" for test in ("TEST04", "TEST04-A", "TEST04-B")]
    put_detail(*wanted, logs / "TEST05" / "SYSTEM" / "resnet50" / "Offline")
    put_detail(*(place / "TEST04" / "performance" / "run_1" for place in wanted))
    place = planned.harness.logs(planned.main, planned.spec, planned.run_dir)
    assert place is not None
    assert place.detail_logs() == [one / "mlperf_log_detail.txt" for one in wanted]


# --- before and after -------------------------------------------------------------------------------------------------


def test_a_background_gets_a_shadow_and_loses_it(tmp_path: Path) -> None:
    planned = Planned(plant(tmp_path), background=BackgroundConfig("bert"))
    (background,) = planned.plan.backgrounds
    directory = planned.make_directory(background)
    planned.harness.prepare(background, planned.spec, planned.run_dir)
    assert (directory / "tree" / "Makefile").readlink() == planned.tree / "Makefile"
    (directory / "logs").mkdir()
    planned.harness.collect(background, planned.spec, planned.run_dir, started_utc_ns=0, exit_code=None)
    assert [path.name for path in directory.iterdir()] == ["logs"]


def test_a_log_dir_that_somebody_has_is_not_used_again(tmp_path: Path) -> None:
    planned = Planned(plant(tmp_path))
    planned.harness.prepare(planned.main, planned.spec, planned.run_dir)
    (planned.tree / command(planned, planned.main).env["LOG_DIR"]).mkdir()
    with pytest.raises(PreflightError, match=r"00\.25\.20-\w+ is there already, from another run: try again"):
        planned.harness.prepare(planned.main, planned.spec, planned.run_dir)


def test_a_build_that_fails_is_remembered_as_one_that_did_not_succeed(tmp_path: Path) -> None:
    planned = Planned(plant(tmp_path, with_engines=True), background=BackgroundConfig("none"))
    (build,) = planned.builds()
    assert planned.harness.missing_engines(build.builds, planned.spec) == ()
    planned.make_directory(build)
    for exit_code in (2, None, 0):
        planned.harness.prepare(build, planned.spec, planned.run_dir)
        planned.harness.collect(build, planned.spec, planned.run_dir, started_utc_ns=2**62, exit_code=exit_code)
        assert bool(planned.harness.missing_engines(build.builds, planned.spec)) == (exit_code != 0)


# --- what is refused --------------------------------------------------------------------------------------------------


def refusal(planned: Planned) -> str:
    with pytest.raises((UsageError, PreflightError)) as caught:
        planned.harness.preflight(planned.spec)
    return str(caught.value)


def test_good_plans_are_not_refused(tree: Path) -> None:
    (tree.parent / "prefix").touch(0o755)
    for main in (
        MainConfig(),
        MainConfig(mode=Mode.ACCURACY),
        MainConfig(action=Action.TEST04),
        MainConfig(benchmark="bert", action=Action.TEST01),
        MainConfig(cmd_prefix="nice"),
        MainConfig(cmd_prefix="../prefix"),
    ):
        planned = Planned(tree, main)
        planned.harness.preflight(planned.spec)


@pytest.mark.parametrize(
    ("main", "config", "said"),
    [
        (MainConfig(target_qps=7.5), Config(), "--main-target-qps is 7.5, and NVIDIA's tree takes whole rates only"),
        (MainConfig(target_qps=7.0, scenario="singlestream"), Config(), "is the rate of Server or Offline"),
        (MainConfig(target_qps=7.0, mode=Mode.ACCURACY), Config(), "main is offline in accuracy mode"),
        (
            MainConfig(target_qps=7.0, runargs="--offline_expected_qps 8"),
            Config(),
            "holds --offline_expected_qps, and --main-target-qps says the rate",
        ),
        (MainConfig(), Config(start_evidence=EvidenceLevel.BUSY), "choose --start-evidence timed or announced"),
        (MainConfig(action=Action.TEST05, mode=Mode.ACCURACY), Config(), "run_audit_test05 measures performance"),
        (MainConfig(action=Action.TEST04, benchmark="rnnt"), Config(), "TEST04 is not for rnnt"),
        (
            MainConfig(cmd_prefix="no-such-profiler -o x"),
            Config(),
            "begins with 'no-such-profiler', which is no program",
        ),
        (MainConfig(cmd_prefix="./Makefile"), Config(), "begins with './Makefile'"),
        (MainConfig(), Config(runs_dir="with space"), "cannot handle the ' ' in"),
    ],
)
def test_what_the_tree_cannot_do_is_refused(tree: Path, main: MainConfig, config: Config, said: str) -> None:
    assert said in refusal(Planned(tree, main, config=config))


def test_without_a_tree_or_make_nothing_goes(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not NVIDIA's tree" in refusal(Planned(tmp_path))
    (tmp_path / "a b").mkdir()
    assert "cannot handle the ' '" in refusal(Planned(plant(tmp_path / "a b")))
    planned = Planned(tree)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install GNU make" in refusal(planned)


@pytest.mark.parametrize(
    "held", ["--benchmarks=bert", "--min_duration=5", "--test_mode=AccuracyOnly", "--action", "--config_ver=x"]
)
def test_backgrounds_cannot_be_told_otherwise(tree: Path, held: str) -> None:
    with pytest.raises(UsageError, match=r"runargs of \[background\] hold"):
        Planned(tree, background=BackgroundConfig(runargs=f"--fast {held}"))


def test_how_long_main_may_stay_after_its_timed_section(tree: Path) -> None:
    def timeout_ms(main: MainConfig) -> int:
        return Planned(tree, main).spec.timing.main_exit_timeout_ms

    assert timeout_ms(MainConfig()) == 60_000
    for main in (
        MainConfig(mode=Mode.ACCURACY),
        MainConfig(action=Action.TEST01),
        MainConfig(runargs="--test_mode=SubmissionRun"),
    ):
        assert timeout_ms(main) == 30 * 60_000


def test_defaults_of_this_harness(tree: Path) -> None:
    spec = Planned(tree).spec
    assert spec.timing.start_time_buffer_ms == 600_000
    assert (spec.start_evidence, spec.drain) == (EvidenceLevel.TIMED, Drain.KILL)
    assert spec.harness_dir == str(tree)
    assert spec.uses_gpu
    assert Role.BUILD not in {worker.role for worker in Planned(tree).plan.workers}


def test_later_gpus_come_from_the_configuration(tree: Path) -> None:
    config = Config(systems=[SystemConfig(gpu="A100", benchmarks={"resnet50": ["offline"], "gptj": ["Offline"]})])
    planned = Planned(tree, MainConfig(benchmark="gptj", accuracy=99.9), config=config)
    assert planned.spec.systems[0] == SystemSpec(
        gpu="A100", benchmarks=(("resnet50", ("offline",)), ("gptj", ("offline",)))
    )
    assert {worker.benchmark for worker in planned.plan.backgrounds} == {"resnet50"}
    assert arguments(command(planned, planned.main))[:3] == [
        "--benchmarks=gptj",
        "--scenarios=offline",
        "--config_ver=hetero_high_accuracy",
    ]
