"""`clean_runs` in run directories that somebody has put something into."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from heteromig.core.errors import PreflightError
from heteromig.runner.cleaning import Outcome, clean_runs
from heteromig.runner.journal import JOURNAL, SCHEMA_VERSION, Header, Journal
from heteromig.runner.recording import TOOL
from heteromig.runner.survivors import CONTROLLER
from heteromig.slices.locks import lock_gpus
from heteromig.slices.mig import journal as layouts
from heteromig.slices.mig.left_over import left_cut
from heteromig.slices.mps import journal as shares
from heteromig.slices.source import parse_slices
from heteromig.workers.guardian import PROCESSES_FILE, note_process
from tests.core.histories import SPEC
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


def _gone(action: Callable[[int], object] = lambda _: None) -> int:
    """A process that did something, given its pid, and was killed."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            action(os.getpid())
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def _run_of(runs: Path, engines: Path, *, alive: bool = False, harness: str = "loadgen") -> Path:
    """A run directory as its controller left it, who is dead or this process."""
    run_dir = runs / "20260101T000000Z-resnet50-offline"
    (run_dir / "workers" / "1-background-bert").mkdir(parents=True)
    spec = msgspec.structs.replace(
        SPEC, runs_dir=str(runs), engines_dir=str(engines), slices="sim:a30", harness=harness
    )
    journal = Journal(run_dir)
    journal.write(Header(SCHEMA_VERSION, TOOL, run_dir.name, 0, 0, spec))
    journal.close()

    def begin(pid: int) -> None:
        note_process(str(run_dir), CONTROLLER, pid)
        if not alive:
            lock_gpus(["SIM-GPU"], runs / ".locks")

    if alive:
        begin(os.getpid())
    else:
        _gone(begin)
    return run_dir


def _litter(run_dir: Path, engines: Path) -> list[Path]:
    """Everything that a run can leave half done."""
    runs, gone = run_dir.parent, _gone()
    precious = runs / "precious"
    precious.mkdir()
    (precious / "file").write_text("not to be lost")
    background = run_dir / "workers" / "1-background-bert"
    for name in (".run.json.new", ".certificate.json.new", ".mps.json.new"):
        (run_dir / name).write_text("{")
    (background / ".exit.json").write_text("{")
    (background / "tree").mkdir()
    (background / "tree" / "build").symlink_to(precious)
    (runs / f".latest-{gone}").symlink_to(precious)
    engines.mkdir()
    (engines / ".bert.abcdefgh.building").mkdir()
    (engines / ".bert.abcdefgh.building" / "engine").write_text("half")
    (engines / f".make-0123456789ab.json.{gone}").write_text("{")
    return [
        *(run_dir / name for name in (".run.json.new", ".certificate.json.new", ".mps.json.new")),
        background / ".exit.json",
        background / "tree",
        runs / f".latest-{gone}",
        engines / ".bert.abcdefgh.building",
        engines / f".make-0123456789ab.json.{gone}",
    ]


def test_what_a_dead_run_left_half_done_is_removed_and_said(tmp_path: Path) -> None:
    runs, engines = tmp_path / "runs", tmp_path / "engines"
    run_dir = _run_of(runs, engines, harness="make")
    litter = _litter(run_dir, engines)
    kept = [run_dir / JOURNAL, run_dir / PROCESSES_FILE, runs / "precious" / "file", engines / ".bert.lock"]
    kept[-1].touch()
    dry = clean_runs(runs, dry_run=True)
    assert {one.outcome for one in dry} == {Outcome.TO_DO}
    assert [path for path in litter if not os.path.lexists(path)] == []

    found = clean_runs(runs)
    assert {one.outcome for one in found} == {Outcome.DONE}
    assert [one.sentence.split(":")[0] for one in found if one.what == "file"] == [
        one.sentence.split(":")[0] for one in dry if one.what == "file"
    ]
    assert [path for path in litter if os.path.lexists(path)] == []
    assert [path for path in kept if not path.exists()] == []
    assert [one.what for one in found].count("file") == len(litter)
    assert [one.what for one in found].count("lock") == 1
    assert not list((runs / ".locks").glob("*"))
    assert clean_runs(runs) == ()


def test_what_a_run_that_goes_on_has_half_done_is_its_own(tmp_path: Path) -> None:
    runs, engines = tmp_path / "runs", tmp_path / "engines"
    run_dir = _run_of(runs, engines, alive=True, harness="make")
    litter = _litter(run_dir, engines)
    own = [path for path in litter if run_dir in path.parents]
    with contextlib.closing(lock_gpus(["SIM-GPU"], runs / ".locks")), (engines / ".bert.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clean_runs(runs)
    assert [path for path in own if not os.path.lexists(path)] == []
    assert (engines / ".bert.abcdefgh.building").exists(), "somebody is building"


def test_a_directory_of_a_program_that_is_called_tree_is_no_shadow(tmp_path: Path) -> None:
    run_dir = _run_of(tmp_path / "runs", tmp_path / "engines", harness="command")
    tree = run_dir / "workers" / "1-background-bert" / "tree"
    tree.mkdir()
    assert not [one for one in clean_runs(tmp_path / "runs") if one.what == "file"]
    assert tree.exists()


def test_a_lock_that_was_let_go_or_is_held_is_none_of_a_dead_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_dir = _run_of(runs, tmp_path / "engines")
    (lock,) = (runs / ".locks").glob("*.lock")
    held = lock_gpus(["SIM-GPU"], runs / ".locks")
    assert clean_runs(runs) == (), "somebody has it again"
    held.close()
    assert lock.read_text() == ""
    assert clean_runs(runs) == (), "and let go of it"
    assert run_dir.exists()


def test_a_run_of_another_boot_is_dead_when_it_has_been_silent(tmp_path: Path) -> None:
    run_dir = _run_of(tmp_path / "runs", tmp_path / "engines")
    path = run_dir / PROCESSES_FILE
    note = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**note, "boot_id": "another"}) + b"\n")
    (run_dir / ".run.json.new").write_text("{")
    assert clean_runs(tmp_path / "runs") == (), "it may be at work on another host"
    long_ago_s = time.time() - 3600
    os.utime(run_dir / JOURNAL, (long_ago_s, long_ago_s))
    assert {one.what for one in clean_runs(tmp_path / "runs")} == {"file", "lock"}
    assert not (run_dir / ".run.json.new").exists()


@AS_ROOT
def test_nothing_is_removed_from_directories_of_somebody_else(tmp_path: Path) -> None:
    runs, engines = tmp_path / "runs", tmp_path / "engines"
    run_dir = _run_of(runs, engines, harness="make")
    litter = _litter(run_dir, engines)
    for directory in (run_dir, engines, runs):
        os.chown(directory, NOBODY, NOBODY)
    assert clean_runs(runs) == ()
    assert [path for path in litter if not os.path.lexists(path)] == []
