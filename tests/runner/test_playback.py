"""Replaying a run directory: its clock, its signals, and directories that are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.guards import Finding
from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.core.units import NS_PER_MS, MonotonicNs
from heteromig.runner.clock import SystemClock
from heteromig.runner.journal import JOURNAL, read_journal
from heteromig.runner.playback import Interrupted, play
from heteromig.runner.rundir import RUN_JSON
from heteromig.views.silent import Silent
from heteromig.workers.guardian import PROCESSES_FILE
from tests.recordings import RECORDED
from tests.recordings.test_recordings import altered
from tests.views.terminals import terminal

VALID, KILLED = RECORDED / "valid", RECORDED / "controller-killed"
NEVER = 1e-4
"""A speed at which no recording comes to its end."""


class Watching:
    """A reporter that remembers what it was told, and when that was by the journal's clock."""

    def __init__(self, *, ticks: bool = True, each_tick: Callable[[], object] = lambda: None) -> None:
        self.told: list[tuple[str, MonotonicNs]] = []
        self.lines: Mapping[int, str] = {}
        self.wants_ticks = ticks
        self._each_tick = each_tick

    def begin(self, run_directory: str, at_ns: MonotonicNs) -> None:
        assert Path(run_directory).is_absolute()
        self.told.append(("begin", at_ns))

    def transition(self, run: Run, source: Phase, destination: Phase, at_ns: MonotonicNs) -> None:  # noqa: ARG002 - the reporters' protocol
        self.told.append((destination.value, at_ns))

    def rejection(self, run: Run, finding: Finding, at_ns: MonotonicNs) -> None:  # noqa: ARG002 - as above
        self.told.append(("rejection", at_ns))

    def preparation(self, run: Run, at_ns: MonotonicNs) -> None:  # noqa: ARG002 - as above
        self.told.append(("preparation", at_ns))

    def tick(self, run: Run, now_ns: MonotonicNs, last_lines: Mapping[int, str]) -> None:  # noqa: ARG002 - as above
        self.told.append(("tick", now_ns))
        self.lines = dict(last_lines)
        self._each_tick()

    def end(self, at_ns: MonotonicNs) -> None:
        self.told.append(("end", at_ns))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


class Stepping(SystemClock):
    """A clock that goes on when it is read, so that a replay shows the same pictures however busy the machine is."""

    def __init__(self) -> None:
        self._now_ns = 0

    def monotonic_ns(self) -> MonotonicNs:
        self._now_ns += 3 * NS_PER_MS
        return self._now_ns


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of a valid run, to spoil."""
    return Path(shutil.copytree(VALID, tmp_path / "valid"))


@pytest.mark.parametrize("speed", [None, 10.0])
def test_what_is_told_bears_the_times_of_the_journal(speed: float | None) -> None:
    journal = read_journal(VALID)
    times_ns = [event.at_ns for event in journal.events]
    reporter = Watching()
    play(VALID, reporter, speed, Stepping())
    assert reporter.told[0] == ("begin", journal.header.at_ns)
    assert reporter.told[-1] == ("end", max(times_ns))
    entered = {name: at_ns for name, at_ns in reporter.told if name in {phase.value for phase in Phase}}
    assert list(entered) == [phase.value for phase in Phase][1:]
    assert set(entered.values()) <= set(times_ns)
    ticks = [at_ns for name, at_ns in reporter.told if name == "tick"]
    assert ticks
    if speed is not None:
        assert ticks == sorted(ticks)
        assert not set(ticks) <= set(times_ns), "time goes on between events"
    assert journal.header.at_ns <= min(ticks) <= max(ticks) <= max(times_ns)


def test_who_wants_no_pictures_gets_none() -> None:
    reporter = Watching(ticks=False)
    play(VALID, reporter, 50.0)
    assert "tick" not in reporter.names
    assert reporter.names[-2:] == ["finished", "end"]


def test_what_was_done_to_the_gpu_is_told() -> None:
    reporter = Watching(ticks=False)
    play(RECORDED / "valid-layout", reporter, None)
    assert reporter.names.count("preparation") == 4  # begun, done, being taken back, over


def test_last_words_are_those_that_the_journal_has() -> None:
    reporter = Watching()
    played = play(RECORDED / "lenient", reporter, 2.0)  # slow enough for a picture after its exit
    assert reporter.lines[1] == "no such luck"
    assert played.record.workers[1].exit_code == 3


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_a_replay_at_once(signum: signal.Signals) -> None:
    reporter = Watching(each_tick=lambda: signal.pthread_kill(threading.get_ident(), signum))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(Interrupted) as interrupted:
        play(VALID, reporter, NEVER)
    assert interrupted.value.signum == signum
    assert reporter.names == ["begin", "tick", "end"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_terminal_gets_its_cursor_back(tmp_path: Path, signum: signal.Signals, exit_code: int) -> None:
    with terminal() as tty, (tmp_path / "out").open("wb") as out:
        replaying = subprocess.Popen(
            (sys.executable, "-m", "heteromig", "replay", str(VALID), "--speed", str(NEVER)),
            env={**os.environ, "TERM": "xterm", "CI": "", "NO_COLOR": ""},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=tty.stream,
        )
        try:
            assert "\x1b[?25l" in tty.read("looking for slices", within_s=60)
            replaying.send_signal(signum)
            assert tty.read("\x1b[?25h", within_s=60)
            assert replaying.wait(60) == exit_code
        finally:
            replaying.kill()
            replaying.wait()
    assert (tmp_path / "out").read_bytes() == b""


def test_a_run_that_goes_on_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(KILLED, tmp_path / "run"))
    assert "its controller died" in str(play(copy, Silent(), None).ending)
    (copy / PROCESSES_FILE).unlink()  # as on another machine: its process says nothing there
    record = json.loads((copy / RUN_JSON).read_text())
    record["heartbeat_at"] = "2999-01-01T00:00:00.000Z"
    (copy / RUN_JSON).write_text(json.dumps(record))
    assert play(copy, Silent(), None).ending == "The journal ends in main-running: the run is still going on."


def test_a_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(KILLED, tmp_path / "run"))
    whole = play(copy, Silent(), None)
    os.truncate(copy / JOURNAL, (copy / JOURNAL).stat().st_size - 10)
    played = play(copy, Silent(), None)
    assert "The journal ends in main-running, in the middle of a line: " in str(played.ending)
    assert played.record.phases == whole.record.phases


def test_a_finished_run_whose_journal_was_cut_is_none(copy: Path) -> None:
    data = (copy / JOURNAL).read_bytes()
    (copy / JOURNAL).write_bytes(data[: data.index(b'{"line":"event"', len(data) * 9 // 10)])
    with pytest.raises(EvidenceError, match="contradict each other in ended_at, phase"):
        play(copy, Silent(), None)


KNOWN_ONLY_TO_THE_RECORD = {"tool", "host", "observer", "ended_at", "heartbeat_at"}


@pytest.mark.parametrize("name", sorted(set(RunRecord.__struct_fields__) - KNOWN_ONLY_TO_THE_RECORD))
def test_a_record_that_says_something_else_is_noticed(copy: Path, name: str) -> None:
    record = json.loads((copy / RUN_JSON).read_text())
    unnoticed = []
    for changed in altered(record[name]):
        (copy / RUN_JSON).write_text(json.dumps({**record, name: changed}))
        try:
            play(copy, Silent(), None)
        except EvidenceError:
            continue
        unnoticed.append(changed)
    # Commands and their environment are what the record alone knows.
    assert [
        one for one in unnoticed if name != "workers" or _without_commands(one) != _without_commands(record[name])
    ] == []


def _without_commands(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in worker.items() if key not in {"command", "env"}} for worker in workers]


def test_an_altered_event_is_an_error_or_nothing_but_never_a_crash(copy: Path) -> None:
    lines = (copy / JOURNAL).read_text().splitlines()
    replayed = refused = 0
    for place, line in enumerate(lines):
        for changed in altered(json.loads(line)):
            (copy / JOURNAL).write_text("\n".join([*lines[:place], json.dumps(changed), *lines[place + 1 :], ""]))
            try:
                play(copy, Silent(), None)
            except EvidenceError:
                refused += 1
            else:
                replayed += 1
    assert refused > replayed > 0


def _replace(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def replace(run_dir: Path) -> None:
        data = (run_dir / name).read_bytes()
        assert old in data
        (run_dir / name).write_bytes(data.replace(old, new, 1))

    return replace


def _fifo(run_dir: Path) -> None:
    (run_dir / JOURNAL).unlink()
    os.mkfifo(run_dir / JOURNAL)


def _lengthen(run_dir: Path) -> None:
    with (run_dir / JOURNAL).open("ab") as file:
        file.write(b'{"line":"event","number":1,"event":"' + b"x" * 100_000_000 + b'"}\n')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run_dir: (run_dir / JOURNAL).unlink(), "events.jsonl cannot be read: No such file"),
        (lambda run_dir: (run_dir / RUN_JSON).unlink(), "There is no .*run.json"),
        (_fifo, "events.jsonl is not a regular file"),
        (lambda run_dir: (run_dir / JOURNAL).write_bytes(b""), "has no header"),
        (_replace(JOURNAL, b'"schema_version":', b'"schema_version":9'), "written by another version of heteromig"),
        (_replace(RUN_JSON, b'"schema_version": ', b'"schema_version": 9'), "written by another version of heteromig"),
        (_replace(RUN_JSON, b"{", b"["), "run.json is not readable"),
        (_replace(JOURNAL, b"RunStarted", b"RunSt\xffrted"), "Line 2 of the journal .* not readable"),
        (_replace(JOURNAL, b'"controller_pid":', b'"controller_pid":NaN,"":'), "Line 2 of the journal .* not readable"),
        (_replace(JOURNAL, b'"name":"resnet50"', b'"name":"renset50"'), "contradicts itself"),
        (_lengthen, "is not readable"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(copy: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(copy)
    with pytest.raises(EvidenceError, match=words):
        play(copy, Silent(), None)


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="is not a run directory"):
            play(path, Silent(), None)
