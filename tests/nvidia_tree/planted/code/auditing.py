"""Compliance tests: a run with an audit.config in the working directory, and a verification that compares its logs.

The verification ends with 0 whatever it finds, as that of v2.x does but for the accuracy of TEST01.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from . import running
from .catalog import Workload
from .habits import habit
from .output import LOG, say

LEFTOVERS = (
    "audit.config",
    "verify_accuracy.txt",
    "verify_performance.txt",
    "mlperf_log_accuracy_baseline.json",
    "accuracy.txt",
    "predictions.json",
)
"""What every run removes from the working directory, whoever it belongs to."""
_CONFIGS = "build/inference/compliance/nvidia"
_LOGS = "build/compliance_logs"
_NOT_IN_TEST04 = frozenset({"bert", "dlrm", "rnnt", "3d-unet", "retinanet"})


def cleanup() -> None:
    """Remove what an audit may have left in the working directory."""
    for name in LEFTOVERS:
        path = Path(name)
        if path.exists():
            LOG.info("Audit cleanup: Removing file %s", name)
            path.unlink()


def run(workload: Workload, options: argparse.Namespace) -> None:
    """Run the harness under the test's audit.config."""
    test: str = options.audit_test
    if _is_ignored(workload, test):
        return
    LOG.info("Running compliance harness for test %s", test)
    places = (Path(_CONFIGS, test, workload.benchmark.name), Path(_CONFIGS, test))
    source = next(place / "audit.config" for place in places if (place / "audit.config").is_file())
    shutil.copyfile(source, "audit.config")
    running.run(workload, options, f"{_LOGS}/{test}", compliance=True)
    LOG.info("AUDIT HARNESS: Cleaning Up audit.config...")
    cleanup()


def verify(workload: Workload, test: str) -> None:
    """Write the verify files: into the working directory first, then below the logs, with copies of these.

    Raises:
        RuntimeError: there is no result to compare with, or the habit is that the first trial fails.
    """
    if _is_ignored(workload, test):
        return
    LOG.info("Running compliance verification for test %s", test)
    reference = Path("results", workload.directory)
    if not reference.is_dir():
        raise RuntimeError(f"{reference} does not exist: results/ has nothing to compare with.")
    if habit() == "audit-second-trial" and os.environ.get("STANDIN_TRIAL") == "1":
        raise RuntimeError(f"{test} verification failed.")
    log_directory = Path(_LOGS, test, workload.directory)
    failed = {"audit-fails": "performance", "audit-redeemed": "accuracy"}.get(habit())
    checks = ("accuracy", "performance") if test == "TEST01" else ("performance",)
    destination = log_directory / test
    (destination / "performance" / "run_1").mkdir(parents=True, exist_ok=True)
    for check in checks:
        file = Path(f"verify_{check}.txt")
        score = running.headline(log_directory, workload.scenario)
        # Had the accuracy of TEST01 failed for good, the exit code would have said so.
        good = check != failed
        file.write_text(f"test score: {score}\nTEST {'PASS' if good else 'FAIL'}\n")
        shutil.copy2(file, destination)
        say(f"{check.capitalize()} check pass: {good}")
    for name in ("mlperf_log_summary.txt", "mlperf_log_detail.txt"):
        shutil.copy2(log_directory / name, destination / "performance" / "run_1")
    if failed in checks and failed == "accuracy":
        _redeem(destination / "accuracy")
    say(f"{test[:6]} verification complete")
    cleanup()


def _redeem(directory: Path) -> None:
    """Where answers differ, because the harness is not deterministic, it matters only how good they are."""
    directory.mkdir(exist_ok=True)
    for name in ("baseline", "compliance"):
        (directory / f"{name}_accuracy.txt").write_text("accuracy=28.105%\n")
    LOG.info("AUDIT HARNESS: Success: TEST01 failure redeemed via fallback approach.")
    say("TEST PASS")


def _is_ignored(workload: Workload, test: str) -> bool:
    ignored = test.startswith("TEST04") and workload.benchmark.name in _NOT_IN_TEST04
    if ignored:
        LOG.info("TEST04 is not supported for benchmark %s. Ignoring request...", workload.benchmark.name)
    return ignored
