from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heteromig.results.comparison import P99
from heteromig.results.readings import read_run
from tests.results.trees import detail_text, write_run

DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "Server", 3597.21, 8185418)


def test_both_logs_say_the_same(run: Path) -> None:
    outcome = read_run(run, "Server")
    assert outcome.notes == ()
    assert outcome.reading is not None
    assert (outcome.reading.scenario, outcome.reading.valid) == ("server", True)
    assert outcome.reading.metrics["result_scheduled_samples_per_sec"] == 3597.21
    assert outcome.reading.metrics[P99] == 8185418
    alone = []
    for name in (DETAIL, SUMMARY):
        log = (run / name).read_text()
        (run / name).unlink()
        found = read_run(run, "server")
        assert found.notes == (f"{name} is missing; the other log is used",)
        alone.append(found.reading)
        (run / name).write_text(log)
    assert all(reading is not None and reading.metrics[P99] == 8185418 for reading in alone)
    assert all(reading is not None and reading.valid and reading.samples_per_query == 1 for reading in alone)


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe" * 100)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_cut, _empty, _foreign, _directory])
def test_one_damaged_log_is_made_up_for_by_the_other(run: Path, damage: Callable[[Path], None]) -> None:
    damage(run / DETAIL)
    outcome = read_run(run, "Server")
    assert outcome.reading is not None
    assert outcome.reading.metrics[P99] == 8185418
    assert len(outcome.notes) == 1
    assert DETAIL in outcome.notes[0]
    damage(run / SUMMARY)
    outcome = read_run(run, "Server")
    assert outcome.reading is None
    assert outcome.notes[-1] == "no figure for server"


def test_a_number_that_was_cut_is_no_number(run: Path) -> None:
    (run / DETAIL).unlink()
    text = (run / SUMMARY).read_text()
    (run / SUMMARY).write_text(text[: text.index("8185418") + 4])
    outcome = read_run(run, "Server")
    assert outcome.reading is not None
    assert P99 not in outcome.reading.metrics


def test_invalid_in_either_log_is_invalid(run: Path) -> None:
    (run / SUMMARY).write_text((run / SUMMARY).read_text().replace(": VALID", ": INVALID"))
    outcome = read_run(run, "Server")
    assert outcome.reading is not None
    assert outcome.reading.valid is False


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("PerformanceOnly", "AccuracyOnly", "the run is of mode AccuracyOnly, which measures no speed"),
        ('"Server"', '"Offline"', "the logs are of scenario offline and server"),
        ("3597.21", "3000.0", f"{DETAIL} and {SUMMARY} are not of the same run"),
    ],
)
def test_what_is_of_something_else_is_not_used(run: Path, old: str, new: str, why: str) -> None:
    (run / DETAIL).write_text((run / DETAIL).read_text().replace(old, new))
    outcome = read_run(run, "Server")
    assert outcome.reading is None
    assert why in outcome.notes[-1]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "0", "null", '"fast"', "1" + "0" * 400, "9" * 5000])
def test_numbers_that_are_none_are_not_used(run: Path, value: str) -> None:
    (run / SUMMARY).unlink()
    text = detail_text("Server", 3597.21, 8185418).replace("3597.21", value)
    (run / DETAIL).write_text(text)
    assert read_run(run, "Server").reading is None


def test_scenarios_that_nobody_knows(run: Path) -> None:
    (run / SUMMARY).write_text("Samples per second: 3\n")
    (run / DETAIL).unlink()
    outcome = read_run(run, "Interactive")
    assert outcome.reading is None
    assert outcome.notes[-1] == "scenario interactive is not known"
