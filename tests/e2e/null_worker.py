"""Real LoadGen over a system that answers nothing: up in a tenth of a second, timed as long as it is asked to be.

`python -m tests.e2e.null_worker LOG_DIR DURATION_MS HABIT` with one of these habits:

good        a timed section of that length, or until TERM
crashing    exits with 3 before it starts
silent      never begins its timed section
stubborn    good, but ignores TERM
lingering   good, but stays when its timed section is over
beating     good, and gives a heartbeat four times a second that says when it was given
humming     the same without saying when
"""

from __future__ import annotations

import signal
import sys
import threading
import time

import mlperf_loadgen as lg

QPS = 100.0
BEAT_S = 0.25


def main(log_dir: str, duration_ms: int, habit: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if habit == "stubborn" else lambda *_: stop.set())
    if habit == "crashing":
        print("no such luck", flush=True)  # noqa: T201 - this is what the controller reads
        sys.exit(3)
    if habit == "silent":
        stop.wait()
        return

    def issue(samples: list[lg.QuerySample]) -> None:
        threading.Thread(target=complete, args=(samples,), daemon=True).start()

    def complete(samples: list[lg.QuerySample]) -> None:
        first, *rest = samples
        lg.QuerySamplesComplete([lg.QuerySampleResponse(first.id, 0, 0)])
        print(f"heartbeat: completed=1 samples_per_second={QPS}", flush=True)  # noqa: T201 - likewise
        ends_s = time.monotonic() + 1.02 * duration_ms / 1000
        completed = 1
        while habit in {"beating", "humming"} and not stop.wait(min(BEAT_S, max(0.0, ends_s - time.monotonic()))):
            completed += 10
            stamp = f" monotonic_s={time.monotonic():.3f}" if habit == "beating" else ""
            print(f"heartbeat: completed={completed} samples_per_second={QPS}{stamp}", flush=True)  # noqa: T201 - likewise
            if time.monotonic() >= ends_s:
                break
        stop.wait(max(0.0, ends_s - time.monotonic()))
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in rest])
        threading.Event().wait()  # LoadGen crashes when a thread that completed samples ends before its test does

    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.Offline
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = duration_ms
    settings.min_query_count = 2
    settings.offline_expected_qps = QPS
    logs = lg.LogSettings()
    logs.log_output.outdir = log_dir
    logs.log_output.copy_summary_to_stdout = True
    logs.enable_trace = False
    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(64, 64, lambda _: None, lambda _: None)
    print("Starting running actual test.", flush=True)  # noqa: T201 - likewise
    test = threading.Thread(target=lg.StartTestWithLogSettings, args=(sut, qsl, settings, logs, "no-audit-config"))
    test.start()
    test.join()
    print("Finished running actual test.", flush=True)  # noqa: T201 - likewise
    if habit == "lingering":
        threading.Event().wait()
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
