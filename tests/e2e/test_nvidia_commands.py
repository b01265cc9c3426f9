"""The commands of the HeteroMIG document, with `heteromig run` for the script: what is launched, and what it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from heteromig.core import events as ev
from tests.e2e.conftest import Say
from tests.e2e.nvidia import QUICK, StartInTree, TreeCommand, of_role, run_args
from tests.nvidia_tree.tree import Launch, plant, workload

SHORT = ("--main_benchmark_duration=1200", "--start_time_buffer=300")
"""Instead of the document's 600000 for both."""

COMMON = ("--background_benchmarks=datacenter", "--main_benchmark=ssd-resnet34", "--main_scenario=server")
DOCUMENT: dict[str, tuple[tuple[str, ...], str, str]] = {
    "run": (("--main_action=run_harness", *COMMON), "run_harness", ""),
    "accuracy": (
        ("--main_action=run_harness", *COMMON, "--main_benchmark_runargs=--test_mode=AccuracyOnly"),
        "run_harness",
        " --test_mode=AccuracyOnly",
    ),
    "audit": (("--main_action=run_audit_test01", *COMMON), "run_audit_test01", ""),
}
"""Options, and main's target with what is at the end of its RUN_ARGS."""

BUILDS = [
    "--scenarios=offline,server --benchmarks=resnet50,ssd-resnet34,bert,rnnt --config_ver=hetero",
    "--scenarios=offline --benchmarks=dlrm,3d-unet --config_ver=hetero_high_accuracy",
]
DATACENTER = {"resnet50", "bert", "dlrm", "rnnt", "3d-unet"}
PRINTED = re.compile(
    r"^cd (?P<cwd>\S+) &&\nCUDA_VISIBLE_DEVICES=(?P<slice>\S+) LOG_DIR=(?P<log_dir>\S+) "
    r"make (?P<goal>\S+) RUN_ARGS='(?P<run_args>[^']*)'$",
    re.MULTILINE,
)
Command = tuple[str, str, str, str, str]
"""Working directory, slice, LOG_DIR, target, RUN_ARGS."""


def printed(text: str) -> list[Command]:
    return [
        (match["cwd"].strip("'"), match["slice"], match["log_dir"].strip("'"), match["goal"], match["run_args"])
        for match in PRINTED.finditer(text)
    ]


def launched(command: TreeCommand) -> list[Command]:
    """The same of what was launched, each command once though an audit starts the driver twice."""
    name = command.run_dir.name
    found = [
        (
            str(one.cwd).replace(name, "<run>"),
            one.cuda_visible_devices or "",
            re.sub(r"build/logs/.*", "build/logs/<run>", (one.log_dir or "").replace(name, "<run>")),
            one.goal,
            one.run_args or "",
        )
        for one in command.launched
    ]
    return list(dict.fromkeys(found))


def in_tree_and_below(tree: Path) -> dict[str, bytes]:
    """Every file of a tree but engines, logs, runs, and what Python compiled."""
    left_out = {"engines", "logs", "runs", "__pycache__"}
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and not left_out & set(path.relative_to(tree).parts)
    }


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree without engines, in which the commands of the document are given one after another."""
    return plant(tmp_path_factory.mktemp("documented"))


@pytest.mark.parametrize("name", DOCUMENT)
def test_documented_commands_launch_what_a_dry_run_prints(in_tree: StartInTree, documented: Path, name: str) -> None:
    options, target, own = DOCUMENT[name]
    dry = in_tree(*options, *SHORT, "--dryrun", tree=documented)
    finished = dry.finish()
    assert finished.exit_code == 0, finished.stderr
    assert dry.launched == []
    logs = set((documented / "build" / "logs").iterdir())
    is_built = any((documented / "build" / "engines").rglob("*.plan"))

    command = in_tree(*options, *SHORT, tree=documented)
    record = command.ends(0)
    # Main's log directory is there to be read off its files, and the dry run does not know the time.
    assert sorted(printed(finished.stdout)) == sorted(launched(command))

    builds = [one for one in launched(command) if one[3] == "generate_engines"]
    backgrounds, main = launched(command)[len(builds) : -1], launched(command)[-1]
    assert [one[4] for one in builds] == ([] if is_built else BUILDS)
    assert {one[1] for one in builds} <= {main[1]}
    assert main[3:] == (
        target,
        f"--benchmarks=ssd-resnet34 --scenarios=server --config_ver=hetero --min_duration=1200{own}",
    )
    assert main[0] == str(documented)
    assert len(backgrounds) == 6
    (duration_ms,) = {
        word.partition("=")[2] for one in backgrounds for word in one[4].split() if "min_duration" in word
    }
    assert int(duration_ms) > 60_000  # enough to outlast main, whatever that takes
    assert {one[3] for one in backgrounds} == {"run_harness"}
    assert sorted(one[4] for one in backgrounds) == sorted(
        f"--benchmarks={worker.benchmark} --scenarios=offline --config_ver={worker.config_ver} "
        f"--min_duration={duration_ms} --min_query_count=1"
        for worker in of_role(record, "background")
    )
    assert {worker.benchmark for worker in of_role(record, "background")} == DATACENTER
    assert {worker.benchmark for worker in of_role(record, "background") if "high" in worker.config_ver} == {
        "dlrm",
        "3d-unet",
    }
    # Each has a slice, a log directory and a working directory of its own.
    for position in (0, 1, 2):
        assert len({one[position] for one in (*backgrounds, main)}) == 7

    # The buffer is a wait that begins when the last background is timed.
    timed = [event.at_ns for event in command.heard(ev.TimedSectionBegan) if event.worker != 0]
    assert len(timed) == 6
    assert command.wait_for(ev.WorkerSpawned, 0).at_ns - max(timed) >= 300_000_000

    # Results are where the original puts them.
    new = set((documented / "build" / "logs").iterdir()) - logs
    place = workload("ssd-resnet34", "Server").directory
    if name == "audit":
        assert new == set()
        assert (documented / "build" / "compliance_logs" / "TEST01" / place / "mlperf_log_detail.txt").exists()
    else:
        (log_dir,) = new
        assert re.fullmatch(r"\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d-[0-9a-f]{8}", log_dir.name)
        assert {path.name for path in log_dir.iterdir()} == {
            "stdout.txt",
            "perf_harness_summary.json",
            "accuracy_summary.json",
            place.partition("/")[0],
        }
        kept = command.run_dir / "workers" / "0-main-ssd-resnet34" / "logs" / place / "mlperf_log_detail.txt"
        assert kept.read_bytes() == (log_dir / place / "mlperf_log_detail.txt").read_bytes()
    for worker in of_role(record, "background"):
        (log,) = (command.run_dir / worker.directory / "logs").glob(
            f"*/{worker.benchmark}*/Offline/mlperf_log_detail.txt"
        )
        assert b"generated_query_count" in log.read_bytes()


def test_help_names_the_options_of_the_document(say: Say) -> None:
    text = say("run", "--help").finish().stdout
    for option in (
        "--main-benchmark",
        "--main-scenario",
        "--background-benchmarks",
        "--start-time-buffer",
        "--background-benchmark-duration",
    ):
        assert option in text


# --- cross-talk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["run_harness", "run_audit_test01"])
def test_backgrounds_leave_the_tree_as_main_alone_leaves_it(in_tree: StartInTree, tmp_path: Path, action: str) -> None:
    commands = []
    for backgrounds in ("none", "resnet50,bert"):
        home = tmp_path / backgrounds.replace(",", "-")
        home.mkdir()
        tree = plant(home, with_engines=True)
        submitted = tree / "measurements" / workload("bert", "Offline").directory / "user.conf"
        submitted.parent.mkdir(parents=True)
        submitted.write_text("*.Offline.target_qps = 1234\n")
        flags = (*QUICK, f"--background_benchmarks={backgrounds}", f"--main_action={action}")
        commands.append(in_tree(*flags, tree=tree, home=home))
    for command in commands:
        command.ends(0)
    alone, beside = (in_tree_and_below(command.tree) for command in commands)
    # Figures of a run differ, and so do the paths and times in its logs; files that are there do not.
    assert set(beside) == set(alone)
    measurements = {name: text for name, text in alone.items() if name.startswith("measurements/")}
    assert {name: beside[name] for name in measurements} == measurements
    assert b"*.Offline.target_qps = 1234\n" in measurements.values()
    user_conf = beside[f"measurements/{workload('resnet50', 'Offline').directory}/user.conf"]
    assert b"min_duration = 700" in user_conf
    assert b"min_query_count" not in user_conf
    tree = commands[1].tree
    assert len(list((tree / "build" / "logs").iterdir())) == (action == "run_harness")
    logs = {path.parent.parent.name for path in tree.glob("build/*logs/**/mlperf_log_detail.txt")}
    assert "resnet50" in logs
    assert "bert-99" not in logs


def test_a_run_from_below_the_top_of_the_tree(in_tree: StartInTree, tmp_path: Path) -> None:
    tree = plant(tmp_path, with_engines=True)
    command = in_tree(*QUICK, tree=tree / "code")
    record = command.ends(0)
    assert command.run_dir.is_relative_to(tree / "code" / "runs")
    assert of_role(record, "main")[0].env["LOG_DIR"].startswith("build/logs/")
    assert command.launched[-1].cwd == tree


def test_verify_needs_nothing_but_the_run_directory(in_tree: StartInTree, say: Say) -> None:
    command = in_tree(*QUICK, "--background_benchmarks=none")
    command.ends(0)
    moved = command.run_dir.rename(command.home / "elsewhere")
    verified = say("verify", str(moved)).finish()
    assert verified.exit_code == 0, verified.stderr
    assert "VALID" in verified.stdout


# --- what main is told ------------------------------------------------------------------------------------------------


def test_options_of_the_launcher_reach_the_harness(in_tree: StartInTree) -> None:
    command = in_tree(
        *QUICK,
        "--main_benchmark_runargs=--gpu_batch_size=4 --precision 'fp 16'",
        "--main_benchmark_cmd_prefix=env STANDIN_CONFIG_LINES=17",
        "--main_benchmark_immediate_start=True",
        "--start_time_buffer=600000",
        "--verbose_all",
        "--start_from_device",
    )
    record = command.ends(0)
    (background, main) = command.launched
    assert run_args(main)[4:] == [
        *("--start_from_device", "--gpu_batch_size=4", "--precision", "fp 16"),
        *("--verbose", "--verbose_nvtx"),
    ]
    assert run_args(background)[4:] == ["--min_query_count=1", "--start_from_device", "--verbose", "--verbose_nvtx"]
    output = (command.run_dir / of_role(record, "main")[0].directory / "stdout.log").read_text()
    assert re.findall(r"^field_(\d+) : ", output, re.MULTILINE)[-1] == "16"


# --- engines ----------------------------------------------------------------------------------------------------------


def built(command: TreeCommand) -> list[Launch]:
    record = command.ends(0)
    assert record.verdict is not None
    assert record.verdict.status == "built"
    assert {one.goal for one in command.launched} <= {"generate_engines"}
    return command.launched


def config_vers(launches: list[Launch]) -> list[str]:
    return [word.partition("=")[2] for one in launches for word in run_args(one) if word.startswith("--config_ver=")]


def test_engines_are_built_once_and_again_when_somebody_changed_them(in_tree: StartInTree, tmp_path: Path) -> None:
    tree = plant(tmp_path)
    flags = ("--main_benchmark=bert", "--main-accuracy=99.9", "--background_benchmarks=bert,dlrm")
    first = built(in_tree(*flags, command="build", tree=tree))
    assert [one.run_args for one in first] == [
        "--scenarios=offline --benchmarks=bert,dlrm --config_ver=hetero_high_accuracy",
        "--scenarios=offline --benchmarks=bert --config_ver=hetero",
    ]
    assert len({one.cuda_visible_devices for one in first}) == 1
    assert built(in_tree(*flags, command="build", tree=tree)) == []
    low = tree / workload("bert", "Offline").engine_files[0]
    low.write_text("by somebody else")
    assert config_vers(built(in_tree(*flags, command="build", tree=tree))) == ["hetero"]
    assert low.read_text() != "by somebody else"
    again = built(in_tree(*flags, "--rebuild", command="build", tree=tree))
    assert config_vers(again) == ["hetero_high_accuracy", "hetero"]


SYSTEMS = {"1g.10gb": "DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb", "3g.40gb": "DGX-A100_A100-SXM-80GB-MIG_1x3g.40gb"}


def test_each_profile_has_engines_of_its_own(in_tree: StartInTree, tmp_path: Path) -> None:
    tree = plant(tmp_path)
    flags = (
        *QUICK,
        "--slices=sim:a100-sxm-80gb/1g.10gb,3g.40gb,1g.10gb",
        "--background_benchmarks=bert,resnet50",
        "--main-slice=3g.40gb",
    )
    plan = json.loads(in_tree(*flags, "--json", command="plan", tree=tree).finish().stdout)
    profiles = {one["uuid"]: one["profile"] for one in plan["slices"]}
    # As the driver does it: the system is named after the slice that it sees.
    (tree / "systems" / "seen").write_text("".join(f"{uuid} {SYSTEMS[one]}\n" for uuid, one in profiles.items()))
    seen = "$(shell grep $(CUDA_VISIBLE_DEVICES) systems/seen | cut -d' ' -f2)"
    makefile = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(
        re.sub(r"export STANDIN_SYSTEM \?= .*", f"export STANDIN_SYSTEM := {seen}", makefile)
    )
    command = in_tree(*flags, tree=tree)
    record = command.ends(0)
    builds, runs = command.launched[:2], command.launched[2:]
    assert [(profiles[str(one.cuda_visible_devices)], one.run_args) for one in builds] == [
        ("3g.40gb", "--scenarios=offline --benchmarks=resnet50 --config_ver=hetero"),
        ("1g.10gb", "--scenarios=offline --benchmarks=resnet50,bert --config_ver=hetero"),
    ]
    assert [profiles[str(one.cuda_visible_devices)] for one in runs] == ["1g.10gb", "1g.10gb", "3g.40gb"]
    place = of_role(record, "main")[0].directory
    (log,) = (command.run_dir / place / "logs").glob("*/resnet50/Offline/mlperf_log_detail.txt")
    assert log.relative_to(command.run_dir / place / "logs").parts[0] == f"{SYSTEMS['3g.40gb']}_TRT_HeteroMultiUse"


# --- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("board", "slices"), [("a30", 4), ("a100-pcie-80gb", 7), ("a100-sxm-80gb", 7)])
def test_every_system_of_the_document_is_planned_for(in_tree: StartInTree, board: str, slices: int) -> None:
    command = in_tree(f"--slices=sim:{board}", "--background_benchmarks=all", "--dry-run")
    finished = command.finish()
    assert finished.exit_code == 0, finished.stderr
    commands = printed(finished.stdout)
    assert len({one[1] for one in commands}) == slices


def test_a_later_gpu_needs_a_word_of_configuration(in_tree: StartInTree, tmp_path: Path) -> None:
    flags = ("--slices=sim:h100-sxm-80gb", "--background_benchmarks=all", "--dry-run")
    refused = in_tree(*flags).finish()
    assert refused.exit_code == 7
    assert "[[systems]]" in refused.stderr
    config = tmp_path / "h100.toml"
    config.write_text(
        '[[systems]]\ngpu = "H100"\n[systems.benchmarks]\n'
        'resnet50 = ["offline"]\nbert = ["offline", "server"]\ngptj = ["offline"]\n'
    )
    planned = in_tree(*flags, "--config", str(config), "--main_benchmark=gptj").finish()
    assert planned.exit_code == 0, planned.stderr
    # The set is cut to what the GPU has.
    names = {re.findall(r"--benchmarks=(\S+)", one[4])[0] for one in printed(planned.stdout) if one[3] == "run_harness"}
    assert names == {"resnet50", "bert", "gptj"}
