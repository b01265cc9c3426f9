"""`heteromig tune` on shares of a GPU: one daemon for all of its runs, however it ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from heteromig.campaign.probes import Done, Side
from heteromig.campaigns.directory import CAMPAIGN_JSON, Campaign, read_campaign
from heteromig.core import events as ev
from heteromig.runner.journal import read_journal
from heteromig.runner.verification import verify_run
from heteromig.slices.mps import journal as shares
from tests.e2e.product import DEADLINE_S, RunCommand, processes_with, until
from tests.mps.conftest import CLIENT

PROGRAMS = rf"""
[command.served]
argv = ["{{python}}", "{CLIENT}", "serving", "{{duration_s}}", "{{target_qps}}"]
start = "^start$"
end = "^end$"
result = '^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)'
valid-when = "p99_ms < 100"

[command.steady]
argv = ["{{python}}", "{CLIENT}", "steady"]
start = "^start$"
"""


@pytest.fixture
def tuning(tmp_path: Path, environ: dict[str, str]) -> Iterator[RunCommand]:
    (tmp_path / "programs.toml").write_text(PROGRAMS)
    argv = (
        *("tune", "--config", "programs.toml", "--slices", "mps:3x14", "--runs-dir", "runs"),
        *("--start-time-buffer", "0", "--clean-stop", "5s", "--grace", "5s", "--sample-period", "100ms"),
        *("--main-benchmark-duration", "500ms", "--background-benchmarks", "steady,steady"),
        *("--start-qps", "380", "--precision", "0.2"),
    )
    command = RunCommand(tmp_path, argv, environ=environ, module="heteromig")
    yield command
    command.close()


def campaign_of(command: RunCommand) -> tuple[Path, Campaign]:
    def found() -> list[Path]:
        return list(command.runs.glob(f"2*/{CAMPAIGN_JSON}"))

    until(lambda: found() or command.process.poll() is not None, "a campaign")
    assert found(), command.said
    (index,) = found()
    return index.parent, read_campaign(index.parent)


def daemons(campaign_dir: Path) -> list[shares.ShareJournal]:
    found = (shares.read_journal(path) for path in campaign_dir.rglob(shares.RUN_JOURNAL))
    return [journal for journal in found if journal is not None]


def spawned(run_dir: Path) -> dict[int, int]:
    events = read_journal(run_dir).events
    return {event.worker: event.pid for event in events if isinstance(event, ev.WorkerSpawned) and event.worker}


def nothing_left(command: RunCommand, campaign_dir: Path) -> None:
    assert processes_with(str(command.home)) == {}
    (journal,) = daemons(campaign_dir)
    assert journal.ended
    assert not Path(journal.directory).exists()
    assert processes_with(journal.directory) == {}


def test_all_runs_of_a_tuning_have_one_daemon(tuning: RunCommand) -> None:
    tuning.process.wait(4 * DEADLINE_S)
    finished = tuning.finish()
    campaign_dir, campaign = campaign_of(tuning)
    assert finished.exit_code == 0, finished.stderr
    assert isinstance(campaign.answer, Done)
    nothing_left(tuning, campaign_dir)
    sides = [entry.step.side for entry in campaign.entries]
    assert {Side.ISOLATED, Side.BESIDE} == set(sides)
    beside = []
    for entry in campaign.entries:
        run_dir = campaign_dir / entry.run_dir
        assert verify_run(run_dir).verdict.exit_code == entry.exit_code
        if entry.step.side is Side.BESIDE:
            beside.append(spawned(run_dir))
    assert len(beside) > 1
    assert all(one == beside[0] for one in beside)


def test_an_interrupted_tuning_ends_its_daemon(tuning: RunCommand) -> None:
    campaign_dir, _ = campaign_of(tuning)
    until(lambda: len(list(campaign_dir.glob("2*/certificate.json"))) > 1, "two runs")
    tuning.send(signal.SIGINT)
    assert tuning.finish().exit_code == 130
    nothing_left(tuning, campaign_dir)


def test_a_tuning_that_was_killed_ends_its_daemon(tuning: RunCommand) -> None:
    campaign_dir, _ = campaign_of(tuning)
    until(lambda: len(list(campaign_dir.glob("2*/certificate.json"))) > 1, "two runs")
    tuning.send(signal.SIGKILL)
    tuning.process.wait()
    until(lambda: not processes_with(str(tuning.home)), "the keeper has taken everything back")
    nothing_left(tuning, campaign_dir)
