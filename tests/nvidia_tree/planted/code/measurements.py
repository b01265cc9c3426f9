"""`measurements/<system>/<benchmark>/<Scenario>/`, which every run rewrites with its own settings.

LoadGen then reads them from there, so that a run whose files another one rewrites meanwhile runs with the other's; or
from where an argument says, but they are rewritten all the same.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from .catalog import Workload

OFFLINE_QPS = 10
"""Low, so that hours of background are a query of few samples."""
_SERVER_QPS = 200
_SERVER_QUERIES = 700
"""LoadGen wants 459 queries before it believes that 99 % of them are in time (early stopping)."""
_STREAM_QUERIES = {"SingleStream": 200, "MultiStream": 1000}
"""It wants 64 for 90 % and 662 for 99 %."""
ACCURACY_SAMPLES = 64
"""How many samples the data set has."""
_USUAL_DURATION_MS = 600_000.0
"""Of LoadGen's mlperf.conf."""


MLPERF_CONF = Path("build", "inference", "mlperf.conf")


def write(workload: Workload, options: argparse.Namespace) -> tuple[Path, Path]:
    """Rewrite the files of `workload`; the paths of the mlperf.conf and the user.conf that LoadGen is to read."""
    directory = Path("measurements", workload.directory)
    directory.mkdir(parents=True, exist_ok=True)
    scenario = workload.scenario
    settings = loadgen_settings(scenario, options)
    user_conf = directory / "user.conf"
    user_conf.write_text("".join(f"*.{scenario}.{key} = {value}\n" for key, value in settings.items()))
    mlperf_conf = directory / "mlperf.conf"
    shutil.copyfile(MLPERF_CONF, mlperf_conf)
    (directory / "README.md").write_text(f"# {workload.system_name}, {workload.submission_name}, {scenario}\n")
    (directory / "calibration_process.adoc").write_text(f"# Calibration of {workload.benchmark.name}\n")
    described = {"starting_weights_filename": "none", "settings": settings}
    (directory / f"{workload.system_name}_{scenario}.json").write_text(json.dumps(described))
    return Path(options.mlperf_conf_path or mlperf_conf), Path(options.user_conf_path or user_conf)


def loadgen_settings(scenario: str, options: argparse.Namespace) -> dict[str, str]:
    """What user.conf says: durations and latencies in ms, rates in queries per second."""
    duration_ms = options.min_duration if options.min_duration is not None else _USUAL_DURATION_MS
    accuracy = options.test_mode == "AccuracyOnly"
    settings = {}
    for key in ("min_duration", "max_duration", "min_query_count", "max_query_count"):
        value = getattr(options, key)
        if value is not None:
            settings[key] = f"{value:.0f}"
    if scenario == "Offline":
        settings["target_qps"] = f"{options.offline_expected_qps or OFFLINE_QPS:g}"
    elif scenario == "Server":
        enough = ACCURACY_SAMPLES if accuracy else _SERVER_QUERIES
        usual = enough / duration_ms * 1000 if accuracy else max(_SERVER_QPS, enough / duration_ms * 1000)
        rate = (options.server_target_qps or usual) * (options.server_target_qps_adj_factor or 1)
        settings["target_qps"] = f"{rate:g}"
        if options.server_target_latency_ns is not None:
            settings["target_latency"] = f"{options.server_target_latency_ns / 1e6:g}"
    else:
        queries = ACCURACY_SAMPLES if accuracy else _STREAM_QUERIES[scenario]
        settings["target_latency"] = f"{duration_ms / queries:g}"
    return settings
