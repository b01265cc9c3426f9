"""What the marks of ordinary programs prove: bounds within which something was printed that was heard later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from heteromig.core.errors import EvidenceError
from heteromig.core.overlap import BackgroundOverlap
from heteromig.core.phases import WorkerState
from heteromig.core.plan import make_plan
from heteromig.core.spec import CommandSpec, RunSpec
from heteromig.core.view import View, WorkerView
from heteromig.harnesses import harness_of
from heteromig.runner.config import CommandConfig, Config, resolve
from heteromig.runner.evidence import certify_run
from heteromig.runner.journal import SCHEMA_VERSION, Header, Journal
from heteromig.runner.recording import TOOL
from heteromig.runner.verification import verify_run
from tests.core.histories import inventory

S = 1_000_000_000
EPOCH_NS = 1_700_000_000 * S
"""Wall clock when the monotonic clock of these runs was 0."""


def _spec() -> RunSpec:
    commands = {
        "main": CommandConfig(argv=["sh"], start="^start$", result="^done$"),
        "beside": CommandConfig(argv=["sh"], start="^start$"),
    }
    return resolve(Config(slices="sim:a100-sxm-80gb", command=commands))


def _header(spec: RunSpec) -> Header:
    return Header(schema_version=SCHEMA_VERSION, tool=TOOL, run_id="r", at_ns=0, at_utc_ns=EPOCH_NS, spec=spec)


def ns(at_s: float) -> int:
    return round(at_s * S)


class Scene:
    """Main was heard to start at 10 s and to end at 20 s, and exited at 20.1 s; its neighbour was killed after that."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.spec = _spec()
        plan = make_plan(self.spec, inventory(2), (0, 1))
        ended = WorkerView(assignment=plan.main, state=WorkerState.EXITED, spawned_ns=ns(9.8), announced_ns=ns(10))
        self.main = replace(ended, ended_ns=ns(20), exited_ns=ns(20.1), exit_code=0)
        self.background = replace(
            ended,
            assignment=plan.workers[1],
            spawned_ns=ns(1),
            announced_ns=ns(2),
            exited_ns=ns(21),
            signal=15,
            stopped_by="TERM",
            still_timed_ns=ns(20.1),
        )
        for worker in (self.main, self.background):
            (run_dir / worker.assignment.directory).mkdir(parents=True)
        (run_dir / self.main.assignment.directory / "stdout.log").write_text("start\ndone\n")

    def change(self, **changes: Any) -> None:
        """Say what is different of the background; seconds are given as such."""
        figures = {key: ns(value) if isinstance(value, float) else value for key, value in changes.items()}
        self.background = replace(self.background, **figures)

    def started(self, at_s: float) -> None:
        """The guardian of main wrote down when it started main."""
        record: dict[str, Any] = dict.fromkeys(("pid", "killed_descendants", "utime_s", "stime_s", "maxrss_bytes"), 0)
        record |= {"exit_code": 0, "signal": None, "stopped_by": None, "wall_s": 10.0}
        record |= {"started_utc_ns": EPOCH_NS + ns(at_s), "ended_utc_ns": EPOCH_NS + ns(20.05)}
        (self.run_dir / self.main.assignment.directory / "exit.json").write_text(json.dumps(record))

    def certify(self) -> tuple[BackgroundOverlap, list[int], str]:
        view = View(spec=self.spec, workers=(self.main, self.background))
        summary = certify_run(self.run_dir, _header(self.spec), view, harness_of(self.spec))
        (overlap,) = summary.overlap.backgrounds
        return (
            overlap,
            [reason.exit_code for reason in summary.reasons],
            " ".join(reason.sentence for reason in summary.reasons),
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_neighbour_that_was_at_work_when_it_was_killed(scene: Scene) -> None:
    overlap, codes, _ = scene.certify()
    assert codes == []
    assert overlap.covered
    assert (overlap.begin_source, overlap.end_source) == ("start marker", "alive and not finished")
    assert overlap.slack_before_s == pytest.approx(8)
    assert overlap.uncertainty_s == pytest.approx(0.5)


def test_main_was_over_when_it_was_heard_to_be(scene: Scene) -> None:
    scene.change(still_timed_ns=20.0)
    assert scene.certify()[0].covered
    scene.change(still_timed_ns=20.0 - 1 / S)
    overlap, codes, words = scene.certify()
    assert overlap.covered is None
    assert codes == [9]
    assert "is smaller than the uncertainty" in words
    scene.change(still_timed_ns=19.4)
    assert scene.certify()[1] == [4]


def test_start_of_main_is_not_before_its_process(scene: Scene) -> None:
    scene.change(announced_ns=9.7)
    assert scene.certify()[1] == [9], "main may have printed its mark half a second before it was heard"
    scene.started(9.75)
    assert scene.certify()[0].covered
    scene.started(9.65)
    assert scene.certify()[1] == [9]


@pytest.mark.parametrize("exit_record", ["", "{}", "[" * 100_000])
def test_exit_record_that_says_nothing_leaves_the_wider_bound(scene: Scene, exit_record: str) -> None:
    scene.change(announced_ns=9.7)
    (scene.run_dir / scene.main.assignment.directory / "exit.json").write_text(exit_record)
    assert scene.certify()[1] == [9]


def test_process_that_started_after_it_was_heard_proves_nothing_backwards(scene: Scene) -> None:
    scene.started(11)
    scene.change(announced_ns=10.2)
    assert scene.certify()[1] == [9]
    scene.change(announced_ns=10.6)
    assert scene.certify()[1] == [4]


def test_neighbour_that_said_its_end_when_it_was_stopped(scene: Scene) -> None:
    scene.change(still_timed_ns=20.0, ended_ns=20.1)
    overlap, codes, _ = scene.certify()
    assert codes == []
    assert overlap.end_source == "end marker"
    scene.change(still_timed_ns=None)
    assert scene.certify()[1] == [9]
    scene.change(ended_ns=20.5)
    assert scene.certify()[1] == []


def test_neighbour_that_was_allowed_to_finish(scene: Scene) -> None:
    scene.change(still_timed_ns=None, stopped_by=None, signal=None, exit_code=0, exited_ns=25.0)
    overlap, codes, _ = scene.certify()
    assert codes == []
    assert overlap.end_source == "exit"


def test_neighbour_that_nobody_looked_at_when_main_ended(scene: Scene) -> None:
    scene.change(still_timed_ns=None)
    _, codes, words = scene.certify()
    assert codes == [9]
    assert "it was stopped, and was not seen at work at the end of main" in words


def test_neighbour_that_never_said_start_disproves(scene: Scene) -> None:
    scene.change(announced_ns=None)
    assert scene.certify()[1] == [4]


def test_main_without_an_end_lasts_until_its_exit(scene: Scene) -> None:
    scene.main = replace(scene.main, ended_ns=None)
    assert scene.certify()[0].covered
    scene.change(still_timed_ns=20.0)
    assert scene.certify()[1] == [9]


def test_journal_whose_commands_were_altered_cannot_be_verified(tmp_path: Path) -> None:
    spec = _spec()
    (first, second) = spec.commands
    altered: tuple[tuple[CommandSpec, ...], ...] = ((), (replace(first, start="("), second))
    for number, commands in enumerate(altered):
        run_dir = tmp_path / str(number)
        run_dir.mkdir()
        journal = Journal(run_dir)
        journal.write(_header(replace(spec, commands=commands)))
        journal.close()
        with pytest.raises(EvidenceError, match=r"The header of the journal .* cannot be used: "):
            verify_run(run_dir)
