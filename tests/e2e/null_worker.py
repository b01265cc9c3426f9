"""Real LoadGen over a system that computes nothing: up in a tenth of a second, timed as long as it is asked to be.

`python -m tests.e2e.null_worker LOG_DIR DURATION_MS HABIT` with one of these habits, or with deeds as in `deeds.py`:

good        a timed section of that length, or until TERM, that completes a sample a second
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

from tests.e2e.deeds import Deeds

QPS = 100.0
HEARTBEAT_S = 1.0

HABITS = {
    "good": "",
    "crashing": "exit 3 at start",
    "silent": "wait for TERM at start",
    "stubborn": "ignore TERM at start",
    "lingering": "hang at result",
    "beating": "",
    "humming": "",
}


def main(log_dir: str, duration_ms: int, habit: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    deeds = Deeds(HABITS.get(habit, habit), log_dir, stop)
    deeds.do("start")
    duration_s = 1.02 * duration_ms / 1000

    def issue(samples: list[lg.QuerySample]) -> None:
        threading.Thread(target=complete, args=(samples,), daemon=True).start()

    def complete(samples: list[lg.QuerySample]) -> None:
        beat_s = 0.25 if habit in {"beating", "humming"} else HEARTBEAT_S
        outstanding = iter(samples)
        left_s = duration_s
        for completed, sample in enumerate(outstanding, start=1):
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])
            stamp = f" monotonic_s={time.monotonic():.3f}" if habit == "beating" else ""
            print(f"heartbeat: completed={completed} samples_per_second={QPS}{stamp}", flush=True)  # noqa: T201 - for the controller
            if stop.wait(min(beat_s, left_s)) or left_s <= beat_s:
                break
            left_s -= beat_s
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in outstanding])
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
    deeds.do("marker")
    test = threading.Thread(target=lg.StartTestWithLogSettings, args=(sut, qsl, settings, logs, "no-audit-config"))
    test.start()
    test.join()
    print("Finished running actual test.", flush=True)  # noqa: T201 - likewise
    deeds.do("result")
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
