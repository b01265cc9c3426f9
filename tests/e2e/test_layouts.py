"""Runs that cut a simulated GPU first, and cut it back in the end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.runner.config import read_config, resolve
from heteromig.runner.journal import read_journal
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import BASE, Say, Start
from tests.e2e.product import BOARD, RunCommand, processes_with, until

HALVES = ("--layout", "2x2g.12gb")
LONG = ("--main-benchmark-duration", "60s")


@pytest.fixture
def build(tmp_path: Path) -> Iterator[RunCommand]:
    """`heteromig build --layout` with the embedded harness."""
    argv = ("build", *BASE, *HALVES, "--engines-dir", "engines")
    command = RunCommand(tmp_path, argv, environ={}, module="heteromig")
    yield command
    command.close()


def cut(say: Say) -> str:
    shown = say("mig", "show", "--slices", BOARD, "--runs-dir", "runs", "--json").finish()
    return str(json.loads(shown.stdout)["gpus"][0]["cut"])


def keeper(home: Path) -> int:
    return next(pid for pid, what in processes_with(str(home)).items() if "heteromig.slices.keeper" in what)


def test_engines_are_built_for_the_slices_of_the_layout(build: RunCommand, run: Start, say: Say) -> None:
    before = cut(say)
    record = build.expect(0)
    assert record.verdict is not None
    assert record.verdict.status == "built"
    assert {worker.role for worker in record.workers if worker.pid is not None} == {"build"}
    assert cut(say) == before
    command = run(*HALVES, "--engines-dir", "engines")
    record = command.expect(0)
    assert {one.profile for one in record.slices} == {"2g.12gb"}
    assert not [worker for worker in record.workers if worker.role == "build"]
    assert [phase.name for phase in record.phases] == [phase.value for phase in Phase]
    assert record.preparation is not None
    assert record.preparation.restored
    assert cut(say) == before
    assert verify_run(command.run_dir).verdict.status == "valid"
    assert resolve(read_config(command.run_dir / "plan.toml")) == read_journal(command.run_dir).header.spec


@pytest.mark.parametrize("who", ["main", "background"])
def test_a_run_that_fails_cuts_back_what_it_cut(quick: Start, say: Say, who: str) -> None:
    before = cut(say)
    command = quick(*HALVES, environ={f"QUICK_{who.upper()}": "crashing"})
    command.expect(5, "exited with status 3")
    assert cut(say) == before
    assert verify_run(command.run_dir).verdict.exit_code == 5


def test_what_nobody_could_cut_back_is_cut_back_by_clean(quick: Start, say: Say) -> None:
    before = cut(say)
    command = quick(*HALVES, *LONG)
    command.wait_for(ev.TimedSectionBegan, 0)
    during = cut(say)
    command.send(signal.SIGSTOP)
    os.kill(keeper(command.home), signal.SIGKILL)
    command.send(signal.SIGKILL)
    command.process.wait()
    until(lambda: not processes_with(str(command.home)), "everything is gone")
    assert cut(say) == during != before
    assert verify_run(command.run_dir).verdict.exit_code == 9
    done = say("clean", "--runs-dir", "runs").finish()
    assert done.exit_code == 0
    assert "is cut as before the run: 4x1g.6gb." in done.stdout
    assert done.stdout.count(" was SIM-MIG-") == 4
    assert cut(say) == before


def test_clean_finds_nothing_where_nothing_is(quick: Start, say: Say) -> None:
    assert say("clean", "--runs-dir", "none").finish().stdout == "Nothing to clean in none.\n"
    quick(*HALVES).expect(0)
    assert say("clean", "--runs-dir", "runs").finish().stdout == "Nothing to clean in runs.\n"
    listed = say("clean", "--runs-dir", "runs", "--json").finish()
    assert json.loads(listed.stdout) == {"schema_version": 1, "dry_run": False, "found": []}
    wrong = say("clean", "--runs-dir", "runs", "--slices", "sim:nothing").finish()
    assert wrong.exit_code == 2
