"""`clean_runs` in run directories that somebody has put something into."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from heteromig.core.errors import PreflightError
from heteromig.runner.cleaning import Outcome, clean_runs
from heteromig.runner.journal import JOURNAL
from heteromig.slices.mig import journal as layouts
from heteromig.slices.mig.left_over import left_cut
from heteromig.slices.mps import journal as shares
from heteromig.slices.source import parse_slices
from tests.slices.mig.bench import Bench

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
NOBODY = 65534
HALVES = "2g.12gb@0,2g.12gb@2"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "run").mkdir()
    return Bench("sim:a30", tmp_path)


def leave_cut(bench: Bench) -> Path:
    """As a run that was killed leaves it; the journal."""
    bench.change().apply(bench.uuid, "2x2g.12gb")
    return bench.file.path.replace(bench.runs_dir / "run" / layouts.RUN_JOURNAL)


@AS_ROOT
def test_nothing_is_done_to_a_gpu_that_somebody_else_wrote(bench: Bench) -> None:
    journal = leave_cut(bench)
    os.chown(journal, NOBODY, NOBODY)
    (found,) = clean_runs(bench.runs_dir)
    assert found.outcome is Outcome.FAILED
    assert f"belongs to another user (uid {NOBODY})" in found.sentence
    assert bench.cut == HALVES
    assert left_cut(bench.runs_dir, parse_slices(bench.slices), [bench.uuid]) == []

    os.chown(journal, 0, 0)
    (found,) = clean_runs(bench.runs_dir)
    assert found.outcome is Outcome.DONE
    assert bench.cut != HALVES


@AS_ROOT
def test_nothing_is_killed_that_somebody_else_wrote_down(tmp_path: Path) -> None:
    path = tmp_path / "run" / shares.RUN_JOURNAL
    path.parent.mkdir()
    entry = shares.ShareJournal(
        schema_version=shares.SCHEMA_VERSION,
        tool_version="0",
        gpu_uuid="GPU-0",
        slices="mps:2x50",
        directory=str(tmp_path / "heteromig-mps-0"),
        written_at="",
    )
    path.write_bytes(msgspec.json.encode(entry))
    os.chown(path, NOBODY, NOBODY)
    (found,) = clean_runs(tmp_path)
    assert found.outcome is Outcome.FAILED
    assert f"belongs to another user (uid {NOBODY})" in found.sentence
    assert shares.read_journal(path) == entry, "who names it, or made it, may use it"


@pytest.mark.parametrize("name", [layouts.RUN_JOURNAL, shares.RUN_JOURNAL])
def test_a_fifo_in_place_of_a_journal_is_said_and_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / name)
    (found,) = clean_runs(tmp_path)
    assert found.outcome is Outcome.FAILED
    assert "is not a regular file" in found.sentence
    assert left_cut(tmp_path, parse_slices("sim:a30"), ["SIM-GPU"]) == []


def test_a_fifo_in_place_of_the_journal_of_the_run_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / JOURNAL)
    (tmp_path / "run" / f".{layouts.RUN_JOURNAL}.new").touch()
    (found,) = clean_runs(tmp_path)
    assert (found.what, found.outcome) == ("file", Outcome.DONE)


def test_a_link_in_place_of_a_journal_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").write_text("{}")
    for name in (layouts.RUN_JOURNAL, shares.RUN_JOURNAL):
        (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PreflightError, match="cannot be read"):
        shares.read_journal(tmp_path / "run" / shares.RUN_JOURNAL)
    assert [found.outcome for found in clean_runs(tmp_path)] == [Outcome.FAILED] * 2


def test_what_is_said_is_how_the_gpu_is(bench: Bench) -> None:
    journal = leave_cut(bench)
    told = journal.read_text().replace('"profile": "1g.6gb"', '"profile": "7g.80gb"')
    journal.write_text(told)
    (found,) = clean_runs(bench.runs_dir)
    assert found.outcome is Outcome.DONE
    assert "4x1g.6gb" in found.sentence
    assert "7g.80gb" not in found.sentence
