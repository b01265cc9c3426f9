"""The keeper itself: what ends it, how long it tries, and what it says when nobody listens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from heteromig.slices import keeper
from heteromig.slices.locks import lock_directory, lock_gpus
from heteromig.slices.mig.journal import RUN_JOURNAL, JournalFile, Progress
from heteromig.slices.source import parse_slices
from tests.slices.conftest import Spawn
from tests.slices.mig.bench import Bench
from tests.slices.waiting import until

FOUR = "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"
HALVES = "2g.12gb@0,2g.12gb@2"

Keeper = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "run").mkdir()
    return Bench("sim:a30", tmp_path)


def options(bench: Bench, *more: str) -> tuple[str, ...]:
    return (
        *("--preparation", "layout", "--slices", "sim:a30", "--layout", "2x2g.12gb"),
        *("--runs-dir", str(bench.runs_dir), "--run-dir", str(bench.runs_dir / "run"), *more),
    )


@pytest.fixture
def start(bench: Bench) -> Iterator[Keeper]:
    """Start a keeper of the A30."""
    started: list[subprocess.Popen[str]] = []

    def make(*more: str) -> subprocess.Popen[str]:
        argv = (sys.executable, "-m", "heteromig.slices.keeper", *options(bench, *more))
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0
        )
        started.append(process)
        return process

    yield make
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def said(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line: dict[str, object] = json.loads(process.stdout.readline())
    return line


def test_it_says_what_it_did_and_takes_it_back_at_the_end_of_its_input(start: Keeper, bench: Bench) -> None:
    process = start()
    assert said(process)["type"] == "Prepared"
    assert bench.cut == HALVES
    out, err = process.communicate("an order\n")
    assert json.loads(out)["type"] == "Restored"
    assert [json.loads(line)["type"] for line in err.splitlines()] == ["Prepared", "Restored"]
    assert (process.returncode, bench.cut) == (0, FOUR)


def test_no_signal_ends_it_before_its_controller(start: Keeper, bench: Bench) -> None:
    process = start()
    said(process)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        process.send_signal(signum)
    out, _ = process.communicate()
    assert json.loads(out)["type"] == "Restored"
    assert bench.cut == FOUR


def test_it_takes_back_what_it_did_when_nobody_listens(start: Keeper, bench: Bench) -> None:
    process = start()
    said(process)
    for stream in (process.stdout, process.stderr, process.stdin):
        assert stream is not None
        stream.close()
    assert process.wait() == 0
    assert bench.cut == FOUR


def test_a_successor_finishes_what_was_begun(start: Keeper, bench: Bench) -> None:
    process = start()
    said(process)
    process.kill()
    process.wait()
    assert bench.cut == HALVES
    process = start("--only-restore")
    assert said(process)["type"] == "Restored"
    assert bench.cut == FOUR
    process = start("--only-restore")
    assert said(process)["what"] == "The GPU is cut as before the run, and never was otherwise."


def main(bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *more: str) -> list[str]:
    """The same within this process, with an input that has ended; the kinds of what it said."""
    before = {signum: signal.getsignal(signum) for signum in keeper._SIGNALS}
    with Path(os.devnull).open("rb") as nothing:
        monkeypatch.setattr(keeper, "_STDIN", nothing.fileno())
        try:
            assert keeper.main(options(bench, *more)) == 0
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
    return [json.loads(line)["type"] for line in capfd.readouterr().out.splitlines()]


def test_whoever_is_still_there_is_waited_for(
    bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, spawn: Spawn
) -> None:
    with ExitStack() as held:
        keeper._locked(keeper._options(options(bench)), held).prepare()
    slices = [device.uuid for device in bench.look.devices]
    stranger = spawn(visible=slices[0])
    monkeypatch.setattr(keeper, "_RETRY_S", 0.01)
    monkeypatch.setattr(keeper, "RESTORE_PATIENCE_S", 0.1)
    assert main(bench, capfd, monkeypatch, "--only-restore") == ["NotRestored"]
    assert bench.cut == HALVES
    monkeypatch.setattr(keeper, "RESTORE_PATIENCE_S", 30.0)
    tries: list[float] = []

    def leave_after_some(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            stranger.kill()
            stranger.wait()

    monkeypatch.setattr(time, "sleep", leave_after_some)
    assert main(bench, capfd, monkeypatch, "--only-restore") == ["Restored"]
    assert len(tries) >= 3
    assert bench.cut == FOUR


def test_whoever_has_the_lock_is_waited_for_by_a_successor_only(
    bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(bench, capfd, monkeypatch) == ["Prepared", "Restored"]
    held = lock_gpus([bench.uuid], lock_directory(parse_slices("sim:a30"), bench.runs_dir), pid=4242)
    monkeypatch.setattr(time, "sleep", lambda _: held.close())
    assert main(bench, capfd, monkeypatch) == ["Refused"]
    assert main(bench, capfd, monkeypatch, "--only-restore") == ["Restored"]


def is_applied(bench: Bench) -> bool:
    journal = JournalFile(bench.runs_dir / "run" / RUN_JOURNAL).read()
    return journal is not None and journal.progress is Progress.APPLIED


def test_a_full_disk_keeps_it_from_nothing_but_saying_so(bench: Bench) -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            (sys.executable, "-m", "heteromig.slices.keeper", *options(bench)),
            stdin=subprocess.PIPE,
            stdout=full,
            stderr=full,
        )
        until(lambda: is_applied(bench), "it is cut")
        process.communicate()
    assert process.returncode == 0
    assert bench.cut == FOUR
