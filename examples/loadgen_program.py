"""A LoadGen program of somebody's own: LoadGen over a system that answers at a steady pace and computes nothing.

`loadgen_program.py DIRECTORY MILLISECONDS SAMPLES_PER_SECOND` leaves LoadGen's logs of an Offline test in DIRECTORY. On
SIGTERM it completes at once what is outstanding, so that LoadGen can write down when the test ended.
"""

import signal
import sys
import threading
import time

import mlperf_loadgen as lg

STEPS_PER_SECOND = 50
CHUNK = 65536


def main(directory: str, min_duration_ms: int, samples_per_s: float) -> None:
    """Run the test."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    def complete(samples: list[lg.QuerySample]) -> None:
        began_s, done = time.monotonic(), 0
        while done < len(samples):
            if stopping.wait(1 / STEPS_PER_SECOND):
                due = min(done + CHUNK, len(samples))
            else:
                due = min(int((time.monotonic() - began_s) * samples_per_s), len(samples))
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in samples[done:due]])
            done = due
        threading.Event().wait()  # a thread that has completed samples must outlive LoadGen's test

    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.Offline
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = min_duration_ms
    settings.min_query_count = 1
    settings.offline_expected_qps = samples_per_s
    logs = lg.LogSettings()
    logs.log_output.outdir = directory
    logs.log_output.copy_summary_to_stdout = True
    logs.enable_trace = False
    sut = lg.ConstructSUT(
        lambda samples: threading.Thread(target=complete, args=(samples,), daemon=True).start(), lambda: None
    )
    qsl = lg.ConstructQSL(64, 64, lambda _: None, lambda _: None)
    # On a thread of its own, because Python hears signals on the main one.
    test = threading.Thread(target=lg.StartTestWithLogSettings, args=(sut, qsl, settings, logs, "no-audit.config"))
    test.start()
    test.join()
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
