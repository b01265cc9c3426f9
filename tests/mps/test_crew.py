"""Backgrounds and their daemon that go on from run to run: started once, ended once, replaced where one was lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from heteromig.core.record import RunRecord
from heteromig.runner.rundir import KEEPER_LOG, RUN_JSON
from heteromig.runner.verification import verify_run
from heteromig.slices.mps.journal import RUN_JOURNAL, ShareJournal, read_journal
from tests.e2e.campaign import Told
from tests.e2e.product import processes_with, until
from tests.e2e.test_crew import Campaign, age_s, pids
from tests.e2e.test_layouts import keeper
from tests.mps.conftest import PROGRAMS
from tests.mps.test_cleaning import clean

CONFIG = """
slices = "mps:3x14"
runs-dir = "runs"
sample-period = "100ms"
main.duration = "MAIN"
background = { benchmarks = "BESIDE", duration = "10m" }
timing = { start-time-buffer = 0, clean-stop = "5s", grace = "GRACE" }
"""

Begin = Callable[..., Campaign]


@pytest.fixture
def begin(tmp_path: Path, environ: dict[str, str]) -> Iterator[Begin]:
    """Start runs of one crew on shares of the GPU."""
    started: list[Campaign] = []

    def start(main: str = "500ms", beside: str = "steady,steady", grace: str = "5s", lasts: str = "10m") -> Campaign:
        config = CONFIG.replace("MAIN", main).replace("BESIDE", beside).replace("GRACE", grace).replace("10m", lasts)
        (tmp_path / "shared.toml").write_text(config + PROGRAMS.replace("HOME", str(tmp_path)))
        started.append(Campaign(tmp_path, config=("shared.toml",), environ=environ))
        return started[-1]

    yield start
    for campaign in started:
        campaign.close()


def daemons(campaign: Campaign) -> list[ShareJournal]:
    """What is written down of each daemon that was ever started, in that order."""
    found = [read_journal(path) for path in sorted((campaign.home / "runs").glob(f"*/{RUN_JOURNAL}"))]
    return [journal for journal in found if journal is not None]


def record_of(told: Told) -> RunRecord:
    return msgspec.json.decode((Path(told.run_dir) / RUN_JSON).read_bytes(), type=RunRecord)


def nothing_left(campaign: Campaign) -> None:
    assert processes_with(str(campaign.home)) == {}
    for journal in daemons(campaign):
        assert journal.ended
        assert not Path(journal.directory).exists()
        assert processes_with(journal.directory) == {}


def test_one_daemon_serves_all_runs(begin: Begin) -> None:
    campaign = begin()
    runs = [campaign.run() for _ in range(3)]
    assert [told.exit_code for told in runs] == [0, 0, 0]
    assert pids(runs[0]) == pids(runs[1]) == pids(runs[2])
    assert len(daemons(campaign)) == 1
    assert not daemons(campaign)[0].ended
    campaign.end()
    nothing_left(campaign)
    for told in runs:
        found = verify_run(Path(told.run_dir))
        assert found.verdict.status == "valid", found.verdict
        assert (Path(told.run_dir) / "mps" / "stdout.log").read_text().count("Start\n") == 1
        assert not (Path(told.run_dir) / RUN_JOURNAL).exists(), "there is nothing to be taken back in its name"
    assert [(one.preparation and one.preparation.sentence) for one in map(record_of, runs)] == [
        "It stays so for the next run of the campaign."
    ] * 3
    environments = {worker.env["CUDA_MPS_PIPE_DIRECTORY"] for told in runs for worker in record_of(told).workers}
    assert environments == {daemons(campaign)[0].directory}


@pytest.mark.parametrize("victim", ["daemon", "server", "keeper"])
def test_what_dies_between_two_runs_is_replaced_with_all_that_was_on_it(begin: Begin, victim: str) -> None:
    campaign = begin()
    first = campaign.run()
    (journal,) = daemons(campaign)
    lost = {"daemon": journal.processes[0].pid, "server": journal.processes[1].pid, "keeper": keeper(campaign.home)}
    os.kill(lost[victim], signal.SIGKILL)
    second = campaign.run()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert len(daemons(campaign)) == 2
    assert not set(pids(first).values()) & set(pids(second).values())
    campaign.end()
    nothing_left(campaign)
    assert verify_run(Path(second.run_dir)).verdict.status == "valid"


def test_a_daemon_that_dies_in_a_run_ends_that_run_and_the_next_has_another(begin: Begin) -> None:
    campaign = begin(main="3s")
    first = campaign.run()
    campaign.begin()
    campaign.wait_for_main(2)
    os.kill(daemons(campaign)[0].processes[0].pid, signal.SIGKILL)
    second, third = campaign.told(), campaign.run()
    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 7, 0)
    campaign.end()
    nothing_left(campaign)
    assert len(daemons(campaign)) == 2
    for told in (second, third):
        assert verify_run(Path(told.run_dir)).verdict.exit_code == told.exit_code
    assert pids(first) == pids(second), "it was taken over"
    assert '"Lost"' in (Path(second.run_dir) / KEEPER_LOG).read_text()


def test_a_client_that_dies_hard_takes_the_others_along(begin: Begin) -> None:
    campaign = begin(main="3s")
    first = campaign.run()
    campaign.begin()
    campaign.wait_for_main(2)
    os.kill(pids(first)[1], signal.SIGKILL)
    second, third = campaign.told(), campaign.run()
    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 5, 0)
    campaign.end()
    nothing_left(campaign)
    assert not set(pids(first).values()) & set(pids(third).values())
    assert len(daemons(campaign)) == 2


def test_work_is_taken_off_the_gpu_in_a_run_that_took_it_over(begin: Begin) -> None:
    campaign = begin(main="3s", beside="stubborn", grace="200ms")
    first = campaign.run()
    campaign.begin()
    campaign.wait_for_main(2)
    os.kill(campaign.process.pid, signal.SIGINT)
    second = campaign.told()
    campaign.end()
    nothing_left(campaign)
    assert (first.exit_code, second.exit_code) == (0, 130)
    assert pids(first) == pids(second)
    stubborn = record_of(second).workers[1]
    assert (stubborn.exit_code, stubborn.signal) == (3, None)
    assert "terminated by the server" in (Path(second.run_dir) / stubborn.directory / "stdout.log").read_text()


def test_those_that_would_not_last_are_replaced_on_the_same_daemon(begin: Begin) -> None:
    campaign = begin(lasts="17s")  # 15 s are allowed for the start of main
    first = campaign.run()
    until(lambda: age_s(pids(first)[1]) > 2, "it to grow old")
    second = campaign.run()
    campaign.end()
    nothing_left(campaign)
    assert (first.exit_code, second.exit_code, len(daemons(campaign))) == (0, 0, 1)
    assert not set(pids(first).values()) & set(pids(second).values())


@pytest.mark.parametrize("when", ["between", "within"])
def test_a_campaign_that_is_killed_leaves_nothing(begin: Begin, when: str) -> None:
    campaign = begin(main="3s")
    campaign.run()
    if when == "within":
        campaign.begin()
        campaign.wait_for_main(2)
    campaign.close()
    until(lambda: not processes_with(str(campaign.home)), "the keeper has taken everything back")
    nothing_left(campaign)


def test_what_is_left_where_the_keeper_was_killed_as_well_is_cleaned(begin: Begin, environ: dict[str, str]) -> None:
    campaign = begin()
    campaign.run()
    assert f"belongs to a run that goes on (pid {campaign.process.pid})" in clean(campaign.home, environ).stdout
    os.kill(campaign.process.pid, signal.SIGSTOP)
    os.kill(keeper(campaign.home), signal.SIGKILL)
    campaign.close()
    until(lambda: not processes_with(str(campaign.home)), "the guardians have ended what they guard")
    (journal,) = daemons(campaign)
    assert Path(journal.directory).exists()
    done = clean(campaign.home, environ)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "The MPS daemon was ended." in done.stdout
    nothing_left(campaign)
    assert "Nothing to clean" in clean(campaign.home, environ).stdout
