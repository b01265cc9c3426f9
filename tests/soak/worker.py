"""A benchmark under real LoadGen that goes wrong when it is told to, and writes down what only it can know.

`python -m tests.soak.worker LOG_DIR DURATION_MS TRUTH INDEX BEHAVIOUR AFTER_S`. In the directory TRUTH it leaves files
`INDEX.what` with a time in nanoseconds since 1970: `begun` (the first query was issued), `fault` (just before it does
what it is told to), `completing` (just before its last sample is completed, so before the end of its timed section)
or `stopped` (the same, because it got a TERM before its time was over). `INDEX.pid` has its pid.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import mlperf_loadgen as lg

QPS = 100.0
_DIRT = b"\0\xff\xfe\x1b[2J\x1b]0;owned\x07[bold]x[/bold]\r"


class Told:
    """What this worker does besides being a benchmark."""

    def __init__(self, truth: Path, index: str, behaviour: str, after_s: float, log_dir: Path) -> None:
        self._truth = truth
        self._index = index
        self.behaviour = behaviour
        self.after_s = after_s
        self._log_dir = log_dir

    def note(self, what: str) -> None:
        """Put the time on record, in one step."""
        fresh = self._truth / f".{self._index}.{what}"
        fresh.write_text(str(os.getpid() if what == "pid" else time.time_ns()))
        fresh.rename(self._truth / f"{self._index}.{what}")

    def begin(self) -> None:
        """The timed section has begun."""
        self.note("begun")
        if self.behaviour in _DEEDS:
            threading.Thread(target=self._go_wrong, daemon=True).start()

    def _go_wrong(self) -> None:
        time.sleep(self.after_s)
        self.note("fault")
        _DEEDS[self.behaviour](self._log_dir)


def _truncate(log_dir: Path) -> None:
    os.truncate(log_dir / "mlperf_log_detail.txt", 0)


def _flood(_log_dir: Path) -> None:
    os.write(1, b"\n".join([_DIRT * 40] * 2000))
    os.write(1, b"y" * (2 << 20) + b"\n")
    for number in range(20_000):
        os.write(1, b"heartbeat: completed=%d samples_per_second=nan %d\n" % (number, number))


def _leave_behind(_log_dir: Path) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        os._exit(0)


_DEEDS = {
    "exits 0": lambda _: os._exit(0),
    "exits 1": lambda _: os._exit(1),
    "segfaults": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "dies": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "freezes": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "truncates its log": _truncate,
    "floods its output": _flood,
    "leaves a daemon": _leave_behind,
}


def main(log_dir: Path, duration_ms: int, told: Told) -> None:
    """Be timed for that long, or until TERM."""
    stop = threading.Event()
    ignores = told.behaviour == "ignores TERM"
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ignores else lambda *_: stop.set())
    told.note("pid")
    if told.behaviour == "never starts":
        stop.wait()
        return
    if told.behaviour == "crashes at once":
        sys.exit(3)
    early = told.behaviour in {"ends early", "is invalid"}
    wait_s = told.after_s if early else 1.02 * duration_ms / 1000

    def issue(samples: list[lg.QuerySample]) -> None:
        threading.Thread(target=complete, args=(samples,), daemon=True).start()

    def complete(samples: list[lg.QuerySample]) -> None:
        told.begin()
        first, *rest = samples
        lg.QuerySamplesComplete([lg.QuerySampleResponse(first.id, 0, 0)])
        print(f"heartbeat: completed=1 samples_per_second={QPS}", flush=True)  # noqa: T201 - the controller reads it
        if told.behaviour == "hangs":
            threading.Event().wait()
        stop.wait(wait_s)
        told.note("stopped" if stop.is_set() else "completing")
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in rest])
        threading.Event().wait()  # LoadGen crashes when a thread that completed samples ends before its test does

    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.Offline
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = duration_ms
    settings.min_query_count = 2
    settings.offline_expected_qps = QPS
    logs = lg.LogSettings()
    logs.log_output.outdir = str(log_dir)
    logs.log_output.copy_summary_to_stdout = True
    logs.enable_trace = False
    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(64, 64, lambda _: None, lambda _: None)
    print("Starting running actual test.", flush=True)  # noqa: T201 - likewise
    test = threading.Thread(target=lg.StartTestWithLogSettings, args=(sut, qsl, settings, logs, "no-audit-config"))
    test.start()
    test.join()
    print("Finished running actual test.", flush=True)  # noqa: T201 - likewise
    if told.behaviour == "hangs after its result":
        threading.Event().wait()
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    if told.behaviour == "fails after its result":
        sys.exit(3)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        Told(Path(sys.argv[3]), sys.argv[4], sys.argv[5], float(sys.argv[6]), Path(sys.argv[1])),
    )
