"""What `make` starts: reads its arguments, and builds, runs, audits or verifies each workload that they name."""

from __future__ import annotations

import argparse
import json
import os
import time

from . import auditing, engines, running
from .catalog import BENCHMARKS, SCENARIOS, Workload, workloads
from .habits import habit
from .output import LOG, start_log

_TEXTS = (
    *("benchmarks", "scenarios", "config_ver", "audit_test", "test_mode", "system_name", "precision"),
    *("mlperf_conf_path", "user_conf_path"),
)
_WHOLE_NUMBERS = (
    "min_duration",
    "max_duration",
    "min_query_count",
    "max_query_count",
    "gpu_batch_size",
    "gpu_copy_streams",
    "gpu_inference_streams",
    "performance_sample_count",
    "offline_expected_qps",
    "server_target_qps",
    "server_target_latency_ns",
    "workspace_size",
)
_NUMBERS = ("server_target_qps_adj_factor",)
_SWITCHES = (
    "verbose",
    "verbose_nvtx",
    "start_from_device",
    "end_on_device",
    "use_graphs",
    "fast",
    "gpu_only",
    "no_child_process",
)
_ACTIONS = ("generate_engines", "run_harness", "run_audit_harness", "run_audit_verification")


def main(module: str, argv: list[str]) -> int:
    """Do what `argv` says; the exit code."""
    start_log()
    _record(module, argv)
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for kind, names in ((str, _TEXTS), (int, _WHOLE_NUMBERS), (float, _NUMBERS)):
        for name in names:
            parser.add_argument(f"--{name}", type=kind)
    for name in _SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--action", choices=_ACTIONS, required=True)
    try:
        options, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        LOG.error("%s", error)
        return 1
    if unknown:
        LOG.error("unrecognized arguments: %s", " ".join(unknown))
        return 1
    if habit() == "unknown-system":
        LOG.info("Detected system did not match any known systems. Exiting. %s", os.environ["STANDIN_SYSTEM"])
        return 0
    system: str = options.system_name or os.environ["STANDIN_SYSTEM"]
    LOG.info("Detected system ID: %s", system)
    for workload in workloads(
        options.benchmarks or ",".join(BENCHMARKS),
        options.scenarios or ",".join(SCENARIOS),
        options.config_ver or "default",
        system,
    ):
        if workload.scenario not in workload.benchmark.scenarios:
            continue
        if not workload.is_registered:
            name = f"{workload.benchmark.name}.{workload.scenario}.{system}"
            LOG.warning("No registered config for %s for WorkloadSetting(%s)", name, workload.setting.name)
            continue
        _act(options, workload)
    return 0


def _act(options: argparse.Namespace, workload: Workload) -> None:
    if options.action == "generate_engines":
        engines.build(workload)
    elif options.action == "run_harness":
        auditing.cleanup()
        running.run(workload, options, os.environ.get("LOG_DIR", "build/logs/default"))
    elif options.action == "run_audit_harness":
        auditing.run(workload, options)
    else:
        auditing.verify(workload, options.audit_test)


def _record(module: str, argv: list[str]) -> None:
    """Append to the file STANDIN_RECORD, if there is one, that this start happened."""
    path = os.environ.get("STANDIN_RECORD")
    if path is None:
        return
    entry = {
        "at_ns": time.time_ns(),
        "pid": os.getpid(),
        "goal": os.environ.get("STANDIN_GOAL", ""),
        "module": module,
        "argv": argv,
        "cwd": os.getcwd(),  # noqa: PTH109 - a str is what JSON takes
        "habit": os.environ.get("STANDIN_HABIT", "good"),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "log_dir": os.environ.get("LOG_DIR"),
        "run_args": os.environ.get("RUN_ARGS"),
    }
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{json.dumps(entry)}\n".encode())  # in one piece, because others may append as well
    finally:
        os.close(file)
