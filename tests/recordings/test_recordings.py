"""Recorded runs come out the same for ever, and a recording in which anything was changed does not."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from heteromig.core.errors import EvidenceError
from heteromig.core.phases import Phase
from heteromig.runner.journal import JOURNAL
from heteromig.runner.playback import Played, play
from heteromig.runner.recording import read_record
from heteromig.runner.rundir import CERTIFICATE, RUN_JSON
from heteromig.runner.schemas import schema_file
from heteromig.runner.verification import verify_run
from heteromig.views.silent import Silent
from tests.e2e import quick as _quick  # noqa: F401 - so that `verify` in this process knows that harness
from tests.recordings import RECORDED, RECORDINGS

each = pytest.mark.parametrize("name", RECORDINGS)


def _play(run_dir: Path) -> Played:
    return play(run_dir, Silent(), speed=None)


@pytest.fixture
def copy(name: str, tmp_path: Path) -> Path:
    """A copy to spoil, in another place."""
    return Path(shutil.copytree(RECORDED / name, tmp_path / name))


def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(schema_file(name).read_text()))


def test_everything_that_is_there_is_expected_to_be() -> None:
    assert {path.name for path in RECORDED.iterdir()} == set(RECORDINGS)
    assert sum(path.stat().st_size for path in RECORDED.rglob("*") if path.is_file()) < 2_000_000


@each
def test_recording_replays_to_its_phases_and_verdict(name: str) -> None:
    expected, recorded = RECORDINGS[name], read_record(RECORDED / name)
    played = _play(RECORDED / name)
    assert played.record.phase == expected.phase.value
    assert played.record.phases == recorded.phases
    assert played.record.verdict == recorded.verdict
    finished = expected.phase is Phase.FINISHED
    assert (played.ending is None) is finished
    if played.record.verdict is not None:
        assert (played.record.verdict.status, played.record.verdict.exit_code) == (expected.status, expected.exit_code)
    assert (played.record.verdict is not None) is finished


@each
def test_recording_is_verified_wherever_it_lies(name: str, copy: Path) -> None:
    verdict = verify_run(copy).verdict
    assert (verdict.status, verdict.exit_code) == (RECORDINGS[name].status, RECORDINGS[name].exit_code)
    if RECORDINGS[name].phase is Phase.FINISHED:
        recorded = read_record(copy).verdict
        assert recorded is not None
        assert [one.exit_code for one in verdict.reasons] == [one.exit_code for one in recorded.reasons]


@each
def test_replay_exits_as_verify_does(name: str) -> None:
    expected = RECORDINGS[name]
    argv = (sys.executable, "-m", "heteromig", "replay", str(RECORDED / name), "--speed", "max")
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert done.returncode == expected.exit_code
    if expected.phase is Phase.FINISHED:
        assert f"validating -> finished: {expected.status}, exit {expected.exit_code}" in done.stderr
        assert f"(exit {expected.exit_code})" in done.stdout
    else:
        assert "UNFINISHED" in done.stdout
        assert "its controller died" in done.stderr


@each
def test_recording_conforms_to_the_schemas(name: str) -> None:
    run_dir = RECORDED / name
    _validator("run").validate(json.loads((run_dir / RUN_JSON).read_text()))
    line_of = _validator("events")
    for line in (run_dir / JOURNAL).read_text().splitlines():
        line_of.validate(json.loads(line))
    assert (run_dir / CERTIFICATE).exists() is (RECORDINGS[name].phase is Phase.FINISHED)
    if (run_dir / CERTIFICATE).exists():
        _validator("certificate").validate(json.loads((run_dir / CERTIFICATE).read_text()))


def _refuses(run_dir: Path, lines: list[str]) -> bool:
    (run_dir / JOURNAL).write_text("".join(f"{line}\n" for line in lines))
    try:
        _play(run_dir)
    except EvidenceError:
        return True
    return False


def _lines(run_dir: Path) -> list[str]:
    return (run_dir / JOURNAL).read_text().splitlines()


def _is(line: str, kind: str) -> bool:
    return line.startswith(f'{{"line":"{kind}"')


@each
def test_no_event_can_be_removed(copy: Path, name: str) -> None:
    lines = _lines(copy)
    places = [place for place, line in enumerate(lines) if _is(line, "event")]
    if RECORDINGS[name].phase is not Phase.FINISHED:
        places.pop()  # without its last event, a journal that just ends only ends earlier
    assert [place for place in places if not _refuses(copy, lines[:place] + lines[place + 1 :])] == []


@each
def test_no_two_neighbours_can_be_swapped(copy: Path) -> None:
    lines = _lines(copy)
    unnoticed = []
    for place, (one, other) in enumerate(itertools.pairwise(lines)):
        swapped = [*lines[:place], other, one, *lines[place + 2 :]]
        if swapped != lines and not _refuses(copy, swapped):
            unnoticed.append(place)
    assert unnoticed == []


def altered(value: Any) -> Iterator[Any]:
    """The value with one of its leaves altered, for each leaf."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from ({**value, key: other} for other in altered(one))
    elif isinstance(value, list) and value:
        for place, one in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in altered(one))
    else:
        alter: Callable[[Any], Any] = {
            str: lambda text: text + "x",
            int: lambda number: number + 1,
            float: lambda number: number + 0.5,
            bool: lambda truth: not truth,
            list: lambda _: ["x"],
        }.get(type(value), lambda _: 0)
        yield alter(value)


@each
def test_no_effect_can_bealtered(copy: Path) -> None:
    lines = _lines(copy)
    assert not _refuses(copy, lines)
    unnoticed = []
    for place, line in enumerate(lines):
        if _is(line, "effect"):
            for effect in altered(json.loads(line)["effect"]):
                changed = json.dumps({"line": "effect", "effect": effect}, separators=(",", ":"))
                if not _refuses(copy, [*lines[:place], changed, *lines[place + 1 :]]):
                    unnoticed.append(changed)
    assert unnoticed == []


@pytest.mark.parametrize("name", ["valid"])
def test_a_number_that_no_clock_shows_is_refused_wherever_it_is_in_the_journal(copy: Path) -> None:
    journal = copy / JOURNAL
    text = journal.read_text()
    numbers = {match[1]: match for match in re.finditer(r'"([a-z_-]+)":(\d+)(?=[,}\]])', text)}
    assert len(numbers) > 20
    for key, match in numbers.items():
        for digits in ("9" * 20, "9" * 400):
            journal.write_text(text[: match.start(2)] + digits + text[match.end(2) :])
            with pytest.raises(EvidenceError, match=r"more than 19 digits|not readable"):
                pytest.fail(f"{key}: {verify_run(copy).verdict}")


@pytest.mark.parametrize("name", ["valid"])
def test_the_longest_number_that_is_read_is_no_trouble_to_verify(copy: Path) -> None:
    (copy / CERTIFICATE).unlink()
    journal = copy / JOURNAL
    text = journal.read_text()
    numbers = {match[1]: match for match in re.finditer(r'"([a-z_-]+)":(\d+)(?=[,}\]])', text)}
    for match in numbers.values():
        for digits in ("9" * 19, "-" + "9" * 19):
            journal.write_text(text[: match.start(2)] + digits + text[match.end(2) :])
            with contextlib.suppress(EvidenceError):  # negative durations and the like
                assert verify_run(copy).run_id.endswith("-resnet50-offline")
