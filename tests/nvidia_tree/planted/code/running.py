"""A run: the driver's lines, the harness binary as a child, and what is made of LoadGen's logs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import traceback
from pathlib import Path

from . import accuracy, engines, measurements
from .catalog import Workload
from .habits import config_lines
from .output import LOG, say

_METRICS = {
    "Offline": ("result_samples_per_second",),
    "Server": ("result_completed_samples_per_sec", "result_scheduled_samples_per_sec"),
    "SingleStream": ("early_stopping_latency_ss",),
    "MultiStream": ("early_stopping_latency_ms",),
}
"""Keys of the headline; LoadGen 6 and 2 differ for Server."""
_PREFIX = b":::MLLOG "


def run(workload: Workload, options: argparse.Namespace, log_dir: str, *, compliance: bool = False) -> None:
    """Run the harness once, with LoadGen's logs below `log_dir`.

    Raises:
        RuntimeError: an engine is missing, the harness failed, or the accuracy is too low.
    """
    LOG.info("Running harness for %s benchmark in %s scenario...", workload.benchmark.name, workload.scenario)
    files = engines.require(workload)
    _print_configuration(workload, options, log_dir)
    log_directory = Path(log_dir, workload.directory)
    log_directory.mkdir(parents=True, exist_ok=True)
    mlperf_conf, user_conf = measurements.write(workload, options)
    argv = (
        f"./build/bin/harness_{workload.family}",
        f"--logfile_outdir={log_directory}",
        f"--mlperf_conf_path={mlperf_conf}",
        f"--user_conf_path={user_conf}",
        f"--test_mode={options.test_mode or 'PerformanceOnly'}",
        f"--gpu_engines={','.join(files)}",
        f"--scenario={workload.scenario}",
        f"--model={workload.benchmark.name}",
    )
    try:
        _run_command(argv)
    except (OSError, subprocess.CalledProcessError):
        traceback.print_exc(file=sys.stdout)
        raise RuntimeError("Run harness failed!") from None
    result = headline(log_directory, workload.scenario)
    LOG.info("Result: %s", result)
    _add_to_summary(Path(log_dir, "perf_harness_summary.json"), workload, result)
    if not compliance:
        reached = accuracy.check(workload, log_directory)
        _add_to_summary(Path(log_dir, "accuracy_summary.json"), workload, reached)


def headline(log_directory: Path, scenario: str) -> str:
    """The metric and the validity that LoadGen logged."""
    values = logged(log_directory / "mlperf_log_detail.txt")
    for metric in _METRICS[scenario]:
        if metric in values:
            return f"{metric}: {values[metric]}, Result is {values.get('result_validity', 'unknown')}"
    return "Cannot find performance result. Maybe you are running in AccuracyOnly mode."


def logged(detail_log: Path) -> dict[str, object]:
    """Keys and values of LoadGen's detail log; of a key that is repeated the last."""
    with detail_log.open("rb") as lines:
        entries = [json.loads(line[len(_PREFIX) :]) for line in lines if line.startswith(_PREFIX)]
    return {entry["key"]: entry["value"] for entry in entries}


def _print_configuration(workload: Workload, options: argparse.Namespace, log_dir: str) -> None:
    configuration = {
        "accuracy_level": f"{workload.setting.accuracy}%",
        "benchmark": workload.benchmark.name,
        "config_ver": workload.setting.name,
        "gpu_batch_size": workload.benchmark.batch_size,
        "log_dir": log_dir,
        "min_duration": options.min_duration,
        "scenario": workload.scenario,
        "system_id": workload.system,
    }
    lines = config_lines()
    for number in range(len(configuration), lines):
        configuration[f"field_{number}"] = number
    for key in [*configuration][:lines]:
        say(f"{key} : {configuration[key]}")
    if options.verbose:
        for key, value in vars(options).items():
            LOG.info("%s=%s", key, value)


def _run_command(argv: tuple[str, ...]) -> None:
    """Pass on the child's stdout line by line; its stderr is ours.

    Raises:
        subprocess.CalledProcessError: the child failed.
    """
    LOG.info("Running command: %s", " ".join(argv))
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line.decode())
            sys.stdout.flush()
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, argv)


def _add_to_summary(path: Path, workload: Workload, text: str) -> None:
    results = json.loads(path.read_text()) if path.exists() else {}
    name = f"{workload.system_name}-{workload.setting.name}-{workload.scenario}"
    results.setdefault(name, {})[workload.benchmark.name] = text
    path.write_text(json.dumps(results))
