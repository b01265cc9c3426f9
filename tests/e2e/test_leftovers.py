"""`heteromig clean` after runs of which more was killed than anything can be left to put right by itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.runner.cleaning import Outcome, clean_runs
from heteromig.runner.survivors import GUARDIAN, KEEPER, ProcessNote, read_notes, survivors
from heteromig.runner.verification import verify_run
from heteromig.workers.guardian import PROCESSES_FILE, read_process
from tests.e2e.conftest import Say
from tests.e2e.conftest import Start as StartQuick
from tests.e2e.product import BOARD, RunCommand, processes_with, until
from tests.e2e.test_layouts import cut

NOBODY = 65534

STRAYS = """
import os, signal, time
def stray(name, session):
    if os.fork() == 0:
        if session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if pid := os.fork():
            print(name, pid, flush=True)  # before anybody hears of a start
            os._exit(0)
        time.sleep(1000)
    os.wait()
stray("stayed", False)
stray("left", True)
print("start", flush=True)
time.sleep(1000)
"""
"""A program with two descendants that have no parent in it any more; one of them left its session too."""


class Killed:
    """A run with `STRAYS` beside main, of which a test kills what it wants."""

    def __init__(self, command: RunCommand) -> None:
        self.command = command
        self.background = command.wait_for(ev.WorkerSpawned, 1)
        command.wait_for(ev.StartAnnounced, 0)
        self.main = command.wait_for(ev.WorkerSpawned, 0)
        (said,) = (path.read_text() for path in command.run_dir.glob("workers/1-*/stdout.log"))
        self.strays = {line.split()[0]: int(line.split()[1]) for line in said.splitlines() if " " in line}

    @property
    def guardians(self) -> set[int]:
        """All processes that guard a worker, be there several for one."""
        return {note.pid for note in read_notes(self.command.run_dir) if note.role == GUARDIAN}

    def kill_all(self, *, guardians: signal.Signals) -> None:
        """The controller is killed, and cannot notice what happens to its guardians in the same moment."""
        self.command.send(signal.SIGSTOP)
        for pid in self.guardians:
            os.kill(pid, guardians)
        self.command.send(signal.SIGKILL)
        self.command.process.wait()


Start = Callable[[], Killed]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    commands: list[RunCommand] = []

    def start() -> Killed:
        config = tmp_path / "programs.toml"
        main: dict[str, Any] = {"argv": ["{python}", "-c", "import time; print('start', flush=True); time.sleep(1000)"]}
        tables = {"measured": {**main, "result": "p=(?P<p>.)"}, "beside": {"argv": ["{python}", "-c", STRAYS]}}
        config.write_text(
            "".join(
                f'[command.{name}]\nstart = "^start$"\n'
                + "".join(f"{key} = {json.dumps(one)}\n" for key, one in table.items())
                for name, table in tables.items()
            )
        )
        argv = (
            *("run", "--config", str(config), "--slices", BOARD, "--runs-dir", "runs", "--start-time-buffer", "0"),
            *("--background-benchmarks", "beside", "--main-benchmark-duration", "60s"),
        )
        commands.append(RunCommand(tmp_path, argv, environ={}, module="heteromig", name=f"run{len(commands)}"))
        return Killed(commands[-1])

    yield start
    for command in commands:
        command.close()
    for pid in processes_with(str(tmp_path)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.state not in "ZX"


def _left(run: Killed) -> set[int]:
    return {pid for pid in processes_with(str(run.command.home)) if _is_alive(pid)}


def test_what_controller_and_guardians_left_that_were_killed_at_once(start: Start, say: Say) -> None:
    run = start()
    run.kill_all(guardians=signal.SIGKILL)
    strays = set(run.strays.values())
    until(lambda: _left(run) == strays, "harnesses and sampler are gone, and only what had no parent is left")

    dry = say("clean", "--dry-run", "--json").finish()
    assert dry.exit_code == 0
    told = [one for one in json.loads(dry.stdout)["found"] if one["what"] == "processes"]
    assert [one["outcome"] for one in told] == ["to do"]
    assert {process["pid"] for process in told[0]["processes"]} == strays
    assert _left(run) == strays

    done = say("clean").finish()
    assert (done.exit_code, done.stderr) == (0, "")
    assert "2 processes that outlived the run's controller were killed" in done.stdout
    assert _left(run) == set()
    assert verify_run(run.command.run_dir).verdict.exit_code == 9
    again = say("clean").finish()
    assert (again.exit_code, again.stdout) == (0, "Nothing to clean in runs.\n")


def test_what_stopped_guardians_hold_on_to(start: Start, say: Say) -> None:
    run = start()
    run.kill_all(guardians=signal.SIGSTOP)
    expected = {*run.strays.values(), *run.guardians, run.background.pid, run.main.pid}
    until(lambda: _left(run) == expected, "the sampler is gone")
    done = say("clean", "--json").finish()
    assert done.exit_code == 0
    told = [one for one in json.loads(done.stdout)["found"] if one["what"] == "processes"]
    assert {process["pid"] for process in told[0]["processes"]} == expected
    assert told[0]["outcome"] == "done"
    assert _left(run) == set()


def test_a_keeper_that_is_stopped_does_not_keep_the_gpu(quick: StartQuick, say: Say) -> None:
    before = cut(say)
    command = quick("--layout", "2x2g.12gb", "--main-benchmark-duration", "60s")
    command.wait_for(ev.TimedSectionBegan, 0)
    (stopped,) = (note.pid for note in read_notes(command.run_dir) if note.role == KEEPER)
    os.kill(stopped, signal.SIGSTOP)
    command.send(signal.SIGKILL)
    command.process.wait()
    until(lambda: [*processes_with(str(command.home))] == [stopped], "guardians and sampler have ended")
    done = say("clean", "--json").finish()
    assert done.exit_code == 0, done.stderr
    assert [(one["what"], one["outcome"]) for one in json.loads(done.stdout)["found"]][:2] == [
        ("processes", "done"),
        ("layout", "done"),
    ]
    assert processes_with(str(command.home)) == {}
    assert cut(say) == before


def test_a_run_that_goes_on_is_left_alone_be_it_stopped(start: Start) -> None:
    run = start()
    before = _left(run)
    assert before >= {run.command.pid, *run.guardians, *run.strays.values()}
    assert clean_runs(run.command.runs) == ()
    run.command.send(signal.SIGSTOP)
    assert clean_runs(run.command.runs) == ()
    assert _left(run) == before
    run.command.send(signal.SIGCONT)
    run.command.send(signal.SIGTERM)
    run.command.expect(143)
    assert clean_runs(run.command.runs) == ()


def _rewrite(run_dir: Path, **changes: object) -> None:
    """As if the run had been written down on another boot, in another container, or before its pids came round."""
    for path in run_dir.rglob(PROCESSES_FILE):
        notes = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        for note in notes:
            note.update({key: change(note) if callable(change) else change for key, change in changes.items()})
        path.write_bytes(b"".join(msgspec.json.encode(note) + b"\n" for note in notes))


def test_nothing_is_signalled_that_may_be_something_else(start: Start) -> None:
    run = start()
    run_dir = run.command.run_dir
    run.kill_all(guardians=signal.SIGKILL)
    strays = set(run.strays.values())
    until(lambda: _left(run) == strays, "only strays are left")
    told = {path: path.read_bytes() for path in run_dir.rglob(PROCESSES_FILE)}
    assert {process.pid for process in survivors(read_notes(run_dir))} == strays

    for changes in (
        {"boot_id": "another"},
        {"boot_id": ""},
        {"pid_namespace": "pid:[1]"},
        # Of every process something else wrote later got the pid, and there is no mark of it.
        {"start_time": lambda note: note["start_time"] + 10**9},
    ):
        _rewrite(run_dir, **changes)
        assert not [one for one in clean_runs(run.command.runs) if one.what == "processes"]
        assert _left(run) == strays
        assert verify_run(run_dir).verdict.exit_code == 9
        for path, text in told.items():
            path.write_bytes(text)
    assert [one.outcome for one in clean_runs(run.command.runs) if one.what == "processes"] == [Outcome.DONE]
    assert _left(run) == set()


def test_a_pid_that_came_round_is_not_killed_for_its_number(start: Start) -> None:
    run = start()
    run.kill_all(guardians=signal.SIGKILL)
    bystander = os.fork()
    if bystander == 0:
        signal.pause()
        os._exit(0)
    try:
        _rewrite(run.command.run_dir, pid=lambda note: bystander if note["role"] == "harness" else note["pid"])
        (found,) = (one for one in clean_runs(run.command.runs) if one.what == "processes")
        assert bystander not in {process.pid for process in found.processes}
        assert _is_alive(bystander)
    finally:
        os.kill(bystander, signal.SIGKILL)
        os.waitpid(bystander, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_nothing_is_killed_because_of_what_somebody_else_wrote(start: Start) -> None:
    run = start()
    run.kill_all(guardians=signal.SIGKILL)
    strays = set(run.strays.values())
    until(lambda: _left(run) == strays, "only strays are left")
    (path,) = run.command.run_dir.glob(f"workers/1-*/{PROCESSES_FILE}")
    os.chown(path, NOBODY, NOBODY)
    (found,) = (one for one in clean_runs(run.command.runs) if one.what == "processes")
    assert found.outcome is Outcome.FAILED
    assert f"belongs to another user (uid {NOBODY})" in found.sentence
    os.chown(path, 0, 0)
    os.chown(run.command.run_dir, NOBODY, NOBODY)
    assert clean_runs(run.command.runs) == (), "and a directory of somebody else is his to clean"
    os.chown(run.command.run_dir, 0, 0)
    assert _left(run) == strays


@pytest.mark.parametrize("text", ["{", '{"pid": "1"}', "[]", "\xff", "null", "1e999"])
def test_a_record_that_is_none_kills_nobody_and_is_said(tmp_path: Path, text: str) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / PROCESSES_FILE).write_bytes(text.encode("latin-1") + b"\n")
    (found,) = clean_runs(tmp_path)
    assert found.outcome is Outcome.FAILED
    assert "so no process is stopped because of it" in found.sentence


def test_a_record_that_was_cut_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    line = msgspec.json.encode(ProcessNote("boot", "pid:[1]", "controller", 1, 2))
    (run_dir / PROCESSES_FILE).write_bytes(line + b"\n" + line[:20])
    assert read_notes(run_dir) == (ProcessNote("boot", "pid:[1]", "controller", 1, 2),)
