"""`heteromig tune` as users meet it: many runs, one directory, one answer, Ctrl-C and --resume."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import msgspec
import pytest

from heteromig.campaign.probes import Done, Outcome, Side
from heteromig.campaigns.directory import CAMPAIGN_JSON, Campaign, read_campaign
from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.core.spec import Goal
from heteromig.runner.journal import read_journal
from heteromig.runner.recording import read_record
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import Say, Start
from tests.e2e.product import DEADLINE_S, RunCommand, processes_with, until
from tests.e2e.test_layouts import cut


@pytest.fixture
def tune(measure: Start) -> Start:
    """Start `heteromig tune` with workers that are up at once."""
    return partial(measure, "tune")


def campaign_of(command: RunCommand) -> tuple[Path, Campaign]:
    until(lambda: list(command.runs.glob(f"2*/{CAMPAIGN_JSON}")), "a campaign")
    (index,) = command.runs.glob(f"2*/{CAMPAIGN_JSON}")
    return index.parent, read_campaign(index.parent)


def background_pid(run_dir: Path) -> int:
    (spawned,) = (
        event for event in read_journal(run_dir).events if isinstance(event, ev.WorkerSpawned) and event.worker == 1
    )
    return spawned.pid


def test_offline_is_tuned_alone_and_then_beside_backgrounds_that_stay(tune: Start) -> None:
    command = tune("--confirm", "2", "--json")
    finished = command.finish()
    campaign_dir, campaign = campaign_of(command)
    assert (finished.exit_code, campaign.exit_code) == (0, 0), finished.stderr
    assert msgspec.json.decode(finished.stdout, type=Campaign) == campaign
    assert processes_with(str(command.home)) == {}
    assert isinstance(campaign.answer, Done)
    assert [answer.side for answer in campaign.answer.answers] == [Side.ISOLATED, Side.BESIDE]
    assert [(one.step.side, one.exit_code) for one in campaign.entries] == [(Side.ISOLATED, 0)] * 3 + [
        (Side.BESIDE, 0)
    ] * 3
    for entry in campaign.entries:
        found = verify_run(campaign_dir / entry.run_dir)
        assert found.verdict.status == "valid", found.verdict
        goal = read_journal(campaign_dir / entry.run_dir).header.spec.goal
        assert goal is (Goal.BASELINE if entry.step.side is Side.ISOLATED else Goal.RUN)
    beside = [campaign_dir / entry.run_dir for entry in campaign.entries[3:]]
    assert len({background_pid(run_dir) for run_dir in beside}) == 1, "it was kept"
    assert "4: beside, " in finished.stderr
    assert "confirmation 2 of 2" in finished.stderr


def test_an_interrupted_tuning_goes_on_where_it_was(tune: Start) -> None:
    command = tune("--start-time-buffer", "1s")
    running = f'"destination":"{Phase.MAIN_RUNNING.value}"'.encode()
    campaign_dir, _ = campaign_of(command)

    def second() -> bool:
        journals = sorted(campaign_dir.glob("2*/events.jsonl"), key=lambda path: path.stat().st_ctime_ns)
        return len(list(campaign_dir.glob("2*"))) > 1 and any(
            running in path.read_bytes() for path in journals if not (path.parent / "certificate.json").exists()
        )

    until(second, "the second run")
    command.send(signal.SIGINT)
    finished = command.finish()
    assert finished.exit_code == 130, finished.stderr
    assert processes_with(str(command.home)) == {}
    assert f"--resume {campaign_dir}" in finished.stderr
    assert "Traceback" not in finished.stderr
    campaign = read_campaign(campaign_dir)
    assert [entry.exit_code for entry in campaign.entries] == [0, 130]
    assert campaign.entries[1].probe is None

    other = tune("--start-time-buffer", "1s", "--seed", "3", "--resume", str(campaign_dir)).finish()
    assert other.exit_code == 2
    assert "seed was 0 and is 3" in other.stderr

    command = tune("--start-time-buffer", "1s", "--resume", str(campaign_dir))
    until(lambda: len(list(campaign_dir.glob("2*"))) > 2, "the run that is done again")
    twice = tune("--start-time-buffer", "1s", "--resume", str(campaign_dir)).finish()
    assert twice.exit_code == 2
    assert "goes on in another process" in twice.stderr
    finished = command.finish()
    assert finished.exit_code == 0, finished.stderr
    assert finished.stdout.startswith("ANSWERED (exit 0): resnet50 offline: ")
    assert processes_with(str(command.home)) == {}
    again = read_campaign(campaign_dir)
    assert again.entries[:2] == campaign.entries
    assert [entry.exit_code for entry in again.entries] == [0, 130, 0, 0, 0]

    known = tune("--start-time-buffer", "1s", "--resume", str(campaign_dir), "--format", "md").finish()
    assert known.exit_code == 0
    assert "| run | side |" in known.stdout
    assert read_campaign(campaign_dir).entries == again.entries, "nothing was left to do"

    shutil.rmtree(campaign_dir / again.entries[-1].run_dir)
    finished = tune("--start-time-buffer", "1s", "--resume", str(campaign_dir)).finish()
    assert finished.exit_code == 0, finished.stderr
    *_, gone, anew = read_campaign(campaign_dir).entries
    assert gone.probe is not None
    assert gone.probe.outcome is Outcome.SPOILED
    assert gone.probe.reason.startswith("what it measured cannot be used: ")
    assert (anew.step, anew.exit_code) == (gone.step, 0), "it was done again"


def test_backgrounds_that_keep_dying_stop_it_with_their_reason(tune: Start) -> None:
    command = tune(QUICK_BACKGROUND="crashing")
    finished = command.finish()
    campaign_dir, campaign = campaign_of(command)
    assert finished.exit_code == 5, finished.stderr
    spoiled = [entry for entry in campaign.entries if entry.probe and entry.probe.outcome is Outcome.SPOILED]
    assert len(spoiled) == 3
    assert "3 runs in a row came to nothing: Background 1 (dlrm) exited with status 3" in " ".join(
        finished.stdout.split()
    )
    for entry in spoiled:
        assert verify_run(campaign_dir / entry.run_dir).verdict.exit_code == 5
    assert processes_with(str(command.home)) == {}


def test_a_main_that_fails_stops_it_at_once(tune: Start) -> None:
    command = tune("--isolated", QUICK_MAIN="crashing")
    finished = command.finish()
    assert finished.exit_code == 5, finished.stderr
    (entry,) = campaign_of(command)[1].entries
    assert f"STOPPED (exit 5): Tuning ended with run 1 ({entry.run_dir}): " in " ".join(finished.stdout.split())


def test_server_counts_its_late_queries(tune: Start, engines: Path) -> None:
    """On a machine that is busy with something else no rate may pass as often as it must, which is an answer too."""
    harness = ("--harness", "loadgen", "--main-benchmark-duration", "2s", "--engines-dir", str(engines))
    server = ("--main-scenario", "server", "--isolated", "--start-qps", "4000", "--precision", "0.2")
    command = tune(*server, "--format", "md", harness=harness)
    command.process.wait(4 * DEADLINE_S)  # a dozen runs
    finished = command.finish()
    campaign_dir, campaign = campaign_of(command)
    assert finished.exit_code in {0, 9}, finished.stderr
    first = campaign.entries[0].probe
    assert first is not None
    assert first.outcome is Outcome.ABORTED, "that is far too high"
    assert first.misses is not None
    assert first.misses > (campaign.entries[0].step.abort_above_misses or 0)
    for entry in campaign.entries:
        assert verify_run(campaign_dir / entry.run_dir).verdict.exit_code == entry.exit_code
        assert entry.probe is not None
        assert entry.probe.misses is not None
    assert processes_with(str(command.home)) == {}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--events",), "--events shows the journal of one run"),
        (("--lenient",), "--lenient goes on without"),
        (("--background-benchmarks", "none"), "or add --isolated"),
        (("--precision", "0.7"), "precision must be"),
        (("--resume", "nowhere"), "is not the directory of a campaign"),
        (("--json", "--format", "md"), "choose one"),
    ],
)
def test_what_is_refused_makes_no_directory(tune: Start, more: tuple[str, ...], words: str) -> None:
    command = tune(*more)
    finished = command.finish()
    assert finished.exit_code == 2
    assert words in finished.stderr
    assert not list(command.runs.glob("2*"))


def test_the_gpu_is_cut_once_for_all_runs(tune: Start, say: Say) -> None:
    before = cut(say)
    command = tune("--layout", "2x2g.12gb")
    finished = command.finish()
    campaign_dir, campaign = campaign_of(command)
    assert (finished.exit_code, campaign.exit_code) == (0, 0), finished.stderr
    assert processes_with(str(command.home)) == {}
    assert len(list(campaign_dir.rglob("layout.json"))) == 1
    assert cut(say) == before
    assert {entry.step.side for entry in campaign.entries} == {Side.ISOLATED, Side.BESIDE}
    records = [read_record(campaign_dir / entry.run_dir) for entry in campaign.entries]
    assert len({frozenset(one.uuid for one in record.slices) for record in records}) == 1
    for entry in campaign.entries:
        assert verify_run(campaign_dir / entry.run_dir).verdict.status == "valid"
    beside = [campaign_dir / entry.run_dir for entry in campaign.entries if entry.step.side is Side.BESIDE]
    assert len({background_pid(run_dir) for run_dir in beside}) == 1
