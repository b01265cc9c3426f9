"""Accuracy: a number that passes, or does not, for any log that has results in it."""

from __future__ import annotations

import json
from pathlib import Path

from .catalog import Workload
from .habits import habit

_REACHED = {"99": 0.9944, "99.9": 0.9996}
"""Share of the target that is reached."""
_MISSED = 0.97


def check(workload: Workload, log_directory: Path) -> str:
    """What `accuracy_summary.json` says of the logs.

    Raises:
        RuntimeError: the accuracy is too low.
    """
    log = log_directory / "mlperf_log_accuracy.json"
    if not log.is_file():
        return "Cannot find accuracy JSON file."
    if not json.loads(log.read_text()):
        return "No accuracy results in PerformanceOnly mode."
    target, level = workload.benchmark.accuracy_target, workload.setting.accuracy
    reached = target * (_MISSED if habit() == "accuracy-fails" else _REACHED[level])
    threshold = target * float(level) / 100
    (log_directory / "accuracy.txt").write_text(f"accuracy={reached:.3f}%\n")
    figures = f"Accuracy = {reached:.3f}, Threshold = {threshold:.3f}."
    if reached < threshold:
        raise RuntimeError(f"{figures} Accuracy test FAILED!")
    return f"{figures} Accuracy test PASSED."
