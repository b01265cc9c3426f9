"""The story of a run: what it says of runs that ended well, badly, or not at all, and what it does not believe."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from heteromig.core import events as ev
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.phases import Phase, Role
from heteromig.report.story import Kind, State
from heteromig.report.telling import tell
from heteromig.runner.verification import verify_run
from tests.report.conftest import QUICK, Keep

Copy = Callable[[Path], Path]


def test_a_valid_run_is_told_with_what_verify_finds(valid: Path) -> None:
    story, found = tell(valid), verify_run(valid)
    assert story.state is State.FINISHED
    assert (story.headline.status, story.headline.exit_code) == ("valid", 0)
    assert found.certificate is not None
    assert story.backgrounds == found.certificate.overlap.backgrounds
    assert story.overlap_proven is True
    assert story.result is not None
    assert story.result.valid is True
    assert dict(story.result.metrics).keys() == found.certificate.main_result.metrics.keys()
    assert dict(story.result.parameters)["min_duration_ms"] == "1000"
    assert "SIMULATED" in story.banners[0]


def test_lanes_follow_each_other_and_agree_with_the_certificate(valid: Path) -> None:
    story = tell(valid)
    assert story.section is not None
    assert [lane.label for lane in story.lanes] == ["0 resnet50", "1 dlrm", "2 bert", "idle"]
    main, *backgrounds, idle = story.lanes
    assert main.is_main
    assert idle.intervals == ()
    for lane in (main, *backgrounds):
        kinds = [one.kind for one in lane.intervals]
        assert [kind for kind in Kind if kind in kinds] == kinds
        for before, after in itertools.pairwise(lane.intervals):
            assert before.begin_s < before.end_s == after.begin_s
        timed = [one for one in lane.intervals if one.kind in {Kind.TIMED, Kind.BUSY}]
        if lane.overlap is None:
            assert (timed[0].begin_s, timed[-1].end_s) == (story.section.begin_s, story.section.end_s)
        else:
            assert story.section.begin_s - timed[0].begin_s == pytest.approx(lane.overlap.slack_before_s)
            assert timed[-1].end_s - story.section.end_s == pytest.approx(lane.overlap.slack_after_s)


def test_what_the_run_wrote_of_its_own_verdict_is_not_believed(invalid: Path, copy: Copy) -> None:
    run_dir = copy(invalid)
    record = json.loads((run_dir / "run.json").read_bytes())
    record["verdict"] = {"status": "valid", "exit_code": 0, "reasons": []}
    record["overlap"]["proven"] = True
    (run_dir / "run.json").write_text(json.dumps(record))
    story = tell(run_dir)
    assert story.headline.exit_code == 4
    assert story.overlap_proven is False
    assert any("run.json was altered" in reason.sentence for reason in story.headline.reasons)
    assert not any("--background-benchmark-duration" in mark.what for mark in story.marks)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[" * 5000])
def test_without_run_json_the_rest_is_told(valid: Path, copy: Copy, damage: bytes) -> None:
    run_dir = copy(valid)
    if damage:
        (run_dir / "run.json").write_bytes(damage)
    else:
        (run_dir / "run.json").unlink()
    story = tell(run_dir)
    assert story.host == "unknown"
    assert story.observer == ""
    assert all(stay.cpu_s is None for stay in story.stays)
    assert any("run.json" in note for note in story.notes)
    assert story.headline.exit_code == 9
    assert len(story.lanes) == 4


def test_an_altered_journal_is_an_error_and_not_a_story(valid: Path, copy: Copy) -> None:
    run_dir = copy(valid)
    lines = (run_dir / "events.jsonl").read_bytes().splitlines(keepends=True)
    (run_dir / "events.jsonl").write_bytes(b"".join(line for line in lines if b"TimedSectionBegan" not in line))
    with pytest.raises(EvidenceError, match="altered"):
        tell(run_dir)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        tell(tmp_path)


def test_a_journal_of_a_newer_schema_is_refused(valid: Path, copy: Copy) -> None:
    run_dir = copy(valid)
    raw = (run_dir / "events.jsonl").read_text()
    head, _, rest = raw.partition("\n")
    header = {**json.loads(head), "schema_version": 999}
    (run_dir / "events.jsonl").write_text(json.dumps(header) + "\n" + rest)
    with pytest.raises(EvidenceError, match="another version of heteromig: its schema is 999"):
        tell(run_dir)


def test_a_run_that_goes_on_is_told_as_such_and_one_whose_controller_died_is_not(keep: Keep) -> None:
    command = keep(*QUICK, "--main-benchmark-duration", "60s")
    command.wait_for(ev.TimedSectionBegan, 0)
    going_on = tell(command.run_dir)
    command.send(signal.SIGKILL)
    command.finish()
    broken = tell(command.run_dir)
    assert going_on.state is State.GOING_ON
    assert going_on.headline.exit_code is None
    assert going_on.headline.status == "still going on"
    assert going_on.as_of in going_on.headline.sentence
    assert going_on.phase == Phase.MAIN_RUNNING.value
    assert not any("died" in reason.sentence for reason in going_on.headline.reasons)
    assert broken.state is State.BROKEN_OFF
    assert broken.headline.exit_code == 9
    assert "the controller ended in main-running" in broken.headline.sentence


def test_elsewhere_the_heartbeat_tells_whether_a_run_goes_on(keep: Keep, copy: Copy) -> None:
    command = keep(*QUICK, "--main-benchmark-duration", "60s")
    command.wait_for(ev.TimedSectionBegan, 0)
    run_dir = copy(command.run_dir)
    command.send(signal.SIGTERM)
    command.finish()
    record = json.loads((run_dir / "run.json").read_bytes())
    (run_dir / "run.json").write_text(json.dumps({**record, "heartbeat_at": "2999-01-01T00:00:00.000Z"}))
    assert tell(run_dir).state is State.BROKEN_OFF, "its process is known here, and dead"
    notes = [json.loads(line) for line in (run_dir / "processes.jsonl").read_text().splitlines()]
    moved = [json.dumps({**note, "boot_id": "0000-another"}) + "\n" for note in notes]
    (run_dir / "processes.jsonl").write_text("".join(moved))
    for heartbeat, state in (("2026-01-01T00:00:00.000Z", State.BROKEN_OFF), (None, State.GOING_ON), ("x", None)):
        changed = {**record, "heartbeat_at": heartbeat or "2999-01-01T00:00:00.000Z"}
        (run_dir / "run.json").write_text(json.dumps(changed))
        assert tell(run_dir).state is (state or State.BROKEN_OFF)


def test_a_journal_that_was_cut_is_told_as_far_as_it_reaches(killed: Path) -> None:
    story = tell(killed)
    assert story.headline.sentence.endswith("in the middle of a line.")
    assert story.main is not None
    assert story.main.ending == "still there"
    assert any(one.kind is Kind.BUSY for lane in story.lanes[1:] for one in lane.intervals)


def test_a_journal_may_be_cut_anywhere(valid: Path, copy: Copy) -> None:
    run_dir = copy(valid)
    journal = run_dir / "events.jsonl"
    raw = journal.read_bytes()
    first = raw.index(b"\n") + 1
    for number in range(12):
        journal.write_bytes(raw[: first + (len(raw) - first) * number // 12])
        story = tell(run_dir)
        assert story.state is State.BROKEN_OFF
        assert story.headline.exit_code == 9


def test_a_failed_run_names_who_died_and_what_it_said_last(failed: Path) -> None:
    story = tell(failed)
    deaths = [mark for mark in story.marks if mark.bad and mark.worker is not None]
    assert [(mark.what, mark.worker) for mark in deaths] == [("died", 0)]
    assert story.main is not None
    assert (story.main.ending, story.main.last_line) == ("exit 3", "no such luck")
    assert story.headline.exit_code == 5


def test_a_run_without_a_plan_has_a_story_too(unplanned: Path) -> None:
    story = tell(unplanned)
    assert story.lanes == ()
    assert story.result is None
    assert story.headline.exit_code == 2


def test_texts_of_programs_are_fit_for_display(hostile: Path) -> None:
    story = tell(hostile)
    beside = next(worker for worker in story.workers if worker.role is Role.BACKGROUND)
    assert "<script>" in beside.last_line
    texts = (beside.last_line, story.headline.sentence, *(worker.command for worker in story.workers))
    for text in (*texts, story.plan_toml):
        assert all(character.isprintable() or character == "\n" for character in text)
    assert "\\x0a[b]|`" in story.workers[0].command
    assert "\\U0000202e" in story.plan_toml


def test_telling_changes_nothing_in_the_run_directory(valid: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in [valid, *valid.rglob("*")]
            if path.is_file() or path.is_dir()
        }

    before = state()
    tell(valid)
    assert state() == before
