"""Backgrounds that go on from run to run: each run proves its own overlap, and nobody is left in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.runner.journal import read_journal
from heteromig.runner.rundir import RUN_JSON
from heteromig.runner.verification import verify_run
from tests.e2e.campaign import Told
from tests.e2e.conftest import Say
from tests.e2e.product import BOARD, REPOSITORY, processes_with, until
from tests.e2e.test_layouts import cut, keeper
from tests.slices.mig.bench import Bench


class Campaign:
    """The child that does the runs."""

    def __init__(
        self,
        home: Path,
        *,
        background_duration: str = "10m",
        config: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`config` is the path of one, in place of the usual."""
        self.home = home
        self.process = subprocess.Popen(
            (sys.executable, "-m", "tests.e2e.campaign", "runs", background_duration, *config),
            cwd=home,
            env={**os.environ, **(environ or {}), "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{home / 'mark'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait_for(self, number: int, words: str) -> None:
        """Wait until these are in the journal of that run, counted from 1."""

        def journals() -> list[Path]:
            found = (self.home / "runs").glob("2*/events.jsonl")
            return sorted(found, key=lambda path: path.stat().st_ctime_ns)

        until(lambda: len(journals()) == number and words in journals()[-1].read_text(), f"{words} in run {number}")

    def wait_for_main(self, number: int) -> None:
        """Wait until main of that run, counted from 1, is running."""
        self.wait_for(number, f'"destination":"{Phase.MAIN_RUNNING.value}"')

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


def spawned(told: Told) -> dict[int, ev.WorkerSpawned]:
    events = read_journal(Path(told.run_dir)).events
    return {event.worker: event for event in events if isinstance(event, ev.WorkerSpawned)}


def pids(told: Told) -> dict[int, int]:
    return {worker: event.pid for worker, event in spawned(told).items() if worker}


def test_the_second_run_finds_the_backgrounds_at_work(campaign: Campaign) -> None:
    first, second = campaign.run(), campaign.run()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert pids(first) == pids(second)
    since = {worker: event.since_ns for worker, event in spawned(second).items()}
    assert since[0] is None
    assert since[1] is not None
    assert set(pids(second).values()) <= processes_with(str(campaign.home)).keys()
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
    before = pids(campaign.run())
    os.kill(before[1], signal.SIGKILL)
    until(lambda: before[1] not in processes_with(str(campaign.home)), "the end of a background")
    second = campaign.run()
    campaign.end()
    assert second.exit_code == 0
    after = pids(second)
    assert after[1] != before[1]
    assert after[2] == before[2]
    assert verify_run(Path(second.run_dir)).verdict.exit_code == 0


def test_one_that_dies_in_a_run_spoils_that_run_alone(campaign: Campaign) -> None:
    first = campaign.run()
    before = pids(first)
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
    assert pids(third)[2] == before[2]
    assert pids(third)[1] != before[1]
    assert (Path(second.run_dir) / "workers/1-background-dlrm/exit.json").exists()


def test_one_that_would_not_last_is_replaced_before_the_run(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, background_duration="17s")  # 15 s are allowed for the start of main
    try:
        first = campaign.run()
        until(lambda: age_s(pids(first)[1]) > 2, "it to grow old")
        second = campaign.run()
        campaign.end()
    finally:
        campaign.close()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert not set(pids(first).values()) & set(pids(second).values())


def age_s(pid: int) -> float:
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return uptime_s - ticks / os.sysconf("SC_CLK_TCK")


def test_a_campaign_that_is_killed_leaves_nobody(campaign: Campaign) -> None:
    there = set(pids(campaign.run()).values())
    assert there <= processes_with(str(campaign.home)).keys()
    campaign.close()
    until(lambda: not processes_with(str(campaign.home)), "everybody to be gone")


# --- with a GPU that is cut for them ----------------------------------------------------------------------------------

CUT = f"""
slices = "{BOARD}"
layout = "2x2g.12gb"
harness = "quick"
runs-dir = "runs"
main.duration = "300ms"
background = {{ benchmarks = "dlrm", duration = "10m" }}
timing = {{ start-time-buffer = 0, clean-stop = "5s", grace = "5s" }}
"""


@pytest.fixture
def cutting(tmp_path: Path) -> Iterator[Campaign]:
    (tmp_path / "cut.toml").write_text(CUT)
    started = Campaign(tmp_path, config=("cut.toml",))
    yield started
    started.close()


def slices(told: Told) -> set[str]:
    record = msgspec.json.decode((Path(told.run_dir) / RUN_JSON).read_bytes(), type=RunRecord)
    return {one.uuid for one in record.slices}


def journals(campaign: Campaign) -> list[Path]:
    """One for each time that the GPU was cut."""
    return sorted((campaign.home / "runs").rglob("layout.json"))


def test_a_gpu_is_cut_once_and_cut_back_in_the_end(cutting: Campaign, say: Say) -> None:
    before = cut(say)
    first = cutting.run()
    during = cut(say)
    second = cutting.run()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert during == cut(say) != before
    assert pids(first) == pids(second)
    assert slices(first) == slices(second)
    assert [path.parent.name for path in journals(cutting)] == ["crew-1"]
    cutting.end()
    assert cut(say) == before
    for told in (first, second):
        assert verify_run(Path(told.run_dir)).verdict.status == "valid"
        assert "Prepared" in (Path(told.run_dir) / "keeper.log").read_text()
    record = msgspec.json.decode((Path(second.run_dir) / RUN_JSON).read_bytes(), type=RunRecord)
    assert record.preparation is not None
    assert record.preparation.what is not None
    assert record.preparation.what.startswith("Taken over from the run before: ")
    assert (record.preparation.restored, record.preparation.replaced) == (None, ())
    assert record.preparation.sentence == "It stays so for the next run of the campaign."
    assert say("clean", "--runs-dir", "runs").finish().stdout == "Nothing to clean in runs.\n"


def test_a_gpu_is_cut_back_where_the_campaign_was_killed(cutting: Campaign, say: Say) -> None:
    before = cut(say)
    cutting.run()
    assert cut(say) != before
    cutting.close()
    until(lambda: not processes_with(str(cutting.home)), "everybody to be gone")
    assert cut(say) == before


def test_what_nobody_could_cut_back_is_cut_back_by_clean(cutting: Campaign, say: Say) -> None:
    before = cut(say)
    cutting.run()
    during = cut(say)
    goes_on = say("clean", "--runs-dir", "runs").finish()
    assert goes_on.exit_code == 0, goes_on.stderr
    assert f"belongs to a run that goes on (pid {cutting.process.pid})" in goes_on.stdout
    os.kill(cutting.process.pid, signal.SIGSTOP)
    os.kill(keeper(cutting.home), signal.SIGKILL)
    cutting.close()
    until(lambda: not processes_with(str(cutting.home)), "everybody to be gone")
    assert cut(say) == during != before
    done = say("clean", "--runs-dir", "runs").finish()
    assert done.exit_code == 0, done.stderr
    assert "is cut as before the run: 4x1g.6gb." in done.stdout
    assert cut(say) == before


def test_a_keeper_that_was_killed_between_two_runs_is_replaced_and_all_that_it_had(cutting: Campaign, say: Say) -> None:
    before = cut(say)
    first = cutting.run()
    os.kill(keeper(cutting.home), signal.SIGKILL)
    second = cutting.run()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert not set(pids(first).values()) & set(pids(second).values())
    assert not slices(first) & slices(second), "it was cut back, and cut anew"
    cutting.end()
    assert cut(say) == before
    assert verify_run(Path(second.run_dir)).verdict.status == "valid"


def test_a_run_that_ends_before_it_took_them_over_has_them_ended_before_the_gpu_is_cut_back(
    cutting: Campaign, say: Say
) -> None:
    before = cut(say)
    first = cutting.run()
    pid = keeper(cutting.home)
    os.kill(pid, signal.SIGSTOP)
    cutting.begin()
    cutting.wait_for(2, '"PrepareDevices"')
    os.kill(cutting.process.pid, signal.SIGINT)
    os.kill(pid, signal.SIGCONT)
    second = cutting.told()
    assert (first.exit_code, second.exit_code, pids(second)) == (0, 130, {})
    assert not set(pids(first).values()) & processes_with(str(cutting.home)).keys()
    assert cut(say) == before
    cutting.end()


def test_a_gpu_that_somebody_else_cut_between_two_runs_ends_it(cutting: Campaign) -> None:
    first = cutting.run()
    there = pids(first)[1]
    os.kill(there, signal.SIGKILL)  # a slice that is in use cannot be destroyed
    until(lambda: there not in processes_with(str(cutting.home)), "the end of its background")
    bench = Bench(BOARD, cutting.home / "runs")
    bench.clear()
    bench.make("4g.24gb", 0, (0, 4))
    second = cutting.run()
    cutting.end()
    assert (first.exit_code, second.exit_code) == (0, 7)
    record = msgspec.json.decode((Path(second.run_dir) / RUN_JSON).read_bytes(), type=RunRecord)
    assert record.verdict is not None
    assert "Somebody else has cut" in record.verdict.reasons[0].sentence
    assert f"heteromig mig restore {cutting.home}/runs/crew-1 goes on" in record.verdict.reasons[0].sentence
    assert verify_run(Path(second.run_dir)).verdict.exit_code == 7


def test_a_run_that_is_ended_by_a_signal_has_it_cut_back(cutting: Campaign, say: Say) -> None:
    before = cut(say)
    first = cutting.run()
    cutting.begin()
    cutting.wait_for_main(2)
    os.kill(cutting.process.pid, signal.SIGINT)
    second = cutting.told()
    assert (first.exit_code, second.exit_code) == (0, 130)
    assert cut(say) == before
    third = cutting.run()
    cutting.end()
    assert third.exit_code == 0
    assert cut(say) == before
