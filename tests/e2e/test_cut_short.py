"""A run that ends at any byte: its journal cut anywhere, and its controller killed at any moment."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import jsonschema
import msgspec
import pytest

from heteromig.core.errors import EvidenceError
from heteromig.core.machine import Run
from heteromig.core.record import RunRecord
from heteromig.runner.cleaning import clean_runs
from heteromig.runner.journal import JOURNAL, Heard, read_journal
from heteromig.runner.replaying import replay
from heteromig.runner.rundir import CERTIFICATE, RUN_JSON
from heteromig.runner.schemas import SCHEMAS
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import Start
from tests.e2e.product import RunCommand, processes_with, until

KILLS = 12
SAMPLES = 400
"""Cuts at random bytes of the journal, besides those around every end of a line."""


@pytest.fixture
def valid(quick: Start) -> Path:
    command = quick()
    command.expect(0)
    return command.run_dir


def test_journal_that_was_cut_at_any_byte(valid: Path, tmp_path: Path) -> None:
    """What is before the cut is used, and nothing is valid that had not come to its verdict."""
    whole = read_journal(valid)
    raw = (valid / JOURNAL).read_bytes()
    ends = [index + 1 for index, byte in enumerate(raw) if byte == ord("\n")]
    chosen = random.Random(6).sample(range(len(raw)), SAMPLES)  # noqa: S311 - the same each time
    cuts = sorted({*chosen, *(end + more for end in ends for more in (-1, 0, 1) if end + more <= len(raw))})
    copy = tmp_path / "copy"
    shutil.copytree(valid, copy)
    events = [line for line in whole.lines if isinstance(line, Heard)]
    valid_from = None
    for cut in cuts:
        (copy / JOURNAL).write_bytes(raw[:cut])
        complete = sum(end <= cut for end in ends)
        if complete == 0:
            with pytest.raises(EvidenceError, match="has no header"):
                read_journal(copy)
            continue
        journal = read_journal(copy)
        assert journal.header == whole.header
        assert journal.lines == whole.lines[: complete - 1], "everything before the cut, and nothing else"
        assert journal.cut == (cut not in ends)
        steps = list(replay(copy, journal, Run(journal.header.spec)))
        assert [step.event for step in steps] == [line.event for line in events[: len(steps)]]
        assert len(steps) == len(journal.events)
        # The certificate beside it was written at the end, so it names the journal; without it, the journal speaks.
        if cut in ends or cut % 7 == 0:
            found = verify_run(copy).verdict
            assert found.exit_code == (0 if cut == len(raw) else 9), found
            (copy / CERTIFICATE).rename(tmp_path / "aside")
            found = verify_run(copy).verdict
            (tmp_path / "aside").rename(copy / CERTIFICATE)
            assert (found.status, found.exit_code) in {("valid", 0), ("inconclusive", 9)}
            if found.exit_code == 0:
                valid_from = cut if valid_from is None else valid_from
                assert b'"VerdictWritten"' in raw[:cut], "never before the run had come to its verdict"
            else:
                assert valid_from is None
                assert "The journal ends in" in found.reasons[-1].sentence
    assert valid_from is not None


def test_run_json_of_controllers_that_were_killed_at_any_moment(quick: Start, tmp_path: Path) -> None:
    """It is there as a whole, or not yet; the journal says how far the run came; and `clean` leaves nothing of it."""
    schema = msgspec.json.decode((SCHEMAS / "run.schema.json").read_bytes())
    moments = random.Random(7)  # noqa: S311 - likewise
    phases = set()
    for number in range(KILLS):
        home = tmp_path / f"home{number}"
        home.mkdir()
        command: RunCommand = quick("--sample-period", "100ms", home=home)
        journal = command.run_dir / JOURNAL
        until(lambda journal=journal: journal.exists() and journal.stat().st_size, "a header")  # type: ignore[misc]
        time.sleep(moments.uniform(0, 3.0))
        if command.process.poll() is None:
            command.send(signal.SIGKILL)
        killed = command.process.wait() == -signal.SIGKILL
        until(lambda home=home: not processes_with(str(home)), "the guardians have ended")  # type: ignore[misc]
        path = command.run_dir / RUN_JSON
        if path.exists():
            raw = path.read_bytes()
            jsonschema.validate(msgspec.json.decode(raw), schema)
            phases.add(msgspec.json.decode(raw, type=RunRecord).phase)
        sealed = (command.run_dir / CERTIFICATE).exists()
        finished = b'"destination":"finished"' in journal.read_bytes()
        verdict = verify_run(command.run_dir).verdict
        assert verdict.exit_code in ({0} if not killed or sealed else {0, 9} if finished else {9}), verdict
        clean_runs(command.runs)
        assert not list(command.run_dir.glob(".*.new"))
        assert not list(command.run_dir.glob("workers/*/.*"))
        assert clean_runs(command.runs) == ()
        assert verify_run(command.run_dir).verdict == verdict, "cleaning changes no verdict"
    assert len(phases) > 2, "the moments were different ones"


def test_half_of_a_run_json_is_never_taken_for_one(valid: Path) -> None:
    """Whoever was killed while writing leaves a file of another name, which the next writer replaces."""
    (valid / f".{RUN_JSON}.new").write_text("{")
    found = verify_run(valid)
    assert found.verdict.exit_code == 0
    assert [note for note in found.notes if ".run.json.new" in note]
