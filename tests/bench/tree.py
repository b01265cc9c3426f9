"""Handover and chatter with NVIDIA's way of running: real make, a driver, real LoadGen, in the stand-in tree."""

from __future__ import annotations

import statistics
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.logs.detail import read_detail
from heteromig.logs.loadgen import DETAIL_LOG, SUMMARY_LOG
from tests.bench import original, real
from tests.bench.handover import BANNER_LINES, BUDGET_S
from tests.bench.launching import DEADLINE_S, MeasuringFailedError, read_exit, scratch
from tests.bench.table import MISSED, Row, judge_median, ratio, spread
from tests.nvidia_tree.planted.code.habits import CHATTY_LINE_BYTES, CHATTY_LINES_PER_S
from tests.nvidia_tree.tree import Write, environment, plant, writes

RUNS = 5
SHORT_S = 0.5
WINDOW_S = 30.0
"""So much of each background's chatter counts, from its second line on; also how long main is timed in the last run."""
BACKGROUNDS = 6


class _Command(Struct):
    """As much of `command.json` as it takes to run the same once more."""

    argv: tuple[str, ...]
    env: dict[str, str]


class Waited(Struct, frozen=True):
    """How long one background was kept waiting in its window."""

    writes: int
    blocked: int
    blocked_s: float


def measure() -> list[Row]:
    """Runs of heteromig, the last one long, then the same commands in the original's way; all backgrounds chatter."""
    with scratch() as name:
        root = Path(name)
        tree = plant(root, with_engines=True)
        ours = [handover_s(run(tree, root / "runs", SHORT_S, root / "short")) for _ in range(RUNS)]
        run_dir = run(tree, root / "runs", WINDOW_S, root / "long")
        ours.append(handover_s(run_dir))
        our_waits = waits(root / "long")
        theirs, their_waits = original_way(tree, root / "original", run_dir)
    blocked_s = [waited.blocked_s for waited in our_waits]
    their_blocked_s = [waited.blocked_s for waited in their_waits]
    return [
        Row(
            what=f"last evidence on disk -> main's process, stand-in tree ({BANNER_LINES} banner lines each)",
            measured=spread(ours, "s"),
            budget=f"<= {BUDGET_S} s",
            verdict=judge_median(ours, BUDGET_S),
        ),
        Row(
            what="  the same make commands, 0.5 s a line and 10 polls a second",
            measured=spread([theirs], "s"),
            budget="",
            verdict=ratio(theirs, statistics.median(ours)),
        ),
        Row(
            what=f"blocked on stdout, stand-in tree ({CHATTY_LINES_PER_S} lines/s of {CHATTY_LINE_BYTES} bytes each)",
            measured=_waited(our_waits),
            budget="0",
            verdict=MISSED if any(blocked_s) else "kept",
        ),
        Row(
            what="  the same make commands, 0.5 s a line",
            measured=_waited(their_waits),
            budget="",
            verdict=ratio(statistics.median(their_blocked_s), statistics.median(blocked_s)),
        ),
    ]


def run(tree: Path, runs_dir: Path, main_s: float, noted: Path) -> Path:
    """One run of heteromig with no buffer, whose backgrounds account for what they write in `noted`; its directory."""
    options = (
        "--harness", "make",
        "--harness-dir", str(tree),
        "--slices", "sim:a100-sxm-80gb",
        "--runs-dir", str(runs_dir),
        "--main-benchmark-duration", f"{main_s * 1000:.0f}",
        "--start-time-buffer", "0",
        "--no-live",
    )  # fmt: skip
    real.run_with(options, cwd=tree, environ=_environ(noted))
    return (runs_dir / "latest").resolve()


def handover_s(run_dir: Path) -> float:
    """From the last background's evidence to main's process."""
    logs = list(run_dir.glob(f"workers/*-background-*/logs/**/{DETAIL_LOG}"))
    (main_dir,) = run_dir.glob("workers/0-main-*")
    return (read_exit(main_dir).started_utc_ns - last_logged_utc_ns(logs)) / 1e9


def last_logged_utc_ns(logs: list[Path]) -> int:
    """When the last of the backgrounds' LoadGens logged that its timed section begins.

    LoadGen makes all its files when its log begins, and writes to the summary again only at the end of its run: until
    then that file's time is the begin of the log (early by a tick of the kernel's and what LoadGen does before it
    starts to count), and `time_ms` counts from there. LoadGen writes its log every 10 ms. So what this gives is before
    the evidence was on disk, by 13 to 16 ms where both were seen, and a handover looks longer by as much, not shorter.
    """
    if len(logs) != BACKGROUNDS:
        raise MeasuringFailedError(f"{len(logs)} backgrounds of {BACKGROUNDS} left a log")
    return max(_logged_utc_ns(log) for log in logs)


def _logged_utc_ns(log: Path) -> int:
    summary = log.with_name(SUMMARY_LOG).stat()
    offset_ns = read_detail(log).timed_begin_offset_ns
    if summary.st_size or offset_ns is None:
        raise MeasuringFailedError(f"{log} is not that of a background that was ended while it was timed")
    return summary.st_mtime_ns + offset_ns


def original_way(tree: Path, directory: Path, run_dir: Path) -> tuple[float, list[Waited]]:
    """The commands of a run under the original's way of reading, in the tree itself; what they leave is in `directory`.

    Each has a LOG_DIR of its own, which the original does not give them: the logs are looked at here.
    """
    directory.mkdir()
    noted = directory / "writes"
    commands = {
        path.parent.name: msgspec.json.decode(path.read_bytes(), type=_Command)
        for path in sorted(run_dir.glob("workers/*/command.json"))
    }
    environs = {
        name: {**_environ(noted), **command.env, "LOG_DIR": str(directory / name)} for name, command in commands.items()
    }
    main, *backgrounds = commands
    with ExitStack() as stack:
        watched = [
            stack.enter_context(closing(original.Watched(commands[name].argv, tree, environs[name])))
            for name in backgrounds
        ]
        original.wait_for_all(watched)
        started_ns = time.time_ns()
        ended = subprocess.run(
            commands[main].argv,
            cwd=tree,
            env=environs[main],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if ended.returncode != 0:
            raise MeasuringFailedError(f"main ended with {ended.returncode}: {ended.stdout.decode()}")
        logs = list(directory.glob(f"*-background-*/**/{DETAIL_LOG}"))
        handover = (started_ns - last_logged_utc_ns(logs)) / 1e9
        for one in watched:
            one.hang_up()  # whose write is under way sees a broken pipe, accounts for it, and ends
        for one in watched:
            if not one.has_ended_within(DEADLINE_S):
                raise MeasuringFailedError("a background with a broken pipe did not end")
    return handover, waits(noted)


def waits(noted: Path) -> list[Waited]:
    """What each background's account says of its window."""
    by_process: dict[int, list[Write]] = {}
    for write in writes(noted):
        by_process.setdefault(write.pid, []).append(write)
    if len(by_process) != BACKGROUNDS:
        raise MeasuringFailedError(f"{len(by_process)} backgrounds of {BACKGROUNDS} chattered")
    return [_waited_by(lines) for lines in by_process.values()]


def _waited_by(lines: list[Write]) -> Waited:
    """The first line does not count: it waits for Python's lock while LoadGen hands over its one query."""
    over_ns = lines[1].at_ns + int(WINDOW_S * 1e9)
    if lines[-1].at_ns + lines[-1].took_ns < over_ns:
        raise MeasuringFailedError(f"{lines[0].benchmark} chattered for less than {WINDOW_S:g} s")
    inside = [line for line in lines[1:] if line.at_ns < over_ns]
    blocked_ns = [min(line.took_ns, over_ns - line.at_ns) for line in inside if line.blocked]
    return Waited(writes=len(inside), blocked=len(blocked_ns), blocked_s=sum(blocked_ns) / 1e9)


def _waited(waited: list[Waited]) -> str:
    blocked, written = sum(one.blocked for one in waited), sum(one.writes for one in waited)
    return f"{spread([one.blocked_s for one in waited], 's')} of {WINDOW_S:g} s, in {blocked} of {written} writes"


def _environ(noted: Path) -> dict[str, str]:
    return environment(
        {"STANDIN_BACKGROUND": "chatty", "STANDIN_CONFIG_LINES": str(BANNER_LINES), "STANDIN_WRITES": str(noted)}
    )
