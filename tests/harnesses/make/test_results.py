"""What main left in the tree: brought into the run directory, and judged there. Logs are recordings of real LoadGen."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from heteromig.core.errors import EvidenceError
from heteromig.core.overlap import MainResult
from heteromig.core.spec import Action, Mode
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.runner.config import MainConfig
from tests.harnesses.make.plans import Planned
from tests.logs.recorded import RECORDINGS

SYSTEM = "A100-SXM-80GB-MIG_1x1g.10gb_TRT_HeteroMultiUse"
RECORDED = RECORDINGS / "6.0.17"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that stands where NVIDIA's tree would."""
    tree = tmp_path / "NVIDIA"
    for name in ("build/logs", "build/compliance_logs"):
        (tree / name).mkdir(parents=True)
    return tree


def plan(tree: Path, **main: object) -> Planned:
    return Planned(tree, MainConfig(**{"duration": "300", **main}))  # type: ignore[arg-type]


FOUND = (
    b':::MLLOG {"key": "warning_generic_message", "value": "Found Audit Config file (audit.config). Overriding '
    b'TestSettings from audit.config file.", "time_ms": 0.013179, "namespace": "mlperf::logging", "event_type": '
    b'"POINT_IN_TIME", "metadata": {"is_error": false, "is_warning": true, "file": "loadgen.cc", "line_no": 1235, '
    b'"pid": 10429, "tid": 10429}}\n'
)
"""What LoadGen 6.0.17 logs when there is an `audit.config`."""


def put(directory: Path, recording: str, *, without_errors: bool = False, audited: bool = False) -> None:
    """Put LoadGen's two logs there; `audited` as if there had been an `audit.config`."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in (RECORDED / recording).iterdir():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not (without_errors and b'"is_error": true' in line)]
        if audited and path.name == DETAIL_LOG:
            kept.insert(5, FOUND)
        (directory / path.name).write_bytes(b"".join(kept))


def collected(planned: Planned, *, started_utc_ns: int = 0) -> Path:
    planned.make_directory(planned.main)
    planned.harness.collect(planned.main, planned.spec, planned.run_dir, started_utc_ns=started_utc_ns, exit_code=0)
    return planned.logs


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def result(planned: Planned) -> MainResult:
    return planned.harness.result(planned.main, planned.spec, planned.run_dir)


# --- copies -----------------------------------------------------------------------------------------------------------


def test_logs_of_a_run_are_copied_as_they_lie(tree: Path) -> None:
    planned = plan(tree)
    log_dir = tree / planned.harness.command(planned.main, planned.spec, planned.run_dir).env["LOG_DIR"]
    place = f"{SYSTEM}/resnet50/Offline"
    put(log_dir / place, "offline")
    for name in ("mlperf_log_accuracy.json", "mlperf_log_trace.json", "accuracy.txt"):
        (log_dir / place / name).write_text("[]\n")
    for name in ("stdout.txt", "perf_harness_summary.json", "accuracy_summary.json"):
        (log_dir / name).write_text("{}\n")
    (log_dir / "mlperf_log_linked.txt").symlink_to("/etc/hostname")
    put(tree / "build" / "logs" / "2026.11.24-00.25.19" / place, "short")  # of somebody else
    folder = collected(planned)
    assert files(folder) == {
        f"{place}/mlperf_log_detail.txt",
        f"{place}/mlperf_log_summary.txt",
        f"{place}/mlperf_log_accuracy.json",
        f"{place}/accuracy.txt",
        "perf_harness_summary.json",
        "accuracy_summary.json",
    }
    assert (folder / place / "mlperf_log_detail.txt").read_bytes() == (
        RECORDED / "offline/mlperf_log_detail.txt"
    ).read_bytes()
    assert planned.harness.detail_logs(planned.main, planned.run_dir) == (folder / place / "mlperf_log_detail.txt",)
    assert result(planned).valid
    assert (log_dir / place / "mlperf_log_trace.json").exists()


def test_main_that_left_nothing_has_no_result(tree: Path) -> None:
    planned = plan(tree)
    assert files(collected(planned)) == set()
    assert planned.harness.detail_logs(planned.main, planned.run_dir) == ()
    with pytest.raises(EvidenceError, match="no LoadGen log of resnet50 offline: the tree may not know this system"):
        result(planned)


def test_of_a_compliance_test_only_what_this_run_wrote_is_copied(tree: Path) -> None:
    planned = plan(tree, action=Action.TEST01)
    logs = tree / "build" / "compliance_logs"
    put(logs / "TEST01" / SYSTEM / "resnet50" / "Server", "server")
    put(logs / "TEST01" / SYSTEM / "resnet50" / "Offline", "short")  # a path that is written again below
    put(logs / "TEST01" / SYSTEM / "bert-99" / "Offline", "offline")
    put(logs / "TEST05" / SYSTEM / "resnet50" / "Offline", "offline")
    started_utc_ns = _after_all_of(logs)
    put(logs / "TEST01" / SYSTEM / "resnet50" / "Offline", "offline", audited=True)
    verified = logs / "TEST01" / SYSTEM / "resnet50" / "Offline" / "TEST01"
    put(verified / "performance" / "run_1", "offline", audited=True)
    for name in ("verify_accuracy.txt", "verify_performance.txt"):
        (verified / name).write_text("TEST PASS\n")
    (verified / "mlperf_log_trace.json").write_text("[]\n")
    folder = collected(planned, started_utc_ns=started_utc_ns)
    place = f"TEST01/{SYSTEM}/resnet50/Offline"
    assert files(folder) == {
        f"{place}/mlperf_log_detail.txt",
        f"{place}/mlperf_log_summary.txt",
        f"{place}/TEST01/performance/run_1/mlperf_log_detail.txt",
        f"{place}/TEST01/performance/run_1/mlperf_log_summary.txt",
        f"{place}/TEST01/verify_accuracy.txt",
        f"{place}/TEST01/verify_performance.txt",
    }
    assert result(planned).valid


def _after_all_of(folder: Path) -> int:
    """A time after every change below `folder`, that nothing which changes from now on is older than."""
    newest_ns = max(path.stat().st_ctime_ns for path in folder.rglob("*"))
    while time.time_ns() <= newest_ns + 30_000_000:
        time.sleep(0.01)
    return time.time_ns()


def test_both_halves_of_an_old_test04_are_copied(tree: Path) -> None:
    planned = plan(tree, action=Action.TEST04)
    logs = tree / "build" / "compliance_logs"
    for half in ("TEST04-A", "TEST04-B"):
        put(logs / half / SYSTEM / "resnet50" / "Offline", "short", audited=True)
    (logs / "TEST04-A" / SYSTEM / "resnet50" / "Offline" / "verify_performance.txt").write_text("TEST PASS\n")
    collected(planned)
    found = planned.harness.detail_logs(planned.main, planned.run_dir)
    assert [path.relative_to(planned.logs).parts[0] for path in found] == ["TEST04-A", "TEST04-B"]
    assert result(planned).valid


def test_logs_of_other_benchmarks_and_scenarios_are_not_mains(tree: Path) -> None:
    planned = plan(tree, benchmark="bert", accuracy="99.9")
    for place in (
        "bert-99.9/Offline",
        "bert/Offline/nested",
        "bert-99/Server",
        "resnet50/Offline",
        "Offline/bert",
        "bert",
    ):
        put(planned.logs / SYSTEM / place, "offline")
    found = planned.harness.detail_logs(planned.main, planned.run_dir)
    assert {str(path.parent.relative_to(planned.logs / SYSTEM)) for path in found} == {
        "bert-99.9/Offline",
        "bert/Offline/nested",
    }


# --- performance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recording", "main", "valid", "said"),
    [
        ("offline", {}, True, ""),
        ("offline", {"duration": "301"}, None, "min_duration 300 ms, and 301 ms were asked for"),
        ("short", {}, False, "the run was shorter than min_duration"),
        ("twice", {}, False, "LoadGen reported 7 errors"),
        ("server", {}, None, "is of scenario Server"),
        ("server", {"scenario": "server"}, True, ""),
        ("late", {"scenario": "server"}, False, "the latency constraint was missed"),
        ("single_stream", {"scenario": "singlestream"}, True, ""),
        ("submission", {"scenario": "server", "runargs": "--test_mode=SubmissionRun"}, True, ""),
        ("killed", {}, None, "has no result_validity"),
    ],
)
def test_performance(
    tree: Path,
    recording: str,
    main: dict[str, object],
    valid: bool | None,  # noqa: FBT001 - pytest passes by name
    said: str,
) -> None:
    planned = plan(tree, **main)
    # Whatever LoadGen logged, it lies where the driver puts main's scenario.
    scenario = {"offline": "Offline", "server": "Server", "singlestream": "SingleStream"}[planned.main.scenario]
    put(planned.logs / SYSTEM / "resnet50" / scenario, recording)
    found = result(planned)
    assert found.valid is valid
    assert said in " ".join(found.complaints)
    assert bool(found.complaints) == (valid is not True)


def test_a_run_that_found_an_audit_config_is_no_measurement(tree: Path) -> None:
    planned = plan(tree)
    put(planned.logs / SYSTEM / "resnet50" / "Offline", "offline", audited=True)
    found = result(planned)
    assert found.valid is None
    assert "is of a compliance test: LoadGen found an audit.config" in found.complaints[0]


def test_the_run_that_ended_last_is_the_one_that_counts(tree: Path) -> None:
    planned = plan(tree)
    first, last = (planned.logs / SYSTEM / name / "Offline" for name in ("resnet50", "resnet50-99"))
    put(first, "short")
    put(last, "offline")
    assert result(planned).valid is False  # the short one was recorded two seconds after the other
    shutil.rmtree(first)
    put(first, "killed")  # one that never ended is never the last
    assert result(planned).valid is True


# --- accuracy ---------------------------------------------------------------------------------------------------------

PASSED = "Accuracy = 76.032, Threshold = 75.695. Accuracy test PASSED."
FAILED = "Accuracy = 74.166, Threshold = 75.695. Accuracy test FAILED!"


def accuracy_run(tree: Path, *, summary: str | None, output: str | None, errors: bool = False) -> Planned:
    planned = plan(tree, mode=Mode.ACCURACY)
    directory = planned.make_directory(planned.main)
    put(planned.logs / SYSTEM / "resnet50" / "Offline", "accuracy", without_errors=not errors)
    if summary is not None:
        (planned.logs / "accuracy_summary.json").write_text(f'{{"{SYSTEM}-Offline": {{"resnet50": "{summary}"}}}}')
    if output is not None:
        (directory / "stdout.log").write_text(output)
    return planned


@pytest.mark.parametrize(
    ("summary", "output", "valid"),
    [
        (PASSED, None, True),
        (PASSED, f"{FAILED}\n", True),
        (None, f"said before: {FAILED}\nRESULT\n    resnet50: {PASSED}\n", True),
        (None, f"RuntimeError: {FAILED}\n", False),
        ("No accuracy results in PerformanceOnly mode.", f"{PASSED}\n", True),
        # The driver's word alone is not enough.
        ("Accuracy = 75.694, Threshold = 75.695. Accuracy test PASSED.", None, False),
        ("Accuracy = 75.695, Threshold = 75.695. Accuracy test PASSED.", None, True),
        ("Accuracy = 9, Threshold = 10. Accuracy test PASSED.", None, False),
    ],
)
def test_accuracy(tree: Path, summary: str | None, output: str | None, valid: bool) -> None:  # noqa: FBT001 - by name
    found = result(accuracy_run(tree, summary=summary, output=output))
    assert found.valid is valid
    assert set(found.metrics) == {"accuracy", "accuracy_threshold"}
    if not valid:
        (complaint,) = found.complaints
        assert (
            complaint
            == f"accuracy {found.metrics['accuracy']:g} is below the threshold {found.metrics['accuracy_threshold']:g}"
        )


def test_accuracy_with_errors_of_loadgens_does_not_count(tree: Path) -> None:
    found = result(accuracy_run(tree, summary=PASSED, output=None, errors=True))
    assert found.valid is False
    assert found.complaints[0] == "LoadGen reported 3 errors"
    assert found.metrics["accuracy"] == 76.032


@pytest.mark.parametrize(
    "said",
    [
        None,
        "Cannot find accuracy JSON file.",
        "Accuracy = nan, Threshold = 1.0. Accuracy test FAILED!",
        "Accuracy = ., Threshold = .. Accuracy test PASSED",
    ],
)
def test_accuracy_that_nobody_tells(tree: Path, said: str | None) -> None:
    with pytest.raises(EvidenceError, match="says whether the accuracy test passed"):
        result(accuracy_run(tree, summary=None, output=said))


def test_accuracy_of_a_performance_run_is_none(tree: Path) -> None:
    planned = plan(tree, mode=Mode.ACCURACY)
    put(planned.logs / SYSTEM / "resnet50" / "Offline", "offline")
    (planned.logs / "accuracy_summary.json").write_text(PASSED)
    with pytest.raises(EvidenceError, match="of a run in mode PerformanceOnly, and AccuracyOnly was asked for"):
        result(planned)


# --- compliance -------------------------------------------------------------------------------------------------------

PASS, FAIL = "performance check ok\nTEST PASS\n", "TEST FAIL\n"


def audited(tree: Path, action: Action, recording: str = "offline", /, **verified: str) -> Planned:
    """A compliance test that left these verify files, as `verify_accuracy="..."`."""
    planned = plan(tree, action=action)
    planned.make_directory(planned.main)
    test = str(action.audit)
    place = planned.logs / test / SYSTEM / "resnet50" / "Offline"
    for directory in (place, place / test / "performance" / "run_1"):
        put(directory, recording, audited=True)
    for name, text in verified.items():
        (place / test / f"{name}.txt").write_text(text)
    return planned


@pytest.mark.parametrize(
    ("action", "verified", "failed"),
    [
        (Action.TEST01, {"verify_accuracy": PASS, "verify_performance": PASS}, []),
        (Action.TEST01, {"verify_accuracy": PASS, "verify_performance": FAIL}, ["verify_performance"]),
        (
            Action.TEST01,
            {"verify_accuracy": "", "verify_performance": "PASS\n"},
            ["verify_accuracy", "verify_performance"],
        ),
        (Action.TEST01, {"verify_accuracy": "no TEST PASS\n", "verify_performance": PASS}, ["verify_accuracy"]),
        (Action.TEST04, {"verify_performance": PASS}, []),
        (Action.TEST04, {"verify_performance": FAIL}, ["verify_performance"]),
        (Action.TEST05, {"verify_performance": PASS}, []),
        (Action.TEST05, {"verify_performance": "TEST PASSED\n"}, ["verify_performance"]),
    ],
)
def test_compliance(tree: Path, action: Action, verified: dict[str, str], failed: list[str]) -> None:
    found = result(audited(tree, action, **verified))
    test = action.audit
    assert found.valid is not bool(failed)
    place = f"{test}/{SYSTEM}/resnet50/Offline/{test}"
    assert found.complaints == tuple(f"{place}/{name}.txt does not say TEST PASS" for name in failed)
    assert found.metrics["result_samples_per_second"] > 0


def test_a_compliance_test_that_lost_its_audit_config_was_not_done(tree: Path) -> None:
    planned = audited(tree, Action.TEST05, verify_performance=PASS)
    for path in planned.logs.rglob(DETAIL_LOG):
        path.write_bytes(path.read_bytes().replace(FOUND, b""))
    with pytest.raises(EvidenceError, match=r"without an audit\.config, so TEST05 was not done"):
        result(planned)


def test_test04_is_invalid_by_design(tree: Path) -> None:
    assert result(audited(tree, Action.TEST04, "short", verify_performance=PASS)).valid is True


@pytest.mark.parametrize(
    ("action", "verified", "missing"),
    [
        (Action.TEST01, {"verify_performance": PASS}, "verify_accuracy.txt"),
        (Action.TEST01, {"verify_accuracy": PASS}, "verify_performance.txt"),
        (Action.TEST04, {}, "verify_performance.txt"),
        (Action.TEST05, {"verify_accuracy": PASS}, "verify_performance.txt"),
    ],
)
def test_a_verify_file_that_is_missing_is_evidence_that_is_missing(
    tree: Path, action: Action, verified: dict[str, str], missing: str
) -> None:
    with pytest.raises(
        EvidenceError, match=f"{action.audit} left no {missing} in build/compliance_logs/{action.audit}"
    ):
        result(audited(tree, action, **verified))


def test_verify_files_of_another_benchmark_say_nothing(tree: Path) -> None:
    planned = audited(tree, Action.TEST05, verify_performance=PASS)
    other = planned.logs / "TEST05" / SYSTEM / "bert-99" / "Offline" / "TEST05"
    other.mkdir(parents=True)
    (other / "verify_performance.txt").write_text(FAIL)
    assert result(planned).valid is True
    (planned.logs / "TEST05" / SYSTEM / "resnet50" / "Offline" / "TEST05" / "verify_performance.txt").unlink()
    (other / "verify_performance.txt").write_text(PASS)
    with pytest.raises(EvidenceError, match="nobody says that it passed"):
        result(planned)


REDEEMED = "[main.py:183 INFO] AUDIT HARNESS: Success: TEST01 failure redeemed via fallback approach.\n"


@pytest.mark.parametrize(
    ("output", "files", "valid"),
    [
        (f"TEST01 trial 1\n{REDEEMED}TEST PASS\n", 2, True),
        (REDEEMED, 2, True),
        (f"TEST01 trial 1\n{REDEEMED}ValueError\nTEST01 trial 2\nTEST FAIL\n", 2, False),
        (f"TEST01 trial 1\nValueError\nTEST01 trial 2\n{REDEEMED}", 2, True),
        (f"TEST01 trial 1\n{REDEEMED}", 1, False),
        ("TEST01 trial 1\nTEST PASS\n", 2, False),
        (None, 2, False),
    ],
)
def test_answers_that_differ_and_are_as_good(tree: Path, output: str | None, files: int, valid: bool) -> None:  # noqa: FBT001
    planned = audited(tree, Action.TEST01, verify_accuracy=FAIL, verify_performance=PASS)
    accuracy = planned.logs / "TEST01" / SYSTEM / "resnet50" / "Offline" / "TEST01" / "accuracy"
    accuracy.mkdir()
    for name in ("baseline_accuracy.txt", "compliance_accuracy.txt")[:files]:
        (accuracy / name).write_text('{"f1": 28.1}\n')
    if output is not None:
        (planned.run_dir / planned.main.directory / "stdout.log").write_text(output)
    found = result(planned)
    assert found.valid is valid
    assert len(found.complaints) == (not valid)


def test_the_speed_of_test01_is_not_redeemed_by_its_accuracy(tree: Path) -> None:
    planned = audited(tree, Action.TEST01, verify_accuracy=FAIL, verify_performance=FAIL)
    accuracy = planned.logs / "TEST01" / SYSTEM / "resnet50" / "Offline" / "TEST01" / "accuracy"
    accuracy.mkdir()
    for name in ("baseline_accuracy.txt", "compliance_accuracy.txt"):
        (accuracy / name).touch()
    (planned.run_dir / planned.main.directory / "stdout.log").write_text(REDEEMED)
    (complaint,) = result(planned).complaints
    assert complaint.endswith("verify_performance.txt does not say TEST PASS")


def test_what_is_no_file_any_more_is_not_read(tree: Path) -> None:
    planned = audited(tree, Action.TEST05)
    path = planned.logs / "TEST05" / SYSTEM / "resnet50" / "Offline" / "TEST05" / "verify_performance.txt"
    os.mkfifo(path)
    with pytest.raises(EvidenceError, match="is not a regular file"):
        result(planned)
