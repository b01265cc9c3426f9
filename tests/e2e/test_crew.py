"""Backgrounds that go on from run to run: each run proves its own overlap, and nobody is left in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.core.record import RunRecord
from heteromig.runner.journal import read_journal
from heteromig.runner.rundir import RUN_JSON
from heteromig.runner.verification import verify_run
from tests.e2e.campaign import Told
from tests.e2e.product import REPOSITORY, processes_with, until


class Campaign:
    """The child that does the runs."""

    def __init__(self, home: Path, *, background_duration: str = "10m") -> None:
        self.home = home
        self.process = subprocess.Popen(
            (sys.executable, "-m", "tests.e2e.campaign", "runs", background_duration),
            cwd=home,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{home / 'mark'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def told(self) -> Told:
        assert self.process.stdout is not None
        return msgspec.json.decode(self.process.stdout.readline(), type=Told)

    def run(self) -> Told:
        self.begin()
        return self.told()

    def end(self) -> None:
        """End the input, and wait for the end of everything."""
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        assert processes_with(str(self.home)) == {}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    started = Campaign(tmp_path)
    yield started
    started.close()


def _spawned(told: Told) -> dict[int, ev.WorkerSpawned]:
    events = read_journal(Path(told.run_dir)).events
    return {event.worker: event for event in events if isinstance(event, ev.WorkerSpawned)}


def _pids(told: Told) -> dict[int, int]:
    return {worker: event.pid for worker, event in _spawned(told).items() if worker}


def test_the_second_run_finds_the_backgrounds_at_work(campaign: Campaign) -> None:
    first, second = campaign.run(), campaign.run()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert _pids(first) == _pids(second)
    since = {worker: event.since_ns for worker, event in _spawned(second).items()}
    assert since[0] is None
    assert since[1] is not None
    assert set(_pids(second).values()) <= processes_with(str(campaign.home)).keys()
    campaign.end()
    for told in (first, second):
        run_dir = Path(told.run_dir)
        found = verify_run(run_dir)
        assert found.verdict.status == "valid", found.verdict
        assert found.certificate is not None
        assert {one.end_source for one in found.certificate.overlap.backgrounds} == {"alive and still timed"}
        record = msgspec.json.decode((run_dir / RUN_JSON).read_bytes(), type=RunRecord)
        assert {(worker.exit_code, worker.stopped_by) for worker in record.workers[1:]} == {(None, None)}
        assert (run_dir / "workers/1-background-dlrm/stdout.log").stat().st_size


def test_one_that_died_between_two_runs_is_replaced(campaign: Campaign) -> None:
    before = _pids(campaign.run())
    os.kill(before[1], signal.SIGKILL)
    until(lambda: before[1] not in processes_with(str(campaign.home)), "the end of a background")
    second = campaign.run()
    campaign.end()
    assert second.exit_code == 0
    after = _pids(second)
    assert after[1] != before[1]
    assert after[2] == before[2]
    assert verify_run(Path(second.run_dir)).verdict.exit_code == 0


def test_one_that_dies_in_a_run_spoils_that_run_alone(campaign: Campaign) -> None:
    first = campaign.run()
    before = _pids(first)
    os.kill(before[1], signal.SIGSTOP)  # so that it is sure to be alive when it is taken over
    campaign.begin()
    until(lambda: len(list((campaign.home / "runs").glob("2*/events.jsonl"))) > 1, "the second run")
    run_dir = max((campaign.home / "runs").glob("2*"), key=lambda path: path.stat().st_ctime_ns)
    until(lambda: b'"WorkerSpawned"' in (run_dir / "events.jsonl").read_bytes(), "it to be taken over")
    os.kill(before[1], signal.SIGKILL)
    second = campaign.told()
    third = campaign.run()
    campaign.end()
    assert (second.exit_code, third.exit_code) == (5, 0)
    assert verify_run(Path(second.run_dir)).verdict.exit_code == 5
    assert verify_run(Path(third.run_dir)).verdict.exit_code == 0
    assert _pids(third)[2] == before[2]
    assert _pids(third)[1] != before[1]
    assert (Path(second.run_dir) / "workers/1-background-dlrm/exit.json").exists()


def test_one_that_would_not_last_is_replaced_before_the_run(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, background_duration="17s")  # 15 s are allowed for the start of main
    try:
        first = campaign.run()
        until(lambda: _age_s(_pids(first)[1]) > 2, "it to grow old")
        second = campaign.run()
        campaign.end()
    finally:
        campaign.close()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert not set(_pids(first).values()) & set(_pids(second).values())


def _age_s(pid: int) -> float:
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return uptime_s - ticks / os.sysconf("SC_CLK_TCK")


def test_a_campaign_that_is_killed_leaves_nobody(campaign: Campaign) -> None:
    pids = set(_pids(campaign.run()).values())
    assert pids <= processes_with(str(campaign.home)).keys()
    campaign.close()
    until(lambda: not processes_with(str(campaign.home)), "everybody to be gone")
