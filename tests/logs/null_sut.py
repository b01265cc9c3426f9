"""A null system under real LoadGen, 4.0 or newer: `null_sut.py OUTDIR SCENARIO MODE SECONDS [QPS]`, and see `--help`.

Prints the marker and heartbeats as a harness does. In Offline it completes about QPS samples a second, in the other
scenarios each as soon as it is issued.
"""

from __future__ import annotations

import argparse
import queue
import threading
import time

import mlperf_loadgen as lg

CHUNK = 20
TOKENS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="A null system under LoadGen.")
    parser.add_argument("outdir")
    parser.add_argument("scenario")
    parser.add_argument("mode")
    parser.add_argument("duration_s", type=float)
    parser.add_argument("qps", type=float, nargs="?", default=1000.0, help="what LoadGen expects")
    parser.add_argument("--completed-qps", type=float, help="what it gets, in any scenario")
    parser.add_argument("--token-latency-ns", type=int, help="report tokens, of which each may take so long")
    parser.add_argument("--twice", type=int, default=0, help="complete so many of the first samples twice: errors")
    args = parser.parse_args()
    completed_qps: float | None = args.completed_qps
    if completed_qps is None and args.scenario == "Offline":
        completed_qps = args.qps
    waiting: queue.SimpleQueue[list[lg.QuerySample]] = queue.SimpleQueue()

    def complete() -> None:
        done = 0
        while True:
            samples = waiting.get()
            for first in range(0, len(samples), CHUNK):
                chunk = samples[first : first + CHUNK]
                if completed_qps is not None:
                    time.sleep(len(chunk) / completed_qps)
                if args.token_latency_ns is not None:
                    lg.FirstTokenComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in chunk])
                again = chunk[: max(0, args.twice - done)]
                lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0, TOKENS) for sample in again + chunk])
                done += len(chunk)
                if done % 200 < len(chunk):
                    print(f"heartbeat: completed={done} samples_per_second={args.qps}", flush=True)  # noqa: T201 - this is its output

    threading.Thread(target=complete, daemon=True).start()
    sut = lg.ConstructSUT(waiting.put, lambda: None)
    qsl = lg.ConstructQSL(64, 64, lambda _: None, lambda _: None)
    logs = lg.LogSettings()
    logs.log_output.outdir = args.outdir
    logs.log_output.copy_summary_to_stdout = True
    logs.enable_trace = False
    print("Starting running actual test.", flush=True)  # noqa: T201 - likewise
    lg.StartTestWithLogSettings(sut, qsl, settings_of(args), logs, "no-audit.config")
    print("Finished running actual test.", flush=True)  # noqa: T201 - likewise
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)


def settings_of(args: argparse.Namespace) -> lg.TestSettings:
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, args.scenario)
    settings.mode = getattr(lg.TestMode, args.mode)
    settings.min_duration_ms = round(args.duration_s * 1000)
    settings.min_query_count = 1
    settings.offline_expected_qps = args.qps
    settings.server_target_qps = args.qps
    settings.server_target_latency_ns = 100_000_000
    if args.token_latency_ns is not None:
        settings.use_token_latencies = True
        settings.ttft_latency = settings.tpot_latency = args.token_latency_ns
    return settings


if __name__ == "__main__":
    main()
