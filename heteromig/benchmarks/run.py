"""One LoadGen run of one benchmark: load, warm up, announce, test, report.

The timed section runs on a thread, LoadGen's test call does not return before its end and Python's signal handlers run
on the main thread only. The main thread waits for messages and prints the heartbeat.
"""

from __future__ import annotations

import gc
import importlib.metadata
import math
import os
import threading
import time
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import mlperf_loadgen
import msgspec
import numpy as np
from msgspec import Struct

from heteromig.benchmarks import calibration, engines
from heteromig.benchmarks.accuracy import judge
from heteromig.benchmarks.catalog import (
    LOADGEN_NAMES,
    MULTI_STREAM,
    OFFLINE,
    OUTCOME,
    SERVER,
    SERVER_MIN_QUERIES,
    SERVER_PERCENTILE,
    SINGLE_STREAM,
    BenchmarkSpec,
)
from heteromig.benchmarks.console import say
from heteromig.benchmarks.runtimes import Device
from heteromig.benchmarks.selection import engine_on
from heteromig.benchmarks.sut import OfflineSut, ServerSut, StreamSut, Sut, fail
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.units import NS_PER_S

if TYPE_CHECKING:
    from heteromig.benchmarks.calibration import Calibration
    from heteromig.benchmarks.inference import Engine
    from heteromig.benchmarks.signals import StopSignals

STARTING = "Starting running actual test."
FINISHED = "Finished running actual test."
"""NVIDIA's harnesses print these two lines around LoadGen's test call, so that one pattern finds both."""

HEARTBEAT_S = 1.0
SERVER_STOP_S = 0.25
"""A Server test ends early when this many seconds' worth of queries are outstanding: how long a clean stop takes."""
SINGLE_STREAM_PERCENTILE, SINGLE_STREAM_MIN_QUERIES = 0.90, 64
MULTI_STREAM_PERCENTILE, MULTI_STREAM_MIN_QUERIES = 0.99, 662
"""What the streams report, and how many queries LoadGen's early stopping needs to estimate it (it says so itself in
`early_stopping_result`); with fewer the result is INVALID, however long the run was."""
MULTI_STREAM_SAMPLES = 8
"""Samples in a MultiStream query, by the MLPerf rules."""
_GENERATED_DURATIONS = 2
"""LoadGen generates a stream's queries for this many times min_duration (`generated_query_duration` in its log)."""
_LOADGEN_LOGS = "mlperf_log_*"
_NO_AUDIT = "no-audit-config"
"""LoadGen obeys any `audit.config` in the working directory unless it is given another name."""


class RunOptions(Struct, frozen=True):
    """What one run was asked for; times in milliseconds, `target_qps` None to calibrate."""

    spec: BenchmarkSpec
    scenario: str
    mode: str
    accuracy: str
    profile: str
    engine: Path
    log_dir: Path
    min_duration_ms: int
    min_query_count: int
    target_qps: float | None
    warmup_s: float
    device: Device = Device.CPU
    gpu: str = ""


class LoadGenTest(Struct, frozen=True):
    """What LoadGen is given: `settings` are its own TestSettings."""

    settings: Any
    log_dir: Path
    sut: Any
    sample_count: int


class _Message(Enum):
    FIRST = "first completions"
    STOP = "a stop signal"
    DONE = "LoadGen returned"


def run(options: RunOptions, signals: StopSignals) -> None:
    """Run the benchmark and leave LoadGen's logs, `device.json` and `accuracy.json` in the log directory.

    Raises:
        UsageError: the log directory does not exist or holds the logs of another run.
        PreflightError: the engine is not there, not intact or not the right one, or the device cannot be used.
        EvidenceError: LoadGen's accuracy log does not cover the sample set.
    """
    _check_log_dir(options.log_dir)
    manifest = _usable_engine(options)
    say("Creating QSL.")
    with np.load(options.engine / engines.SAMPLES, allow_pickle=False) as archive:
        samples = {name: archive[name] for name in archive.files}
    count = len(next(iter(samples.values())))
    say(f"Finished Creating QSL. {count} samples.")
    say("Setting up SUT.")
    engine = engine_on(options.device)
    _require_device(engine, manifest, options)
    batch = _batch(options, manifest)
    answer = engine.load(options.engine / engines.ENGINES[options.device], samples, tuple(sorted({1, batch})))
    say("Finished setting up SUT.")
    say(f"Starting warmup. Running for about {options.warmup_s:g} seconds.")
    began_s = time.monotonic()
    rates = calibration.calibrate(
        answer, sample_count=count, batch=batch, budget_s=options.warmup_s, clock_s=engine.clock_s
    )
    per = "CPU second" if options.device is Device.CPU else "second"
    say(f"Finished warmup. Ran for {time.monotonic() - began_s:.2f}s. {rates.batch_qps:.1f} samples per {per}.")
    expected_qps = options.target_qps or _expected_qps(options.scenario, rates)
    _write_json(
        options.log_dir / "device.json",
        {
            "device": engine.device.value,
            "gpu": engine.gpu_facts(),
            "engine": engine.name,
            "engine_version": engine.version,
            "loadgen_version": importlib.metadata.version("mlcommons-loadgen"),
            "model_sha256": manifest.model_sha256,
            "engine_sha256": manifest.engine_sha256,
            "batch": batch,
            "inputs_per_sample": manifest.group,
            "cpus": sorted(os.sched_getaffinity(0)),
            "expected_qps": expected_qps,
        },
    )
    inbox: SimpleQueue[Any] = SimpleQueue()
    sut = _sut(options, answer, batch, expected_qps, inbox)
    test = LoadGenTest(settings=_settings(options, expected_qps), log_dir=options.log_dir, sut=sut, sample_count=count)
    _conduct(test, inbox, signals)
    _write_json(options.log_dir / OUTCOME, {"not_computed": sut.not_computed})
    if sut.not_computed:
        say(f"Stopped cleanly: {sut.not_computed} samples were completed without being computed.")
    elif options.mode == "accuracy":
        _report_accuracy(options, manifest)


def _check_log_dir(log_dir: Path) -> None:
    if not log_dir.is_dir():
        raise UsageError(f"The log directory {log_dir} does not exist: create it first.")
    if any(log_dir.glob(_LOADGEN_LOGS)):
        raise UsageError(f"{log_dir} holds the logs of another run, which are kept: give an empty --log-dir.")


def _usable_engine(options: RunOptions) -> engines.Manifest:
    state = engines.inspect_engine(
        options.engine,
        benchmark=options.spec.name,
        scenario=options.scenario,
        accuracy=options.accuracy,
        profile=options.profile,
        device=options.device,
        gpu=options.gpu,
    )
    if state.manifest is None:
        raise PreflightError(f"{state.reason} It is {state.status.value} and is not used: {_how_to_build(options)}")
    return state.manifest


def _require_device(engine: Engine, manifest: engines.Manifest, options: RunOptions) -> None:
    """What only the runtime can tell; the rest was compared before it was loaded."""
    if engine.compute_capability != manifest.compute_capability:
        raise PreflightError(
            f"The engine at {options.engine} was built for compute capability {manifest.compute_capability}, and this "
            f"GPU has {engine.compute_capability}. It is stale and is not used: {_how_to_build(options)}"
        )


def _how_to_build(options: RunOptions) -> str:
    place = "" if options.device is Device.CPU else f" --device {options.device.value} --gpu '{options.gpu}'"
    return (
        f"build it with `python -m heteromig.benchmarks build --benchmark {options.spec.name} --scenario "
        f"{options.scenario} --accuracy {options.accuracy} --profile {options.profile}{place} "
        f"--output {options.engine}`."
    )


def _batch(options: RunOptions, manifest: engines.Manifest) -> int:
    return MULTI_STREAM_SAMPLES if options.scenario == MULTI_STREAM else manifest.batch


def _expected_qps(scenario: str, rates: Calibration) -> float:
    """Samples per second that the test is laid out for."""
    return {
        OFFLINE: rates.batch_qps * calibration.OFFLINE_MARGIN,
        SERVER: rates.single_qps * calibration.SERVER_UTILISATION,
        SINGLE_STREAM: rates.single_qps,
        MULTI_STREAM: rates.batch_qps,
    }[scenario]


def _max_outstanding(expected_qps: float) -> int:
    return max(1, math.ceil(expected_qps * SERVER_STOP_S))


def _sut(options: RunOptions, answer: Any, batch: int, expected_qps: float, inbox: SimpleQueue[Any]) -> Sut:
    def on_first() -> None:
        inbox.put(_Message.FIRST)

    if options.scenario == OFFLINE:
        return OfflineSut(answer, batch, on_first)
    if options.scenario == SERVER:
        return ServerSut(answer, batch, _max_outstanding(expected_qps), options.spec.server_latency_ns, on_first)
    return StreamSut(answer, on_first)


def _settings(options: RunOptions, expected_qps: float) -> Any:
    seeds = mlperf_loadgen.TestSettings()
    # Kind 0 reads the configuration that LoadGen carries inside and no file; the official seeds come from there only.
    if seeds.FromConfig("", "*", LOADGEN_NAMES[options.scenario], 0):
        raise PreflightError(
            "This LoadGen carries no configuration of its own: install mlcommons-loadgen 5.1 or later."
        )
    settings = mlperf_loadgen.TestSettings()
    settings.qsl_rng_seed = seeds.qsl_rng_seed
    settings.sample_index_rng_seed = seeds.sample_index_rng_seed
    settings.schedule_rng_seed = seeds.schedule_rng_seed
    settings.mode = (
        mlperf_loadgen.TestMode.AccuracyOnly if options.mode == "accuracy" else mlperf_loadgen.TestMode.PerformanceOnly
    )
    settings.min_duration_ms = options.min_duration_ms
    settings.min_query_count = options.min_query_count
    settings.accuracy_log_probability = 0.0
    settings.scenario = getattr(mlperf_loadgen.TestScenario, LOADGEN_NAMES[options.scenario])
    if options.scenario == OFFLINE:
        settings.offline_expected_qps = expected_qps
    elif options.scenario == SERVER:
        settings.server_target_qps = expected_qps
        settings.server_target_latency_ns = options.spec.server_latency_ns
        settings.server_target_latency_percentile = SERVER_PERCENTILE
        settings.server_max_async_queries = _max_outstanding(expected_qps)
        settings.min_query_count = max(options.min_query_count, SERVER_MIN_QUERIES)
    elif options.scenario == SINGLE_STREAM:
        settings.single_stream_expected_latency_ns = _expected_latency_ns(1, expected_qps)
        settings.single_stream_target_latency_percentile = SINGLE_STREAM_PERCENTILE
        settings.min_query_count = max(options.min_query_count, SINGLE_STREAM_MIN_QUERIES)
    else:
        settings.multi_stream_expected_latency_ns = _expected_latency_ns(MULTI_STREAM_SAMPLES, expected_qps)
        settings.multi_stream_target_latency_percentile = MULTI_STREAM_PERCENTILE
        settings.multi_stream_samples_per_query = MULTI_STREAM_SAMPLES
        settings.min_query_count = max(options.min_query_count, MULTI_STREAM_MIN_QUERIES)
    return settings


def _expected_latency_ns(samples: int, expected_qps: float) -> int:
    """What LoadGen is told about a query of a stream: it decides about how many are generated, and nothing else."""
    return max(1, round(NS_PER_S * samples / expected_qps * _GENERATED_DURATIONS / calibration.STREAM_MARGIN))


def _conduct(test: LoadGenTest, inbox: SimpleQueue[Any], signals: StopSignals) -> None:
    sut, count = test.sut, test.sample_count
    logs = mlperf_loadgen.LogSettings()
    logs.enable_trace = False
    logs.log_output.outdir = str(test.log_dir)
    logs.log_output.copy_summary_to_stdout = True
    loadgen_sut = mlperf_loadgen.ConstructFastSUT(sut.issue, sut.flush)
    loadgen_qsl = mlperf_loadgen.ConstructQSL(count, count, _in_memory, _in_memory)

    def start_test() -> None:
        try:
            mlperf_loadgen.StartTestWithLogSettings(loadgen_sut, loadgen_qsl, test.settings, logs, _NO_AUDIT)
        except BaseException:  # noqa: BLE001 - the main thread would wait for ever
            fail()
        inbox.put(_Message.DONE)

    # A query may hold millions of ids: the collector must not walk them while time is measured.
    gc.collect()
    gc.freeze()
    gc.disable()
    say(STARTING)
    signals.deliver_to(inbox, _Message.STOP)
    thread = threading.Thread(target=start_test, name="loadgen", daemon=True)
    thread.start()
    _watch(sut, inbox)
    thread.join()
    signals.ignore()
    say(FINISHED)
    mlperf_loadgen.DestroyQSL(loadgen_qsl)
    mlperf_loadgen.DestroyFastSUT(loadgen_sut)


def _watch(sut: Sut, inbox: SimpleQueue[Any]) -> None:
    """Wait for LoadGen to return; print heartbeats, pass a stop on."""
    last_s, last_completed = time.monotonic(), 0
    next_s = math.inf
    while True:
        try:
            timeout_s = None if next_s == math.inf else max(0.0, next_s - time.monotonic())
            message = inbox.get(timeout=timeout_s)
        except Empty:
            message = _Message.FIRST
        if message is _Message.DONE:
            return
        if message is _Message.STOP:
            sut.stop()
            next_s = math.inf
        elif not sut.not_computed:
            now_s, completed = time.monotonic(), sut.completed
            rate = (completed - last_completed) / max(now_s - last_s, 1e-9)
            # The stamp lets the certificate judge it by when it was given, whoever was listening then.
            late = "" if sut.over_latency is None else f" over_latency={sut.over_latency}"
            say(f"heartbeat: completed={completed} samples_per_second={rate:.1f} monotonic_s={now_s:.3f}{late}")
            last_s, last_completed = now_s, completed
            next_s = now_s + HEARTBEAT_S


def _in_memory(_indices: list[int]) -> None:
    """The whole sample set was loaded at the start and stays."""


def _report_accuracy(options: RunOptions, manifest: engines.Manifest) -> None:
    with np.load(options.engine / engines.REFERENCE, allow_pickle=False) as archive:
        reference = archive["answers"]
    log = options.log_dir / "mlperf_log_accuracy.json"
    verdict = judge(log, reference, options.spec.metric, options.accuracy, manifest.group)
    _write_json(options.log_dir / "accuracy.json", msgspec.to_builtins(verdict))
    say(
        f"Accuracy: {verdict.metric} {verdict.value_percent:.3f} %, target {options.accuracy} %: "
        f"{'PASSED' if verdict.passed else 'FAILED'}"
    )


def _write_json(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    temporary.replace(path)
