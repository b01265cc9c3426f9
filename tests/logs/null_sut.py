"""A null system under real LoadGen: `null_sut.py OUTDIR SCENARIO MODE SECONDS [QPS]`.

Prints the marker and heartbeats as a harness does. Completes samples at about QPS per second.
"""

from __future__ import annotations

import queue
import sys
import threading
import time

import mlperf_loadgen as lg

CHUNK = 20


def main(outdir: str, scenario: str, mode: str, duration_s: float, rate_qps: float = 1000) -> None:
    waiting: queue.SimpleQueue[list[lg.QuerySample]] = queue.SimpleQueue()

    def complete() -> None:
        done = 0
        while True:
            samples = waiting.get()
            for first in range(0, len(samples), CHUNK):
                chunk = samples[first : first + CHUNK]
                if scenario == "Offline":
                    time.sleep(len(chunk) / rate_qps)
                lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in chunk])
                done += len(chunk)
                if done % 200 < len(chunk):
                    print(f"heartbeat: completed={done} samples_per_second={rate_qps}", flush=True)  # noqa: T201 - this is its output

    threading.Thread(target=complete, daemon=True).start()
    sut = lg.ConstructSUT(waiting.put, lambda: None)
    qsl = lg.ConstructQSL(64, 64, lambda _: None, lambda _: None)
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = getattr(lg.TestMode, mode)
    settings.min_duration_ms = round(duration_s * 1000)
    settings.min_query_count = 1
    settings.offline_expected_qps = rate_qps
    settings.server_target_qps = rate_qps
    settings.server_target_latency_ns = 100_000_000
    logs = lg.LogSettings()
    logs.log_output.outdir = outdir
    logs.log_output.copy_summary_to_stdout = True
    logs.enable_trace = False
    print("Starting running actual test.", flush=True)  # noqa: T201 - likewise
    lg.StartTestWithLogSettings(sut, qsl, settings, logs, "no-audit.config")
    print("Finished running actual test.", flush=True)  # noqa: T201 - likewise
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(float, sys.argv[4:]))
