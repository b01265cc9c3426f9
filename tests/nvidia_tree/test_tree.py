from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.product import DEADLINE_S, REPOSITORY, processes_with, until
from tests.nvidia_tree.planted.code.catalog import BENCHMARKS, Workload
from tests.nvidia_tree.planted.code.habits import CHATTY_CONFIG_LINES, CHATTY_LINE_BYTES
from tests.nvidia_tree.planted.code.running import logged
from tests.nvidia_tree.tree import (
    SYSTEM,
    VERSIONS,
    Launch,
    environment,
    hetero_workloads,
    launches,
    make,
    plant,
    workload,
    writes,
)

DETAIL = "mlperf_log_detail.txt"
MARKER = re.compile(r"^(?P<prefix>.*)\b(?P<verb>Start|Starting|Finished) running actual test\.?$", re.MULTILINE)
GLOG = r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ main_\w+\.cc:\d+\] "


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with engines, for tests that look only at what is in their own LOG_DIR."""
    return plant(tmp_path_factory.mktemp("shared"), with_engines=True)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A tree with engines that a test has for itself."""
    return plant(tmp_path, with_engines=True)


def run_args(what: Workload, *more: str, config_ver: str = "hetero", duration_ms: int = 100) -> str:
    names = (f"--benchmarks={what.benchmark.name}", f"--scenarios={what.scenario.lower()}")
    return " ".join((*names, f"--config_ver={config_ver}", f"--min_duration={duration_ms}", *more))


def plans(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.glob("build/engines/**/*.plan")}


def engines_of(*workloads: Workload) -> set[str]:
    return {file for one in workloads for file in one.engine_files}


# Builds


@pytest.mark.parametrize(
    ("benchmarks", "config_ver", "files"),
    [
        ("resnet50,ssd-resnet34,bert", "hetero", 6),
        # 3d-unet has no Server.
        ("dlrm,3d-unet,bert", "hetero_high_accuracy", 5),
        ("rnnt", "hetero", 14),
        # The engines of these serve both accuracies.
        ("dlrm,3d-unet", "hetero", 0),
    ],
)
def test_a_build_leaves_an_engine_for_each_benchmark_and_scenario(
    tmp_path: Path, benchmarks: str, config_ver: str, files: int
) -> None:
    tree = plant(tmp_path)
    assert plans(tree) == set()
    ended = make(
        tree, "generate_engines", f"--scenarios=offline,server --benchmarks={benchmarks} --config_ver={config_ver}"
    )
    assert ended.returncode == 0, ended.stdout
    wanted = [
        one
        for one in hetero_workloads()
        if one.benchmark.name in benchmarks.split(",")
        and one.setting.accuracy == ("99.9" if "high" in config_ver else "99")
    ]
    assert plans(tree) == engines_of(*wanted)
    assert len(plans(tree)) == files
    for one in wanted:
        assert f"Building engines for {one.benchmark.name} benchmark in {one.scenario} scenario..." in ended.stdout
    assert ended.stdout.count("Finished building engines for ") == len(wanted)
    assert ended.stdout.count("Time taken to generate engines: ") == len(wanted)
    assert ("No registered config for dlrm.Offline." in ended.stdout) == (not wanted)
    assert all((tree / "build" / name).is_symlink() for name in ("data", "preprocessed_data", "models"))


def test_names_of_engines() -> None:
    directory = f"build/engines/{SYSTEM}"
    assert workload("resnet50", "Offline").engine_files == (
        f"{directory}/resnet50/Offline/resnet50-Offline-gpu-b256-int8.hetero_k_99_MaxP.plan",
    )
    assert workload("dlrm", "server", "hetero_high_accuracy").engine_files == (
        f"{directory}/dlrm/Server/dlrm-Server-gpu-b65500-int8.hetero_k_99_9_MaxP.plan",
    )
    assert f"{directory}/rnnt/Offline/encoder.plan" in workload("rnnt", "Offline").engine_files


@pytest.mark.parametrize(("habit", "exit_code"), [("build-fails", 2), ("no-engine", 0), ("unknown-system", 0)])
def test_builds_that_leave_nothing(tmp_path: Path, habit: str, exit_code: int) -> None:
    tree = plant(tmp_path)
    arguments = "--benchmarks=bert --scenarios=offline --config_ver=hetero"
    ended = make(tree, "generate_engines", arguments, STANDIN_BUILD=habit, STANDIN_BERT="crash")
    assert ended.returncode == exit_code, ended.stdout
    assert plans(tree) == set()
    assert ("RuntimeError: Building engines failed!" in ended.stdout) == (habit == "build-fails")
    assert ("did not match any known systems. Exiting." in ended.stdout) == (habit == "unknown-system")


def test_without_an_engine_nothing_runs(tmp_path: Path) -> None:
    tree = plant(tmp_path)
    ended = make(tree, "run_harness", run_args(workload("resnet50", "Offline")))
    assert ended.returncode == 2
    assert re.search(r"RuntimeError: File \./build/engines/.*\.plan does not exist\.", ended.stdout)
    assert not MARKER.search(ended.stdout)


# Runs


ANNOUNCED = {
    # benchmark and configuration: what stands before the marker, and the directory of the results
    ("resnet50", "hetero"): ("", "TRT_HeteroMultiUse/resnet50"),
    ("3d-unet", "hetero_high_accuracy"): ("", "TRT_HeteroMultiUse/3d-unet-99.9"),
    ("rnnt", "hetero"): (r"\[I\] ", "TRT_HeteroMultiUse/rnnt"),
    ("bert", "hetero"): (GLOG, "TRT_HeteroMultiUse/bert-99"),
    ("bert", "hetero_high_accuracy"): (GLOG, "TRT_HeteroMultiUse/bert-99.9"),
    ("dlrm", "hetero_high_accuracy"): (GLOG, "TRT_HeteroMultiUse/dlrm-99.9"),
}


@pytest.mark.parametrize(("benchmark", "config_ver"), ANNOUNCED)
def test_each_family_announces_its_start_in_its_own_way(
    tree: Path, tmp_path: Path, benchmark: str, config_ver: str
) -> None:
    prefix, directory = ANNOUNCED[benchmark, config_ver]
    what = workload(benchmark, "Offline", config_ver)
    ended = make(tree, "run_harness", run_args(what, config_ver=config_ver), LOG_DIR=str(tmp_path))
    assert ended.returncode == 0, ended.stdout
    assert [found["verb"] for found in MARKER.finditer(ended.stdout)] == ["Starting", "Finished"]
    assert all(re.fullmatch(prefix, found["prefix"]) for found in MARKER.finditer(ended.stdout))
    assert what.directory == f"{SYSTEM}_{directory}/Offline"
    assert logged(tmp_path / what.directory / DETAIL)["result_validity"] == "VALID"
    assert {path.name for path in tmp_path.iterdir()} == {
        "stdout.txt",
        "perf_harness_summary.json",
        "accuracy_summary.json",
        what.system_name,
    }


def test_glog_goes_to_stderr(tree: Path, tmp_path: Path) -> None:
    # Of make run_harness both are one; audits leave them apart.
    ended = subprocess.run(
        ("make", "run_audit_test01", f"RUN_ARGS={run_args(workload('bert', 'Offline'))}"),
        cwd=tree,
        env=environment({"LOG_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not MARKER.search(ended.stdout)
    assert [found["verb"] for found in MARKER.finditer(ended.stderr)] == ["Starting", "Finished"]
    assert "Result is : VALID" in ended.stdout


def test_triton_has_words_of_its_own(fresh: Path, tmp_path: Path) -> None:
    what = workload("resnet50", "Offline", "triton")
    built = make(fresh, "generate_engines", "--benchmarks=resnet50 --scenarios=offline --config_ver=triton")
    assert built.returncode == 0
    assert what.engine_files[0].endswith(".triton_k_99_MaxP.plan")
    ended = make(fresh, "run_harness", run_args(what, config_ver="triton"), LOG_DIR=str(tmp_path / "logs"))
    assert ended.returncode == 0, ended.stdout
    assert "\nStart running actual test\n" in ended.stdout
    assert [found["verb"] for found in MARKER.finditer(ended.stdout)] == ["Start"]
    assert (tmp_path / "logs" / f"{SYSTEM}_TRT_Triton" / "resnet50" / "Offline" / DETAIL).exists()


@pytest.mark.parametrize(
    ("benchmark", "scenario", "config_ver"),
    [
        ("ssd-resnet34", "Server", "hetero"),
        ("ssd-mobilenet", "SingleStream", "default"),
        ("retinanet", "MultiStream", "default"),
    ],
)
def test_other_scenarios_are_valid(tmp_path: Path, benchmark: str, scenario: str, config_ver: str) -> None:
    tree = plant(tmp_path)
    what = workload(benchmark, scenario, config_ver)
    names = f"--benchmarks={benchmark} --scenarios={scenario} --config_ver={config_ver}"
    assert make(tree, "generate_engines", names).returncode == 0
    ended = make(tree, "run_harness", run_args(what, config_ver=config_ver, duration_ms=300), LOG_DIR=f"{tmp_path}/log")
    assert ended.returncode == 0, ended.stdout
    found = logged(tmp_path / "log" / what.directory / DETAIL)
    assert (found["result_validity"], found["num_errors"]) == ("VALID", 0), ended.stdout
    assert re.search(r"INFO\] Result: [a-z_]+: [\d.]+, Result is VALID$", ended.stdout, re.MULTILINE)


def test_a_run_and_its_files(fresh: Path) -> None:
    what = workload("resnet50", "Offline")
    ended = make(fresh, "run_harness", run_args(what))
    assert ended.returncode == 0, ended.stdout
    (log_dir,) = (fresh / "build" / "logs").iterdir()
    assert re.fullmatch(r"\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d", log_dir.name)
    assert (log_dir / "stdout.txt").read_text() == ended.stdout
    speed = logged(log_dir / what.directory / DETAIL)["result_samples_per_second"]
    result = f"result_samples_per_second: {speed}, Result is VALID"
    config = f"{what.system_name}-hetero_k_99_MaxP-Offline"
    assert json.loads((log_dir / "perf_harness_summary.json").read_text()) == {config: {"resnet50": result}}
    assert ended.stdout.endswith(
        f"\n{config}:\n    resnet50: {result}\n\n\n======================= Accuracy results: "
        f"=======================\n\n{config}:\n    resnet50: No accuracy results in PerformanceOnly mode.\n\n"
    )
    measurements = fresh / "measurements" / what.directory
    assert {path.name for path in measurements.iterdir()} == {
        "user.conf",
        "mlperf.conf",
        "README.md",
        "calibration_process.adoc",
        f"{what.system_name}_Offline.json",
    }


def test_how_many_lines_of_configuration_are_printed(tree: Path, tmp_path: Path) -> None:
    arguments = run_args(workload("resnet50", "Offline"))
    ended = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), STANDIN_CONFIG_LINES="12")
    before, _, _ = ended.stdout.partition("&&&& RUNNING")
    assert len(re.findall(r"^\w+ : ", before, re.MULTILINE)) == 12


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_keep_their_output_or_not(tmp_path: Path, version: str) -> None:
    tree = plant(tmp_path, version=version, with_engines=True)
    record = tmp_path / "record"
    arguments = run_args(workload("resnet50", "Offline"))
    ended = make(tree, "run_harness", arguments, LOG_DIR=f"{tmp_path}/log", STANDIN_RECORD=str(record))
    assert ended.returncode == 0, ended.stdout
    assert "Accuracy results:" in ended.stdout
    assert (tmp_path / "log" / "stdout.txt").exists() == (version != "v1.1")
    assert [launch.module for launch in launches(record)] == ["code.main_v2" if version == "v2.1" else "code.main"]


# Accuracy


def test_accuracy_that_is_reached(tree: Path, tmp_path: Path) -> None:
    what = workload("resnet50", "Server")
    arguments = run_args(what, "--test_mode=AccuracyOnly")
    ended = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), STANDIN_MAIN="good")
    assert ended.returncode == 0, ended.stdout
    assert "    resnet50: Accuracy = 76.032, Threshold = 75.695. Accuracy test PASSED.\n" in ended.stdout
    assert "Result: Cannot find performance result. Maybe you are running in AccuracyOnly mode." in ended.stdout
    assert "Result is" not in ended.stdout
    found = logged(tmp_path / what.directory / DETAIL)
    assert found["effective_test_mode"] == "AccuracyOnly"
    assert "power_end" in found
    assert "result_validity" not in found
    log = tmp_path / what.directory / "mlperf_log_accuracy.json"
    assert {entry["qsl_idx"] for entry in json.loads(log.read_text())} == set(range(64))


def test_accuracy_that_is_missed(tree: Path, tmp_path: Path) -> None:
    arguments = run_args(workload("resnet50", "Offline"), "--test_mode=AccuracyOnly")
    ended = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), STANDIN_MAIN="accuracy-fails")
    assert ended.returncode == 2
    assert "\nTraceback (most recent call last):\n" in ended.stdout
    assert "\nRuntimeError: Accuracy = 74.166, Threshold = 75.695. Accuracy test FAILED!\n" in ended.stdout
    assert "Perf harness results:" not in ended.stdout


# Audits


@pytest.mark.parametrize("test", ["TEST01", "TEST04", "TEST05"])
def test_audits(fresh: Path, tmp_path: Path, test: str) -> None:
    what = workload("resnet50", "Offline")
    record = tmp_path / "record"
    ended = make(fresh, f"run_audit_{test.lower()}", run_args(what), STANDIN_RECORD=str(record))
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count(f"{test} trial ") == 1
    assert f"{test} verification complete" in ended.stdout
    assert [launch.action for launch in launches(record)] == ["run_audit_harness", "run_audit_verification"]
    logs = fresh / "build" / "compliance_logs" / test / what.directory
    found = logged(logs / DETAIL)
    assert "Overriding TestSettings" in str(found["warning_generic_message"])
    # With the same sample all the time, TEST04 is over too soon.
    assert found["result_validity"] == ("INVALID" if test == "TEST04" else "VALID")
    assert bool(found["effective_performance_issue_same"]) == (test == "TEST04")
    files = {path.name: path.read_text() for path in (logs / test).glob("verify_*.txt")}
    wanted = {"verify_performance.txt", "verify_accuracy.txt"} if test == "TEST01" else {"verify_performance.txt"}
    assert set(files) == wanted
    assert all(text.endswith("\nTEST PASS\n") for text in files.values())
    assert (logs / test / "performance" / "run_1" / DETAIL).read_bytes() == (logs / DETAIL).read_bytes()
    assert not list(fresh.glob("verify_*")) + list(fresh.glob("audit.config"))
    assert not list((fresh / "build" / "logs").iterdir())
    assert bool(json.loads((logs / "mlperf_log_accuracy.json").read_text())) == (test == "TEST01")


def test_an_old_test04_has_two_halves(tmp_path: Path) -> None:
    tree = plant(tmp_path, version="v2.0", with_engines=True)
    what = workload("resnet50", "Offline")
    ended = make(tree, "run_audit_test04", run_args(what))
    assert ended.returncode == 0, ended.stdout
    logs = tree / "build" / "compliance_logs"
    halves = [logged(logs / name / what.directory / DETAIL) for name in ("TEST04-A", "TEST04-B")]
    assert [half["result_validity"] for half in halves] == ["INVALID", "INVALID"]
    assert [half["effective_performance_issue_unique"] for half in halves] == [True, False]
    (file,) = logs.glob("**/verify_performance.txt")
    assert "TEST PASS" in file.read_text()


def test_an_audit_that_fails_exits_with_0(tree: Path) -> None:
    what = workload("ssd-resnet34", "Offline")
    ended = make(tree, "run_audit_test05", run_args(what), STANDIN_MAIN="audit-fails")
    assert ended.returncode == 0, ended.stdout
    file = tree / "build/compliance_logs/TEST05" / what.directory / "TEST05" / "verify_performance.txt"
    assert file.read_text().endswith("\nTEST FAIL\n")
    assert "TEST PASS" not in ended.stdout


def test_answers_that_differ_and_are_as_good_redeem_test01(tree: Path) -> None:
    what = workload("bert", "Offline")
    ended = make(tree, "run_audit_test01", run_args(what), STANDIN_MAIN="audit-redeemed")
    assert ended.returncode == 0, ended.stdout
    files = tree / "build/compliance_logs/TEST01" / what.directory / "TEST01"
    assert (files / "verify_accuracy.txt").read_text().endswith("\nTEST FAIL\n")
    assert (files / "verify_performance.txt").read_text().endswith("\nTEST PASS\n")
    assert {path.name for path in (files / "accuracy").iterdir()} == {
        "baseline_accuracy.txt",
        "compliance_accuracy.txt",
    }
    assert "TEST01 failure redeemed via fallback approach." in ended.stdout
    assert re.search(r"^TEST PASS$", ended.stdout, re.MULTILINE)


def test_an_audit_is_tried_again(tree: Path, tmp_path: Path) -> None:
    what = workload("ssd-resnet34", "Server")
    record = tmp_path / "record"
    ended = make(
        tree, "run_audit_test01", run_args(what), STANDIN_MAIN="audit-second-trial", STANDIN_RECORD=str(record)
    )
    assert ended.returncode == 0, ended.stdout
    assert re.findall(r"^TEST01 trial (\d)$", ended.stdout, re.MULTILINE) == ["1", "2"]
    assert [found["verb"] for found in MARKER.finditer(ended.stdout)] == ["Starting", "Finished"] * 2
    assert [launch.goal for launch in launches(record)] == ["run_audit_test01"] * 4


def test_test04_is_not_for_everybody(tree: Path) -> None:
    ended = make(tree, "run_audit_test04", run_args(workload("bert", "Offline")))
    assert ended.returncode == 0
    assert "TEST04 is not supported for benchmark bert. Ignoring request..." in ended.stdout
    assert not MARKER.search(ended.stdout)


def test_audits_need_results_to_compare_with(fresh: Path) -> None:
    (fresh / "results" / workload("resnet50", "Offline").directory).rename(fresh / "elsewhere")
    ended = make(fresh, "run_audit_test05", run_args(workload("resnet50", "Offline")))
    assert ended.returncode == 2
    assert ended.stdout.count("TEST05 trial ") == 2


# What one run does to another


def test_a_run_overwrites_the_measurements_of_another(fresh: Path) -> None:
    what = workload("resnet50", "Offline")
    user_conf = fresh / "measurements" / what.directory / "user.conf"
    make(fresh, "run_harness", run_args(what, duration_ms=120))
    assert "*.Offline.min_duration = 120\n" in user_conf.read_text()
    make(fresh, "run_harness", run_args(what, "--min_query_count=1", duration_ms=130))
    assert "*.Offline.min_duration = 130\n*.Offline.min_query_count = 1\n" in user_conf.read_text()


def test_a_run_overwrites_the_stdout_of_another(tree: Path, tmp_path: Path) -> None:
    for name in ("resnet50", "ssd-resnet34"):
        make(tree, "run_harness", run_args(workload(name, "Offline")), LOG_DIR=str(tmp_path))
    kept = (tmp_path / "stdout.txt").read_text()
    assert "Running harness for ssd-resnet34" in kept
    assert "Running harness for resnet50" not in kept
    assert kept.count("Result is VALID") == 3  # the driver's line, and one for each in the summary that they share


def test_a_run_removes_what_an_audit_left(fresh: Path) -> None:
    left = [fresh / name for name in ("audit.config", "verify_performance.txt", "verify_accuracy.txt", "accuracy.txt")]
    for path in left:
        path.write_text("*.*.mode = 1\n")
    make(fresh, "run_harness", run_args(workload("resnet50", "Offline")))
    assert not any(path.exists() for path in left)


def test_loadgen_obeys_the_audit_config_of_another(fresh: Path, tmp_path: Path) -> None:
    what = workload("resnet50", "Offline")
    arguments = run_args(what, duration_ms=400)
    # Between the driver's start, which removes it, and LoadGen's: whoever audits meanwhile is not noticed.
    slow = fresh / "build" / "bin" / "harness_default"
    slow.write_text(
        slow.read_text().replace("exec", "cp build/inference/compliance/nvidia/TEST04/audit.config .; exec")
    )
    ended = make(fresh, "run_harness", arguments, LOG_DIR=str(tmp_path / "log"))
    assert ended.returncode == 0, ended.stdout
    found = logged(tmp_path / "log" / what.directory / DETAIL)
    assert (found["effective_performance_issue_same"], found["result_validity"]) == (True, "INVALID")


def test_a_shadow_of_links_keeps_runs_apart(fresh: Path, tmp_path: Path) -> None:
    what = workload("bert", "Offline")
    shadow = tmp_path / "shadow"
    (shadow / "build" / "logs").mkdir(parents=True)
    (shadow / "measurements").mkdir()
    for place in (fresh, fresh / "build"):
        for entry in place.iterdir():
            mirror = shadow / entry.relative_to(fresh)
            if not mirror.exists():
                mirror.symlink_to(entry)
    (fresh / "audit.config").write_text("*.*.mode = 2\n")
    before = sorted(fresh.rglob("*"))
    ended = make(shadow, "run_harness", run_args(what))
    assert ended.returncode == 0, ended.stdout
    (log_dir,) = (shadow / "build" / "logs").iterdir()
    assert logged(log_dir / what.directory / DETAIL)["result_validity"] == "VALID"
    assert (shadow / "measurements" / what.directory / "user.conf").exists()
    assert [path for path in sorted(fresh.rglob("*")) if "__pycache__" not in path.parts] == before


# Habits


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_invalid(tree: Path, tmp_path: Path, scenario: str) -> None:
    what = workload("resnet50", scenario)
    ended = make(tree, "run_harness", run_args(what), LOG_DIR=str(tmp_path), STANDIN_MAIN="invalid")
    assert ended.returncode == 0, ended.stdout
    assert logged(tmp_path / what.directory / DETAIL)["result_validity"] == "INVALID"
    assert "    resnet50: " in ended.stdout
    assert ended.stdout.count("Result is INVALID") == 2


@pytest.mark.parametrize("scenario", ["Offline", "Server"])
def test_early_exit(tree: Path, tmp_path: Path, scenario: str) -> None:
    what = workload("resnet50", scenario)
    arguments = run_args(what, "--min_query_count=1", duration_ms=600_000)
    # The habits of main and of other benchmarks are not this one's.
    habits = {"STANDIN_BACKGROUND": "early-exit", "STANDIN_MAIN": "crash", "STANDIN_BERT": "crash"}
    ended = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), STANDIN_AFTER_MS="200", **habits)
    assert ended.returncode == 0, ended.stdout
    assert logged(tmp_path / what.directory / DETAIL)["effective_min_duration_ms"] == 200
    assert "*.min_duration = 600000\n" in (tree / "measurements" / what.directory / "user.conf").read_text().replace(
        f"*.{scenario}", "*"
    )


@pytest.mark.parametrize(("habit", "timed"), [("crash", True), ("crash-early", False)])
def test_crashes(tree: Path, tmp_path: Path, habit: str, timed: bool) -> None:  # noqa: FBT001 - pytest passes by name
    what = workload("dlrm", "Offline", "hetero_high_accuracy")
    arguments = run_args(what, config_ver="hetero_high_accuracy", duration_ms=600_000)
    # The benchmark's own habit goes before its role's.
    habits = {"STANDIN_DLRM": habit, "STANDIN_MAIN": "good", "STANDIN_AFTER_MS": "50"}
    ended = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), **habits)
    assert ended.returncode == 2
    assert "returned non-zero exit status 1." in ended.stdout
    assert "\nRuntimeError: Run harness failed!\n" in ended.stdout
    assert bool(MARKER.search(ended.stdout)) == timed
    detail = tmp_path / what.directory / DETAIL
    assert detail.exists() == timed
    if timed:
        found = logged(detail)
        assert "generated_query_count" in found
        assert "power_begin" not in found


def test_slow_start(tree: Path, tmp_path: Path) -> None:
    what = workload("resnet50", "Offline")
    habits = {"STANDIN_MAIN": "slow-start", "STANDIN_LOAD_MS": "300"}
    ended = make(tree, "run_harness", run_args(what), LOG_DIR=str(tmp_path), **habits)
    assert ended.returncode == 0, ended.stdout
    lines = (tmp_path / what.directory / DETAIL).read_text().splitlines()
    loaded, generated = (
        json.loads(next(line for line in lines if f'"{key}"' in line).removeprefix(":::MLLOG "))["time_ms"]
        for key in ("loaded_qsl_set", "generated_query_count")
    )
    assert generated - loaded >= 300


@pytest.mark.parametrize("benchmark", ["resnet50", "bert"])
def test_chatty(tree: Path, tmp_path: Path, benchmark: str) -> None:
    what = workload(benchmark, "Offline")
    arguments = run_args(what, duration_ms=400)
    ended = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), STANDIN_MAIN="chatty")
    assert ended.returncode == 0, ended.stdout
    configuration, _, _ = ended.stdout.partition("MLPerf Results Summary")
    assert len(re.findall(r"^\w+ : ", configuration, re.MULTILINE)) == CHATTY_CONFIG_LINES
    chatter = [line for line in ended.stdout.splitlines() if line.endswith("xxxx")]
    assert {len(line) + 1 for line in chatter} == {CHATTY_LINE_BYTES}
    assert re.search(r"^Result is : VALID$", ended.stdout, re.MULTILINE)


def test_what_a_chatty_run_writes_is_accounted_for(tree: Path, tmp_path: Path) -> None:
    record = tmp_path / "writes"
    arguments = run_args(workload("bert", "Offline"), duration_ms=400)
    habits = {"STANDIN_MAIN": "chatty", "STANDIN_WRITES": str(record)}
    ended = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), **habits)
    assert ended.returncode == 0, ended.stdout
    assert len(writes(record)) == len(re.findall(r"xxxx$", ended.stdout, re.MULTILINE))
    assert {(write.pid, write.benchmark) for write in writes(record)} == {(writes(record)[0].pid, "bert")}


FILLS_A_PIPE = """
import fcntl, os
from tests.nvidia_tree.planted.code.account import Account
account = Account("bert")
for size in (fcntl.fcntl(1, fcntl.F_GETPIPE_SZ), 1):
    with account.write():
        os.write(1, b"x" * size)
"""


def test_a_write_that_waits_for_its_reader_is_blocked(tmp_path: Path) -> None:
    record = tmp_path / "writes"
    environ = environment({"STANDIN_WRITES": str(record)})
    argv = (sys.executable, "-c", FILLS_A_PIPE)
    with subprocess.Popen(argv, env=environ, cwd=REPOSITORY, stdout=subprocess.PIPE) as child:
        stat = Path(f"/proc/{child.pid}/stat")
        until(lambda: writes(record) and stat.read_text().rpartition(")")[2].split()[0] == "S", "a full pipe")
        child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 0
    assert [write.blocked for write in writes(record)] == [False, True]


def test_an_unknown_system_runs_nothing(tree: Path, tmp_path: Path) -> None:
    arguments = run_args(workload("resnet50", "Offline"))
    nothing = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), STANDIN_MAIN="unknown-system")
    assert "did not match any known systems. Exiting." in nothing.stdout
    assert not MARKER.search(nothing.stdout)
    assert nothing.returncode == 2  # only because the summary is missing
    assert "TypeError: 'NoneType' object is not iterable" in nothing.stdout
    make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path))
    stale = make(tree, "run_harness", arguments, LOG_DIR=str(tmp_path), STANDIN_MAIN="unknown-system")
    assert stale.returncode == 0
    assert stale.stdout.count("Result is VALID") == 1


def test_what_is_not_known_is_refused(tree: Path) -> None:
    arguments = run_args(workload("resnet50", "Offline"))
    for wrong, said in {
        f"{arguments} --min_durations=5": "unrecognized arguments: --min_durations=5",
        arguments.replace("resnet50", "resnet51"): "'resnet51' is not a valid benchmark name.",
        f"{arguments} --min_duration=soon": "invalid int value: 'soon'",
    }.items():
        ended = make(tree, "run_harness", wrong)
        assert ended.returncode == 2
        assert said in ended.stdout
        assert "Error 1" in ended.stdout
    ended = make(tree, "run_harness", arguments, STANDIN_MAIN="crsh")
    assert "STANDIN_HABIT is crsh, which is none of" in ended.stdout


# Signals


class Running:
    """A make that is running, and everything below it."""

    def __init__(self, tree: Path, log_dir: Path, what: Workload, duration_ms: int, habit: str) -> None:
        self.detail = log_dir / what.directory / DETAIL
        self.log_dir = log_dir
        self.make = subprocess.Popen(
            ("make", "run_harness", f"RUN_ARGS={run_args(what, duration_ms=duration_ms)}"),
            cwd=tree,
            env=environment({"LOG_DIR": str(log_dir), "STANDIN_MAIN": habit}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def has_logged(self, key: str) -> bool:
        return self.detail.exists() and f'"key": "{key}"' in self.detail.read_text()

    def has_printed(self, text: str) -> bool:
        path = self.log_dir / "stdout.txt"
        return path.exists() and text in path.read_text()

    def processes(self) -> dict[int, str]:
        return processes_with(str(self.log_dir))

    def kill(self, signum: int) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):  # who is TERMed takes others along
                os.kill(pid, signum)

    def close(self) -> None:
        while self.processes():
            self.kill(signal.SIGKILL)
        self.make.wait()


@pytest.fixture
def running(tree: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    duration_ms, habit = request.param
    started = Running(tree, tmp_path / "log", workload("resnet50", "Offline"), duration_ms, habit)
    yield started
    started.close()


@pytest.mark.parametrize("running", [(600_000, "good")], indirect=True)
def test_term_ends_all(running: Running) -> None:
    until(lambda: running.has_logged("generated_query_count"), "a timed section")
    commands = " ".join(running.processes().values())
    for name in ("make ", "bash", "tee ", "code.main_v2", "code.harness"):
        assert name in commands
    running.kill(signal.SIGTERM)
    assert running.make.wait(60) != 0
    until(lambda: not running.processes(), "the end of all")
    assert not running.has_logged("power_end")


@pytest.mark.parametrize("running", [(1000, "ignores-term")], indirect=True)
def test_some_ignore_term(running: Running) -> None:
    until(lambda: running.has_logged("generated_query_count"), "a timed section")
    running.kill(signal.SIGTERM)
    running.make.wait(60)
    assert running.has_printed("Result: result_samples_per_second")
    assert running.has_logged("result_validity")


@pytest.mark.parametrize("running", [(100, "hang-after-result")], indirect=True)
def test_some_stay_when_all_is_said(running: Running) -> None:
    until(lambda: running.has_printed("&&&& PASSED"), "the last line")
    assert running.has_printed("Result is : VALID")
    assert running.has_logged("power_end")
    assert "code.harness" in " ".join(running.processes().values())
    assert running.make.poll() is None


# The record


def test_the_record_of_starts(tree: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    arguments = run_args(workload("resnet50", "Offline"), "--min_query_count=1", "--verbose", "--start_from_device")
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-7fdeccba", "LOG_DIR": str(tmp_path / "log"), "STANDIN_RECORD": str(record)}
    assert launches(record) == []
    assert make(tree, "run_harness", arguments, STANDIN_BACKGROUND="chatty", **environ).returncode == 0
    (launch,) = launches(record)
    assert launch == Launch(
        at_ns=launch.at_ns,
        pid=launch.pid,
        goal="run_harness",
        module="code.main_v2",
        argv=(*arguments.split(), "--action=run_harness"),
        cwd=tree,
        habit="chatty",
        cuda_visible_devices="MIG-7fdeccba",
        log_dir=str(tmp_path / "log"),
        run_args=arguments,
    )


def test_hetero_has_its_matrix() -> None:
    names = {(one.benchmark.name, one.setting.accuracy) for one in hetero_workloads()}
    assert names == {(name, "99") for name in BENCHMARKS if name not in ("dlrm", "3d-unet")} | {
        ("bert", "99.9"),
        ("dlrm", "99.9"),
        ("3d-unet", "99.9"),
    }
