"""How runs in NVIDIA's tree come out: each of its harnesses misbehaves in a way of its own, and gets a code for it."""

from __future__ import annotations

import functools
import re
import signal
from pathlib import Path

import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.logs.detail import read_detail
from tests.e2e.nvidia import QUICK, StartInTree, of_role, run_args
from tests.e2e.product import processes_with, until
from tests.nvidia_tree.tree import plant, workload

LONG = "--main_benchmark_duration=60000"


@pytest.fixture
def start(in_tree: StartInTree) -> StartInTree:
    """Main for 0.7 s beside one background, unless an option says otherwise."""
    return functools.partial(in_tree, *QUICK)


def detail(folder: Path) -> Path:
    (path,) = folder.glob("logs/*/*/*/mlperf_log_detail.txt")
    return path


# --- main -------------------------------------------------------------------------------------------------------------


def test_main_that_is_invalid(start: StartInTree) -> None:
    command = start(STANDIN_MAIN="invalid")
    record = command.ends(3, "Main resnet50 is not VALID", "the run was shorter than min_duration")
    assert record.overlap.proven
    assert of_role(record, "main")[0].exit_code == 0


def test_main_that_stays_when_all_is_said(start: StartInTree) -> None:
    command = start("--main-exit-timeout=500ms", STANDIN_MAIN="hang-after-result")
    command.ends(5, "Main was still alive 0.5 s after its timed section")


def test_main_that_crashes(start: StartInTree) -> None:
    command = start(LONG, STANDIN_MAIN="crash", STANDIN_AFTER_MS="100")
    command.ends(5, "Main 0 (resnet50) exited with status 2 during main-running", "run_harness] Error 1")


def test_main_on_a_system_that_the_tree_does_not_know(start: StartInTree) -> None:
    command = start(STANDIN_MAIN="unknown-system")
    record = command.ends(5, "Main 0 (resnet50) exited with status 2", "see workers/0-main-resnet50/stdout.log")
    assert "did not match any known systems" in (command.run_dir / "workers/0-main-resnet50/stdout.log").read_text()
    assert not record.overlap.proven


def test_a_compliance_test_on_a_system_that_the_tree_does_not_know(start: StartInTree) -> None:
    # Its driver does nothing, and says that all went well.
    command = start("--main_action=run_audit_test05", STANDIN_MAIN="unknown-system")
    command.ends(9, "It left no LoadGen log of resnet50 offline: the tree may not know this system or hetero")


def test_accuracy_that_is_reached(start: StartInTree) -> None:
    command = start("--main_benchmark_runargs=--test_mode=AccuracyOnly")
    record = command.ends(0)
    main = of_role(record, "main")[0]
    assert main.mode == "accuracy"
    assert main.metrics == {"accuracy": 76.032, "accuracy_threshold": 75.695}
    assert {path.name for path in (command.run_dir / main.directory / "logs").iterdir()} > {"accuracy_summary.json"}


def test_accuracy_that_is_missed(start: StartInTree) -> None:
    command = start("--main-mode", "accuracy", STANDIN_MAIN="accuracy-fails")
    command.ends(3, "Main resnet50 is not VALID, its accuracy is too low", "exited with status 2")
    assert run_args(command.launched[-1])[-1] == "--test_mode=AccuracyOnly"


# --- compliance tests -------------------------------------------------------------------------------------------------


AUDITS = (
    # action, habit, exit code, and what the reason says
    ("run_audit_test01", "good", 0, ""),
    ("run_audit_test01", "audit-redeemed", 0, ""),
    ("run_audit_test01", "audit-fails", 3, "TEST01/verify_performance.txt does not say TEST PASS"),
    ("run_audit_test04", "good", 0, ""),
    ("run_audit_test05", "audit-fails", 3, "TEST05/verify_performance.txt does not say TEST PASS"),
)


def test_compliance(start: StartInTree) -> None:
    commands = [start(f"--main_action={action}", apart=True, STANDIN_MAIN=habit) for action, habit, _, _ in AUDITS]
    for command, (action, _, exit_code, words) in zip(commands, AUDITS, strict=True):
        record = command.ends(exit_code, words)
        assert record.overlap.proven
        test = action.removeprefix("run_audit_").upper()
        place = command.run_dir / of_role(record, "main")[0].directory / "logs" / test
        place /= workload("resnet50", "Offline").directory
        # The same log lies there twice, as the driver's verification leaves it.
        copy = place / test / "performance" / "run_1" / "mlperf_log_detail.txt"
        assert copy.read_bytes() == (place / "mlperf_log_detail.txt").read_bytes()
        assert read_detail(copy).valid is (action != "run_audit_test04")
        assert (place / test / "verify_performance.txt").exists()


def test_compliance_is_judged_by_the_last_trial_and_backgrounds_outlast_all(start: StartInTree) -> None:
    command = start("--main_action=run_audit_test01", STANDIN_MAIN="audit-second-trial")
    record = command.ends(0)
    trials = re.findall(
        r"^TEST01 trial (\d)$", (command.run_dir / "workers/0-main-resnet50/stdout.log").read_text(), re.MULTILINE
    )
    assert trials == ["1", "2"]
    began = [event.at_ns for event in command.heard(ev.TimedSectionBegan) if event.worker == 0]
    ended = [event.at_ns for event in command.heard(ev.TimedSectionEnded) if event.worker == 0]
    assert len(began) == len(ended) == 2
    (background,) = (event for event in command.heard(ev.TimedSectionBegan) if event.worker == 1)
    still = max(event.at_ns for event in command.heard(ev.StillTimed) if event.worker == 1)
    assert background.at_ns < began[0] < ended[0] < began[1] < ended[1] < still
    assert record.overlap.proven


def test_an_old_test04_has_two_halves(start: StartInTree, tmp_path: Path) -> None:
    tree = plant(tmp_path, version="v2.0", with_engines=True)
    command = start("--main_action=run_audit_test04", tree=tree)
    record = command.ends(0)
    logs = command.run_dir / of_role(record, "main")[0].directory / "logs"
    assert sorted(path.name for path in logs.iterdir()) == ["TEST04-A", "TEST04-B"]


# --- backgrounds ------------------------------------------------------------------------------------------------------


def test_backgrounds_that_do_not_outlast_main(start: StartInTree) -> None:
    early = start(LONG, apart=True, STANDIN_BACKGROUND="early-exit")
    lingering = start(LONG, "--background_benchmark_duration=1000", apart=True, STANDIN_BACKGROUND="hang-after-result")
    crashing = start(LONG, apart=True, STANDIN_BACKGROUND="crash")
    record = early.ends(4, "Background 1 (bert) left its timed section before main did")
    assert of_role(record, "main")[0].stopped_by is not None
    # What main had logged until it was stopped is kept as well.
    assert detail(early.run_dir / "workers/0-main-resnet50").exists()
    # Its process is there yet, and keeps nothing busy.
    lingering.ends(4, "Background 1 (bert) left its timed section before main did: it was asked for 1.0 s")
    crashing.ends(5, "Background 1 (bert) exited with status 2")
    assert "illegal memory access" in (crashing.run_dir / "workers/1-background-bert/stdout.log").read_text()


def test_background_that_crashes_before_its_marker(start: StartInTree) -> None:
    command = start(STANDIN_BERT="crash-early")
    record = command.ends(5, "Background 1 (bert) exited with status 2 during background-starting")
    assert Phase.MAIN_RUNNING not in command.phases
    assert of_role(record, "main")[0].pid is None
    assert [launch.goal for launch in command.launched] == ["run_harness"]


def test_lenient_run_goes_on_without_a_background_that_crashed(start: StartInTree) -> None:
    command = start("--lenient", "--background_benchmarks=bert,rnnt", STANDIN_RNNT="crash-early")
    record = command.ends(0, "Background 2 (rnnt) exited with status 2")
    assert record.verdict is not None
    assert record.verdict.status == "lenient"
    assert not record.overlap.proven
    assert "LENIENT (exit 0)" in command.finish().stdout


def test_markers_come_before_the_timed_section_and_do_not_count(start: StartInTree) -> None:
    slow = {"apart": True, "STANDIN_BACKGROUND": "slow-start"}
    patient = start(**slow, STANDIN_LOAD_MS="1500")
    impatient = start("--background-start-timeout=4s", **slow, STANDIN_LOAD_MS="60000")
    gullible = start("--start-evidence=announced", **slow, STANDIN_LOAD_MS="60000")

    patient.ends(0)
    announced, timed = patient.wait_for(ev.StartAnnounced, 1), patient.wait_for(ev.TimedSectionBegan, 1)
    assert timed.at_ns - announced.at_ns > 1_000_000_000
    assert patient.wait_for(ev.WorkerSpawned, 0).at_ns > timed.at_ns

    missing = "still missing background 1 (bert)"
    impatient.ends(6, f"Not every background was in its timed section within 4.0 s: {missing}")
    assert [event.worker for event in impatient.heard(ev.StartAnnounced)] == [1]
    assert list(impatient.heard(ev.TimedSectionBegan)) == []

    # Where markers are said to count, main runs, and beside a background that only loads.
    gullible.ends(4, "Background 1 (bert): ", "has no generated_query_count, so its timed section never began")
    assert Phase.MAIN_RUNNING in gullible.phases


def test_background_that_ignores_term(start: StartInTree) -> None:
    command = start("--grace=300ms", STANDIN_BACKGROUND="ignores-term")
    record = command.ends(0)
    assert [worker.stopped_by for worker in of_role(record, "background")] == ["KILL"]


def test_chatty_backgrounds(start: StartInTree) -> None:
    command = start("--background_benchmarks=bert,resnet50", STANDIN_BACKGROUND="chatty")
    record = command.ends(0)
    for background in of_role(record, "background"):
        text = (command.run_dir / background.directory / "stdout.log").read_text()
        assert len(re.findall(r"x{100,}$", text, re.MULTILINE)) > 20
        assert len(re.findall(r"^\w+ : ", text, re.MULTILINE)) == 60


def test_tritons_words(start: StartInTree) -> None:
    # The marker comes before the timed section, so main waits until that has begun for certain.
    command = start("--background-config-ver=hetero_triton", "--start-evidence=announced", "--start_time_buffer=1500")
    record = command.ends(0)
    assert [launch.goal for launch in command.launched] == ["generate_engines", "run_harness", "run_harness"]
    assert "--config_ver=hetero_triton" in run_args(command.launched[0])
    assert {event.worker for event in command.heard(ev.StartAnnounced)} == {0, 1}
    log = detail(command.run_dir / of_role(record, "background")[0].directory)
    assert log.parents[2].name.endswith("_TRT_Triton")


# --- the end ----------------------------------------------------------------------------------------------------------


def test_slack_after_main_where_backgrounds_are_waited_for(start: StartInTree) -> None:
    asked = "--background_benchmark_duration=5000"
    enough = start(asked, "--end_time_buffer_min=100ms", "--drain=wait", apart=True)
    too_little = start(asked, "--end_time_buffer_min=30000", "--drain=wait", apart=True)
    by_itself = start(asked, "--end_time_buffer_min=0", apart=True)  # an explicit duration means waiting
    for command, exit_code, words in (
        (enough, 0, ""),
        (too_little, 4, "less than --end-time-buffer-min (30 s)"),
        (by_itself, 0, ""),
    ):
        record = command.ends(exit_code, words)
        (background,) = of_role(record, "background")
        assert (background.exit_code, background.stopped_by) == (0, None)
        assert read_detail(detail(command.run_dir / background.directory)).valid


def test_the_same_benchmark_on_every_slice(start: StartInTree, tmp_path: Path) -> None:
    tree = plant(tmp_path, system="A30-MIG_1x1g.6gb", with_engines=True)
    command = start("--slices=sim:a30", "--background_benchmarks=resnet50,resnet50,resnet50", tree=tree)
    record = command.ends(0)
    assert {worker.benchmark for worker in record.workers} == {"resnet50"}
    assert len({launch.cuda_visible_devices for launch in command.launched}) == 4
    assert len({launch.log_dir for launch in command.launched}) == 4
    assert len({launch.cwd for launch in command.launched}) == 4


def test_interrupted_runs_leave_no_shadow(start: StartInTree) -> None:
    commands = {signum: start(LONG, apart=True) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum, command in commands.items():
        command.wait_for(ev.TimedSectionBegan, 0)
        (shadow,) = command.run_dir.glob("workers/*/tree")
        assert (shadow / "Makefile").is_symlink()
        command.send(signum)
        command.ends(128 + signum)
        assert detail(command.run_dir / "workers/1-background-bert").exists()


def test_a_controller_that_is_killed_leaves_shadows_and_nothing_that_runs(
    start: StartInTree, nvidia_tree: Path
) -> None:
    command = start(LONG)
    command.wait_for(ev.TimedSectionBegan, 0)
    command.send(signal.SIGKILL)
    command.process.wait()
    until(lambda: not processes_with(str(command.home)), "the end of all")
    # Links, and nothing in them; whoever removes the run directory removes no more than that.
    (shadow,) = command.run_dir.glob("workers/*/tree")
    assert (shadow / "Makefile").readlink() == nvidia_tree / "Makefile"
    verification = command.verify_without_tree()
    assert (verification.verdict.status, verification.verdict.exit_code) == ("inconclusive", 9)


# --- builds -----------------------------------------------------------------------------------------------------------


def test_builds_that_fail(start: StartInTree, tmp_path: Path) -> None:
    tree = plant(tmp_path)
    alone = "--background_benchmarks=none"
    for habit, words in {
        "build-fails": ("exited with status 2 during building", "generate_engines] Error 1"),
        "no-engine": ("exited 0, but its engine is not usable: There is no .plan of hetero for 1g.10gb"),
        "unknown-system": ("exited 0, but its engine is not usable: There is no .plan of hetero for 1g.10gb"),
    }.items():
        command = start(alone, tree=tree, STANDIN_BUILD=habit)
        command.ends(5, *((words,) if isinstance(words, str) else words))
        assert [launch.goal for launch in command.launched] == ["generate_engines"]
    # Half an engine of the build that failed would not be taken for one.
    half = tree / workload("resnet50", "Offline").engine_files[0]
    start(alone, tree=tree, STANDIN_BUILD="build-fails").ends(5)
    half.parent.mkdir(parents=True)
    half.write_text("half")
    command = start(alone, tree=tree)
    command.ends(0)
    assert [launch.goal for launch in command.launched] == ["generate_engines", "run_harness"]
    assert half.read_text() != "half"
