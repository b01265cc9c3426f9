"""Small trees of results. Lines and figures are those of NVIDIA's in MLCommons' inference_results_v1.0 to v2.0."""

from __future__ import annotations

import json
from pathlib import Path

DGX = "DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb_TRT"
A30 = "A30-MIG_1x1g.6gb_TRT"
HETERO = "_HeteroMultiUse"

_HEADLINES = {
    "Offline": ("Samples per second: {}", "result_samples_per_second"),
    "Server": ("Scheduled samples per second : {}", "result_scheduled_samples_per_sec"),
    "SingleStream": ("90th percentile latency (ns) : {}", "result_90.00_percentile_latency_ns"),
    "MultiStream": ("99th percentile latency (ns) : {}", "result_99.00_percentile_latency_ns"),
}


def summary_text(scenario: str, value: float, p99_ns: int, *, valid: bool = True, samples_per_query: int = 1) -> str:
    p90_ns = int(value) if scenario == "SingleStream" else p99_ns * 9 // 10
    return (
        "================================================\nMLPerf Results Summary\n"
        "================================================\nSUT name : LWIS_Server\n"
        f"Scenario : {scenario}\nMode     : PerformanceOnly\n{_HEADLINES[scenario][0].format(value)}\n"
        f"Result is : {'VALID' if valid else 'INVALID'}\n  Min duration satisfied : {'Yes' if valid else 'NO'}\n"
        "  Min queries satisfied : Yes\n\n"
        f"90.00 percentile latency (ns)   : {p90_ns}\n99.00 percentile latency (ns)   : {p99_ns}\n\n"
        "================================================\nTest Parameters Used\n"
        f"================================================\nsamples_per_query : {samples_per_query}\n"
        "target_latency (ns): 0\nmin_duration (ms): 600000\n\nNo warnings encountered during test.\n"
    )


def detail_text(scenario: str, value: float, p99_ns: int, *, valid: bool = True, samples_per_query: int = 1) -> str:
    lines: list[tuple[str, object]] = [
        ("loadgen_version", "2.0 @ 701847516c"),
        ("test_datetime", "2022-02-15T15:30:25Z"),
        ("effective_scenario", scenario),
        ("effective_test_mode", "PerformanceOnly"),
        ("effective_samples_per_query", samples_per_query),
        ("generated_query_count", 1),
        ("logger_swap_request_slots_retry_count", 0),
        ("power_begin", "02-15-2022 15:30:26.263"),
        ("power_end", "02-15-2022 15:41:13.503"),
        ("result_validity", "VALID" if valid else "INVALID"),
        (_HEADLINES[scenario][1], value),
        ("result_99.00_percentile_latency_ns", p99_ns),
    ]
    metadata = {"is_error": False, "is_warning": False, "file": "loadgen.cc", "line_no": 1122, "pid": 1, "tid": 1}
    end = f'"namespace": "mlperf::logging", "event_type": "POINT_IN_TIME", "metadata": {json.dumps(metadata)}}}'
    return "".join(
        f':::MLLOG {{"key": "{key}", "value": {json.dumps(said)}, "time_ms": 1251.871154, {end}\n'
        for key, said in lines
    )


def write_run(
    scenario_directory: Path,
    value: float,
    p99_ns: int,
    *,
    valid: bool = True,
    samples_per_query: int = 1,
    run: str = "run_1",
) -> Path:
    """Write both logs of one run; the scenario is what the directory is called."""
    directory = scenario_directory / "performance" / run
    directory.mkdir(parents=True)
    scenario = next(name for name in _HEADLINES if name.lower() == scenario_directory.name.lower())
    for name, write in (("mlperf_log_summary.txt", summary_text), ("mlperf_log_detail.txt", detail_text)):
        (directory / name).write_text(write(scenario, value, p99_ns, valid=valid, samples_per_query=samples_per_query))
    return directory


def write_v20(root: Path) -> Path:
    """NVIDIA's ResNet-50 of v2.0 on one slice of a DGX A100, as published; returns the results directory."""
    results = root / "closed" / "NVIDIA" / "results"
    write_run(results / f"{DGX}{HETERO}/resnet50/Offline", 5200.54, 640820506837, samples_per_query=3366000)
    write_run(results / f"{DGX}{HETERO}/resnet50/Server", 3597.21, 8185418)
    write_run(results / f"{DGX}/resnet50/Offline", 5231.07, 637078186849, samples_per_query=3366000)
    write_run(results / f"{DGX}/resnet50/Server", 3527.25, 7557405)
    write_run(results / f"{DGX}_Triton/resnet50/Offline", 5000.0, 640000000000)
    write_run(results / "DGX-A100_A100-SXM-80GBx1_TRT/resnet50/Offline", 39000.0, 640000000000)
    for name in ("code", "systems", "measurements"):
        (root / "closed" / "NVIDIA" / name).mkdir()
    return results
