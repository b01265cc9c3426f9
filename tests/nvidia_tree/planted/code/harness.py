"""The harness binaries: real LoadGen over a system that answers and computes nothing.

`python -m code.harness FAMILY --scenario=... --logfile_outdir=... --user_conf_path=...`, which is what the files
`build/bin/harness_*` do. What is printed, where, and with which prefix is the family's; texts and line numbers are
those of v2.1.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mlperf_loadgen as lg

from . import habits
from .account import Account
from .measurements import ACCURACY_SAMPLES

_AUDIT_CONFIG = "audit.config"
_ARGUMENTS = (
    *("logfile_outdir", "mlperf_conf_path", "user_conf_path", "test_mode"),
    *("gpu_engines", "scenario", "model"),
)
_OFFLINE_MARGIN = 1.02
_TOO_FAST = 0.8
"""LoadGen has prepared 1.1 times the queries that it expects to need; who answers faster runs out of them."""
_CACHED_S = 0.39
"""What TEST04 took in published results: the same sample again and again is answered at once."""


class Line(NamedTuple):
    """A line that a harness prints, and where in the sources it does."""

    text: str
    source: str = ""


class Family(NamedTuple):
    """What one binary prints; `style` is how: "cout", "info" (`[I] ` on stdout) or "glog" (on stderr)."""

    style: str
    before: tuple[Line, ...]
    start: Line
    finish: Line | None
    after: tuple[Line, ...] = ()


_COUT = (
    Line("Creating QSL."),
    Line("Finished Creating QSL."),
    Line("Setting up SUT."),
    Line("Finished setting up SUT."),
    Line("Starting warmup. Running for a minimum of 5 seconds."),
    Line("Finished warmup. Ran for 5.1s."),
)
_START, _FINISH = "Starting running actual test.", "Finished running actual test."

FAMILIES = {
    "default": Family(
        "cout",
        (Line("&&&& RUNNING Default_Harness # ./build/bin/harness_default"), *_COUT),
        Line(_START),
        Line(_FINISH),
        (Line("Device Device:0.GPU processed:"), Line("&&&& PASSED Default_Harness # ./build/bin/harness_default")),
    ),
    "3dunet": Family(
        "cout",
        (Line("&&&& RUNNING 3D-UNet_Harness # ./build/bin/harness_3dunet"), *_COUT),
        Line(_START),
        Line(_FINISH),
        (Line("Device Device:0.GPU processed:"), Line("&&&& PASSED 3D-UNet_Harness # ./build/bin/harness_3dunet")),
    ),
    "rnnt": Family(
        "info",
        (
            Line("Starting creating QSL."),
            Line("Finished creating QSL."),
            Line("Starting creating SUT."),
            Line("Finished creating SUT."),
            Line("Starting warming up SUT."),
            Line("Finished warming up SUT."),
        ),
        Line(_START),
        Line(_FINISH),
    ),
    "bert": Family(
        "glog",
        (Line("Engines Creation Completed", "bert_server.cc:266"),),
        Line(_START, "main_bert.cc:169"),
        Line(_FINISH, "main_bert.cc:175"),
    ),
    "dlrm": Family(
        "glog",
        (
            Line("Running warmup for 1s.", "dlrm_server.cc:264"),
            Line("Warmup complete, ran for 1.00106s.", "dlrm_server.cc:276"),
        ),
        Line(_START, "main_dlrm.cc:224"),
        Line(_FINISH, "main_dlrm.cc:229"),
    ),
    "triton": Family("cout", (), Line("Start running actual test"), None),
}


class Console:
    """Prints in the style of a family."""

    def __init__(self, style: str) -> None:
        self._style = style
        self._stream = sys.stderr if style == "glog" else sys.stdout

    def say(self, line: Line) -> None:
        """Print and flush one line."""
        self._stream.write(f"{self._prefix(line.source)}{line.text}\n")
        self._stream.flush()

    def filler(self, size_bytes: int) -> Line:
        """A line of that size, prefix and newline included."""
        source = "batch_manager.cc:100"
        return Line("x" * (size_bytes - 1 - len(self._prefix(source))), source)

    def _prefix(self, source: str) -> str:
        if self._style == "glog":
            now_s, fraction = divmod(time.time_ns() // 1000, 1_000_000)
            when = time.strftime("%m%d %H:%M:%S", time.localtime(now_s))
            return f"I{when}.{fraction:06d} {os.getpid():5d} {source}] "
        return "[I] " if self._style == "info" else ""


class NullSystem:
    """Answers each query after the time that its scenario is to take; `begun` is called with the first query.

    LoadGen crashes when a thread that completed samples ends before its test does: this one never ends.
    """

    def __init__(self, settings: lg.TestSettings, seconds_per_query: float, begun: threading.Event) -> None:
        self._offline = settings.scenario == lg.TestScenario.Offline
        self._seconds_per_query = seconds_per_query
        self._begun = begun
        self._waiting: queue.SimpleQueue[list[lg.QuerySample]] = queue.SimpleQueue()
        self._answer = array("B", b"\0\0\0\1")
        threading.Thread(target=self._serve, daemon=True).start()

    def issue(self, samples: list[lg.QuerySample]) -> None:
        """Take a query from LoadGen."""
        self._begun.set()
        self._waiting.put(samples)

    def _serve(self) -> None:
        free_s = 0.0
        while True:
            samples = self._waiting.get()
            half = len(samples) // 2 if self._offline else 0
            self._complete(samples[:half])
            if self._seconds_per_query:
                # By when it is due, and not for so long: short sleeps take longer than they should.
                free_s = max(free_s, time.monotonic()) + self._seconds_per_query
                time.sleep(max(0.0, free_s - time.monotonic()))
            self._complete(samples[half:])

    def _complete(self, samples: list[lg.QuerySample]) -> None:
        address, length = self._answer.buffer_info()
        if samples:
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, address, length) for sample in samples])


def main(argv: list[str]) -> int:
    """Run one LoadGen test; the exit code says nothing of its result."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("family", choices=FAMILIES)
    for name in (
        "logfile_outdir",
        "mlperf_conf_path",
        "user_conf_path",
        "test_mode",
        "gpu_engines",
        "scenario",
        "model",
    ):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args(argv)
    habit = habits.habit()
    family = FAMILIES[options.family]
    console = Console(family.style)
    for line in family.before:
        console.say(line)
    if habit == "crash-early":
        sys.stderr.write("terminate called after throwing an instance of 'std::runtime_error'\n")
        return 1

    settings = read_settings(options, habit)
    asked_s = settings.min_duration_ms / 1000
    begun, over = threading.Event(), threading.Event()
    if habit == "crash":
        _in_background(_crash, begun, min(habits.ends_after_s(), asked_s / 2))
    if habit == "chatty":
        _in_background(_chat, begun, over, console, Account(options.model))
    system = NullSystem(settings, seconds_per_query(settings, habit), begun)
    sut = lg.ConstructSUT(system.issue, lambda: None)
    load_s = habits.load_s() if habit == "slow-start" else 0.0
    qsl = lg.ConstructQSL(ACCURACY_SAMPLES, ACCURACY_SAMPLES, lambda _: time.sleep(load_s), lambda _: None)
    logs = lg.LogSettings()
    logs.log_output.outdir = options.logfile_outdir
    logs.log_output.copy_summary_to_stdout = True
    logs.enable_trace = False
    console.say(family.start)
    lg.StartTestWithLogSettings(sut, qsl, settings, logs, _AUDIT_CONFIG)
    over.set()
    if family.finish is not None:
        console.say(family.finish)
    for line in family.after:
        console.say(line)
    if habit == "hang-after-result":
        threading.Event().wait()
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    return 0


def read_settings(options: argparse.Namespace, habit: str) -> lg.TestSettings:
    """LoadGen's settings from mlperf.conf and user.conf as they are now, changed as the habit wants.

    Raises:
        RuntimeError: they cannot be read.
    """
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, options.scenario)
    settings.mode = getattr(lg.TestMode, options.test_mode)
    # LoadGen's own mlperf.conf wants 24576 samples for resnet50 and so on, but only of benchmarks that it knows.
    # Those of NVIDIA's trees read one file after the other, which LoadGen 6 no longer lets anybody do.
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as both:
        for path in (options.mlperf_conf_path, options.user_conf_path):
            both.write(Path(path).read_text())
        both.flush()
        if settings.FromConfig(both.name, "stand-in", options.scenario) != 0:
            raise RuntimeError(f"{options.mlperf_conf_path} or {options.user_conf_path} cannot be read.")
    if habit == "early-exit":
        early_ms = round(min(habits.ends_after_s() * 1000, settings.min_duration_ms / 2))
        settings.min_duration_ms = max(1, early_ms)
    if habit == "invalid":
        settings.server_target_latency_ns = 1000
    return settings


def seconds_per_query(settings: lg.TestSettings, habit: str) -> float:
    """How long the system takes for one query; Offline has one query in all."""
    duration_s: float = settings.min_duration_ms / 1000
    if settings.scenario == lg.TestScenario.Offline:
        if _repeats_samples():
            return min(_CACHED_S, duration_s / 2)
        return duration_s * (_TOO_FAST if habit == "invalid" else _OFFLINE_MARGIN)
    if settings.scenario == lg.TestScenario.Server:
        return habits.server_s()
    single = settings.scenario == lg.TestScenario.SingleStream
    expected_ns = settings.single_stream_expected_latency_ns if single else settings.multi_stream_expected_latency_ns
    expected_s: float = expected_ns / 1e9
    return expected_s * _TOO_FAST if habit == "invalid" else expected_s


def _repeats_samples() -> bool:
    """Whether the audit.config that LoadGen is about to find is one of TEST04."""
    path = Path(_AUDIT_CONFIG)
    text = path.read_text() if path.exists() else ""
    return "performance_issue_same = 1" in text or "performance_issue_unique = 1" in text


def _in_background(target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def _crash(begun: threading.Event, after_s: float) -> None:
    begun.wait()
    time.sleep(after_s)
    os.write(2, b"CUDA error: an illegal memory access was encountered\n")
    os._exit(1)


def _chat(begun: threading.Event, over: threading.Event, console: Console, account: Account) -> None:
    begun.wait()
    due_s = time.monotonic()
    while not over.is_set():
        line = console.filler(habits.CHATTY_LINE_BYTES)
        try:
            with account.write():
                console.say(line)
        except BrokenPipeError:
            os._exit(128 + signal.SIGPIPE)  # which ends the real binaries; Python ignores it
        due_s += 1 / habits.CHATTY_LINES_PER_S
        over.wait(due_s - time.monotonic())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
