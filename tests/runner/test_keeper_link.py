"""The link to a keeper, with real keeper processes over a simulated GPU."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from heteromig.campaign.probes import Side, TuneSettings
from heteromig.campaigns.directory import Asked, begin, read_campaign
from heteromig.campaigns.tuning import tune
from heteromig.core import events as ev
from heteromig.core.errors import PreflightError, UsageError
from heteromig.core.spec import Preparation, RunSpec
from heteromig.runner.crew import Crew
from heteromig.runner.keeper_link import KeeperLink
from heteromig.runner.recording import read_record
from heteromig.runner.session import Outcome
from heteromig.slices.locks import holder_of, lock_directory
from heteromig.slices.source import parse_slices
from heteromig.views.campaign_bar import CampaignProgress
from tests.core.histories import SPEC
from tests.recordings import RECORDED
from tests.slices.mig.bench import Bench

DEADLINE_S = 30.0
FOUR = "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"
HALVES = "2g.12gb@0,2g.12gb@2"


class Linked:
    """A link, the GPU that it is about, and all that was heard."""

    def __init__(self, link: KeeperLink, bench: Bench) -> None:
        self.link = link
        self.bench = bench
        self.heard: list[ev.AnyEvent] = []

    def until(self, kind: type[ev.Event], count: int = 1) -> ev.AnyEvent:
        """Listen until that was heard so often."""
        deadline_s = time.monotonic() + DEADLINE_S
        while sum(isinstance(event, kind) for event in self.heard) < count:
            assert time.monotonic() < deadline_s, self.heard
            if self.link.fd is not None:
                select.select([self.link.fd], [], [], 0.02)
                self.heard += self.link.read(time.monotonic_ns())
        return self.heard[-1]

    @property
    def told(self) -> list[str]:
        return [type(event).__name__ for event in self.heard]

    @property
    def holder(self) -> int | None:
        return holder_of(self.bench.uuid, lock_directory(parse_slices(self.bench.slices), self.bench.runs_dir))


Make = Callable[..., Linked]


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Make]:
    made: list[Linked] = []

    def make(layout: str = "2x2g.12gb", **changes: object) -> Linked:
        bench = Bench("sim:a30", tmp_path / "runs")
        spec = msgspec.structs.replace(
            SPEC,
            slices=str(parse_slices("sim:a30")),
            runs_dir=str(bench.runs_dir),
            preparation=Preparation.LAYOUT,
            layout=layout,
            **changes,
        )
        run_dir = bench.runs_dir / "a-run"
        run_dir.mkdir(parents=True, exist_ok=True)
        made.append(Linked(KeeperLink(spec, run_dir), bench))
        return made[-1]

    yield make
    for one in made:
        one.link.close()
        assert (one.link.pid, one.link.fd) == (None, None)
        assert one.bench.cut == FOUR
        assert one.holder is None


def test_there_and_back(linked: Make) -> None:
    keeper = linked()
    assert keeper.link.prepare(0) == []
    prepared = keeper.until(ev.DevicesPrepared)
    assert isinstance(prepared, ev.DevicesPrepared)
    assert (prepared.gpu_uuid, keeper.bench.cut) == (keeper.bench.uuid, HALVES)
    assert keeper.holder == os.getpid(), "who is to be stopped is the controller"
    keeper.link.order("no keeper of a layout minds that")
    assert keeper.link.restore(0) == []
    restored = keeper.until(ev.DevicesRestored)
    assert isinstance(restored, ev.DevicesRestored)
    assert len(restored.replaced) == 4
    assert keeper.link.fd is None
    assert keeper.bench.cut == FOUR
    keeper.link.order("nobody hears that")
    assert keeper.told == ["DevicesPrepared", "DevicesRestored"]


def test_what_is_taken_back_at_once_was_there_for_a_moment(linked: Make) -> None:
    keeper = linked(gpu="0")
    keeper.link.prepare(0)
    keeper.link.restore(0)
    keeper.until(ev.DevicesRestored)
    assert keeper.told == ["DevicesPrepared", "DevicesRestored"]


def test_a_refusal_has_the_exit_code_of_its_kind(linked: Make) -> None:
    keeper = linked("3x2g.12gb")
    keeper.link.prepare(0)
    failed = keeper.until(ev.PreparationFailed)
    assert isinstance(failed, ev.PreparationFailed)
    assert failed.exit_code == 2
    assert "The nearest layout that fits is 2x2g.12gb." in failed.message


@pytest.mark.parametrize("times", [1, 2])
def test_a_keeper_that_was_killed_has_a_successor(linked: Make, times: int) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    assert keeper.link.pid is not None
    os.kill(keeper.link.pid, signal.SIGKILL)
    keeper.until(ev.KeeperLost)
    if times > 1:
        keeper.link.restore(0)
        assert keeper.link.pid is not None
        os.kill(keeper.link.pid, signal.SIGKILL)
        keeper.until(ev.KeeperLost, 2)
    assert keeper.bench.cut == HALVES
    keeper.link.restore(0)
    keeper.until(ev.DevicesRestored)


def test_closing_takes_back_what_nobody_asked_for(linked: Make) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    keeper.link.close()
    assert keeper.bench.cut == FOUR


def test_closing_does_not_wait_for_whoever_had_his_time(linked: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    assert keeper.link.pid is not None
    os.kill(keeper.link.pid, signal.SIGSTOP)
    monkeypatch.setattr("heteromig.runner.keeper_link.LEAVING_LIMIT_S", 0.0)
    keeper.link.restore(0)
    keeper.link.close()
    assert keeper.link.fd is None
    assert keeper.bench.cut == HALVES
    as_before(keeper.bench)


def test_who_goes_on_from_run_to_run_prepares_once(linked: Make) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    prepared = keeper.until(ev.DevicesPrepared)
    assert isinstance(prepared, ev.DevicesPrepared)
    for at_ns in (5, 6):
        assert keeper.link.still_keeps()
        what = f"Taken over from the run before: {prepared.what}"
        assert keeper.link.prepare(at_ns) == [msgspec.structs.replace(prepared, at_ns=at_ns, what=what, replaced=())]
    assert keeper.link.pid is not None
    os.kill(keeper.link.pid, signal.SIGKILL)
    assert not keeper.link.still_keeps()
    assert keeper.link.is_needed
    assert keeper.link.close() is None
    assert not keeper.link.is_needed


def test_what_is_not_as_it_was_does_not_go_on(linked: Make) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    cut_by_somebody_else(keeper.bench)
    assert not keeper.link.still_keeps()
    as_before(keeper.bench)
    assert not keeper.link.still_keeps(), "what was lost once is not there again"
    assert keeper.link.close() is None


def test_a_keeper_that_does_not_answer_does_not_go_on(linked: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    assert keeper.link.pid is not None
    monkeypatch.setattr("heteromig.runner.keeper_link._LOOK_LIMIT_S", 0.1)
    os.kill(keeper.link.pid, signal.SIGSTOP)
    assert not keeper.link.still_keeps()
    os.kill(keeper.link.pid, signal.SIGCONT)
    assert keeper.link.close() is None


def test_closing_has_a_successor_for_a_keeper_that_dies_at_it(linked: Make) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    assert keeper.link.pid is not None
    os.kill(keeper.link.pid, signal.SIGKILL)
    assert keeper.link.close() is None
    assert keeper.bench.cut == FOUR


def test_closing_has_no_third_one(linked: Make) -> None:
    keeper = linked()
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    for count in (1, 2):
        keeper.link.restore(0)
        assert keeper.link.pid is not None
        os.kill(keeper.link.pid, signal.SIGKILL)
        keeper.until(ev.KeeperLost, count)
    left = keeper.link.close()
    assert left is not None
    assert "heteromig clean does that" in left
    assert keeper.bench.cut == HALVES
    as_before(keeper.bench)


def cut_by_somebody_else(bench: Bench) -> None:
    bench.clear()
    bench.make("4g.24gb", 0, (0, 4))


def as_before(bench: Bench) -> None:
    bench.clear()
    for start in range(4):
        bench.make("1g.6gb", start, (0, 1))


def test_a_crew_says_what_cannot_be_taken_back(linked: Make, tmp_path: Path) -> None:
    keeper, other = linked(), Crew(tmp_path)
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    cut_by_somebody_else(keeper.bench)
    other.put_keeper(keeper.link)
    left = other.dismiss(SPEC.timing)
    assert left is not None
    assert f"heteromig mig restore {keeper.link.home} goes on." in left
    assert other.dismiss(SPEC.timing) is None, "it is said once"
    as_before(keeper.bench)


def test_ctrl_c_does_not_keep_a_gpu_from_being_taken_back(
    linked: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, crew = linked(), Crew(tmp_path)
    keeper.link.prepare(0)
    keeper.until(ev.DevicesPrepared)
    close = keeper.link.close

    def interrupted() -> str | None:
        signal.raise_signal(signal.SIGINT)
        return close()

    monkeypatch.setattr(keeper.link, "close", interrupted)
    crew.put_keeper(keeper.link)
    before = signal.getsignal(signal.SIGINT)
    assert crew.dismiss(SPEC.timing) is None
    assert keeper.bench.cut == FOUR
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("ending", "exit_code"),
    [(None, 7), (KeyboardInterrupt(), 130), (UsageError("There is no room for another run."), 7)],
)
def test_a_campaign_says_what_cannot_be_taken_back(
    linked: Make, tmp_path: Path, ending: BaseException | None, exit_code: int
) -> None:
    keeper = linked()
    asked = Asked(tune=TuneSettings("offline"), run=SPEC)

    def execute(_: RunSpec, crew: Crew, _progress: CampaignProgress) -> Outcome:
        if not keeper.link.is_needed:
            keeper.link.prepare(0)
            keeper.until(ev.DevicesPrepared)
            cut_by_somebody_else(keeper.bench)
            crew.put_keeper(keeper.link)
        if ending is not None:
            raise ending
        return Outcome(RECORDED / "valid", read_record(RECORDED / "valid"))

    specs = {Side.ISOLATED: SPEC, Side.BESIDE: SPEC}
    with contextlib.suppress(PreflightError):
        tune(tmp_path, begin(tmp_path, asked), specs, execute, lambda _: None)
    ended = read_campaign(tmp_path)
    assert ended.exit_code == exit_code
    assert (ended.answer is not None) == (ending is None), "what was found stays found"
    assert f"heteromig mig restore {keeper.link.home} goes on." in ended.sentence
    as_before(keeper.bench)


def test_what_cannot_be_understood_is_no_answer(linked: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    babbling = tmp_path / "babbling"
    babbling.write_text('#!/bin/sh\necho \'{"type": "Perhaps"}\'\nexec sleep 600\n')
    babbling.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(babbling))
        keeper = linked()
    keeper.link.prepare(0)
    lost = keeper.until(ev.KeeperLost)
    assert isinstance(lost, ev.KeeperLost)
    assert "said something unreadable" in lost.message
    assert keeper.link.pid is None


def test_a_keeper_that_cannot_be_started(linked: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        keeper = linked()
    (failed,) = keeper.link.prepare(0)
    assert isinstance(failed, ev.PreparationFailed)
    assert failed.exit_code == 7
    (failed,) = keeper.link.restore(0)
    assert isinstance(failed, ev.RestorationFailed)
