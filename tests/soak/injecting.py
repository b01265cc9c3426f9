"""One run of heteromig as a child, struck as its plan says, and looked at from outside; nothing here reads its files.

What happened is known from the clocks of whoever did it: the workers' own notes, and the injector's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.e2e.product import BOARD, RunCommand, processes_with
from tests.soak.planning import MAIN_DURATION_S, FaultPlan, Stroke, Truth

LIMIT_S = 60.0
"""No run here takes a third of that on a crowded machine."""
GONE_S = 5.0
"""What is left after that is a leak."""
STOPPED_S = 0.5
_POLL_S = 0.01

FLAGS = (
    "--harness", "soak", "--runs-dir", "runs", "--slices", BOARD, "--background-benchmarks", "dlrm,rnnt",
    "--start-time-buffer", "0", "--clean-stop", "2s", "--grace", "500ms", "--sample-period", "100ms",
    "--background-start-timeout", "6s", "--main-exit-timeout", "1s", "--main-timeout", "5s",
    "--main-benchmark-duration", f"{MAIN_DURATION_S}s", "--sim-faults", "faults.json",
)  # fmt: skip


class Seen(Struct, frozen=True):
    """What came of a run. `exit_code` is negative for a signal, None where it had to be killed after `LIMIT_S`.

    `leaks` are sentences. `peak_rss_bytes` is the controller's, as far as it was seen.
    """

    run_dir: Path | None
    exit_code: int | None
    truth: Truth
    leaks: tuple[str, ...]
    took_s: float
    peak_rss_bytes: int
    said: str


def strike_and_see(plan: FaultPlan, home: Path) -> Seen:
    """Run heteromig in `home`, which is empty, under this plan."""
    truth, temporary = home / "truth", home / "tmp"
    truth.mkdir()
    temporary.mkdir()
    started_s = time.monotonic()
    command = RunCommand(
        home,
        ("run", *FLAGS, *plan.flags),
        environ={"SOAK_PLAN": msgspec.json.encode(plan).decode(), "SOAK_TRUTH": str(truth), "TMPDIR": str(temporary)},
        module="tests.soak.product",
    )
    try:
        struck, peak_rss_bytes = _watch(plan, command, truth, started_s)
        exit_code = command.process.poll()
    finally:
        command.close()
    took_s = time.monotonic() - started_s
    runs = sorted((home / "runs").glob("2*"))
    return Seen(
        run_dir=runs[0] if runs else None,
        exit_code=exit_code,
        truth=Truth(stamps=_stamps(truth), strokes=tuple(struck)),
        leaks=(*_left_running(home), *_left_locked(home / "runs"), *_left_lying(temporary)),
        took_s=took_s,
        peak_rss_bytes=peak_rss_bytes,
        said=command.said[-2000:],
    )


def _watch(plan: FaultPlan, command: RunCommand, truth: Path, started_s: float) -> tuple[list[int | None], int]:
    """Until its end: when each stroke had fallen, and the controller's greatest memory."""
    struck: list[int | None] = [None] * len(plan.strokes)
    peak_bytes = 0
    main_s: float | None = None
    while command.process.poll() is None and time.monotonic() < started_s + LIMIT_S:
        if main_s is None and (truth / "0.begun").exists():
            main_s = time.monotonic()
        for number, stroke in enumerate(plan.strokes):
            since_s = main_s if stroke.since == "main" else started_s
            if struck[number] is None and since_s is not None and time.monotonic() >= since_s + stroke.after_s:
                struck[number] = _strike(stroke, command, truth)
        peak_bytes = max(peak_bytes, _peak_rss_bytes(command.pid))
        time.sleep(_POLL_S)
    return struck, peak_bytes


def _strike(stroke: Stroke, command: RunCommand, truth: Path) -> int | None:
    """Do it; the time just after, None where there was nobody to strike yet."""
    if stroke.target == "device":
        fresh = command.home / ".faults.json"
        fresh.write_text(stroke.deed)
        fresh.rename(command.home / "faults.json")
        return time.time_ns()
    pid = _target(stroke, command, truth)
    if pid is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.Signals[stroke.deed])
        if stroke.deed == "SIGSTOP":
            time.sleep(STOPPED_S)
            os.kill(pid, signal.SIGCONT)
        return time.time_ns()
    return None


def _target(stroke: Stroke, command: RunCommand, truth: Path) -> int | None:
    kind, _, number = stroke.target.partition(" ")
    if kind == "controller":
        return command.pid
    if kind == "sampler":
        found = [pid for pid, line in processes_with(str(command.home)).items() if "heteromig.slices.sampler" in line]
        return found[0] if found else None
    try:
        status = Path("/proc", (truth / f"{number}.pid").read_text(), "status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))


def _peak_rss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _stamps(truth: Path) -> dict[str, int]:
    return {path.name: int(path.read_text()) for path in truth.glob("[0-9]*.*") if not path.name.endswith(".pid")}


def _left_running(home: Path) -> list[str]:
    deadline_s = time.monotonic() + GONE_S
    while (left := processes_with(str(home))) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"process left: {line}" for line in left.values()]


def _left_locked(runs: Path) -> list[str]:
    found = []
    for path in runs.glob("**/*.lock"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(f"still locked: {path.name}")
    return found


def _left_lying(temporary: Path) -> list[str]:
    return [f"temporary file left: {path.name}" for path in temporary.rglob("*")]
