"""`--events` and `--debug`: the journal on standard output or error, whoever reads it, or does not."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.runner.journal import JOURNAL
from tests.e2e.conftest import FLAGS
from tests.e2e.product import RunCommand, until

QUICK = (*FLAGS, "--harness", "quick", "--main-benchmark-duration", "500ms")

Start = Callable[..., RunCommand]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a run whose workers are up at once."""
    started: list[RunCommand] = []

    def begin(*more: str, stdout: int | None = None) -> RunCommand:
        run = RunCommand(tmp_path, ("run", *QUICK, *more), environ={}, module="tests.e2e.quick", stdout=stdout)
        started.append(run)
        return run

    yield begin
    for run in started:
        run.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page: the end to read, which the test closes, and the one to write."""
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
    yield read_fd, write_fd
    os.close(write_fd)


def _journal(run: RunCommand) -> bytes:
    return (run.run_dir / JOURNAL).read_bytes()


def _finished(run: RunCommand) -> bool:
    """Whether the run itself is over, the process or not."""
    path = run.run_dir / "certificate.json"
    return path.exists() and run.record().phase == Phase.FINISHED.value


def test_events_are_the_journal_and_nothing_else(start: Start) -> None:
    run = start("--events")
    run.expect(0)
    finished = run.finish()
    assert finished.stdout.encode() == _journal(run)
    assert msgspec.json.decode(finished.stdout.splitlines()[0])["line"] == "header"
    assert "validating -> finished: valid, exit 0" in finished.stderr
    assert '"line"' not in finished.stderr


def test_events_arrive_while_they_happen(start: Start, pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    run = start("--events", "--quiet", "--start-time-buffer", "60s", stdout=write_fd)
    seen = b""
    while b'"destination":"buffering"' not in seen:
        seen += os.read(read_fd, 4096)
    assert _journal(run).startswith(seen)
    run.send(signal.SIGTERM)
    while not seen.endswith(b"\n") or b'"destination":"finished"' not in seen:
        seen += os.read(read_fd, 4096)
    run.expect(143)
    os.close(read_fd)
    assert seen == _journal(run)
    assert run.said == ""


def test_a_reader_that_waits_until_the_end_holds_up_nothing_and_misses_nothing(
    start: Start, pipe: tuple[int, int]
) -> None:
    read_fd, write_fd = pipe
    run = start("--events", "--quiet", stdout=write_fd)
    until(lambda: _finished(run), "the end of a run whose events nobody reads")
    assert run.process.poll() is None
    seen = b""
    while len(seen) < len(_journal(run)):
        seen += os.read(read_fd, 512)
    run.expect(0)
    os.close(read_fd)
    assert seen == _journal(run)
    assert run.said == ""


def test_a_reader_that_goes_costs_its_lines_and_no_more(start: Start, pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    run = start("--events", "--quiet", stdout=write_fd)
    assert os.read(read_fd, 512).startswith(b'{"line":"header"')
    os.close(read_fd)
    run.expect(0)
    lines = _journal(run).count(b"\n")
    words = run.said.split()
    assert words[0] == "heteromig:"
    assert 0 < int(words[1]) <= lines
    assert run.said.endswith(
        f" of {lines} lines of the journal did not reach standard output, because nobody reads it any more. "
        f"All of them are in {run.run_dir / JOURNAL}.\n"
    )


def test_somebody_who_does_not_want_to_wait_for_a_reader_interrupts(start: Start, pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    run = start("--events", "--quiet", stdout=write_fd)
    until(lambda: _finished(run), "the end of a run whose events nobody reads")
    run.send(signal.SIGINT)
    run.expect(0)
    os.close(read_fd)
    assert (
        "lines of the journal did not reach standard output, because you did not want to wait for its reader"
        in run.said
    )


def test_events_of_a_command_that_cannot_be_are_none(start: Start) -> None:
    run = start("--events", "--drain", "wait", "--grace", "soon")
    finished = run.finish()
    assert finished.exit_code == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("heteromig: --grace: 'soon' is not a duration")


def test_debug_says_every_line_of_the_journal_on_stderr(start: Start) -> None:
    run = start("--debug", "--quiet")
    run.expect(0)
    finished = run.finish()
    assert finished.stderr.encode() == _journal(run)
    assert finished.stdout.startswith("VALID (exit 0)")


def test_debug_and_plain_lines_share_stderr(start: Start) -> None:
    run = start("--debug", "--events")
    run.expect(0)
    finished = run.finish()
    assert finished.stdout.encode() == _journal(run)
    lines = finished.stderr.splitlines()
    assert [line for line in lines if line.startswith("{")] == finished.stdout.splitlines()
    assert any("validating -> finished" in line for line in lines if line.startswith("["))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="main has no processor of its own on this machine")
def test_the_processor_of_main_is_left_alone(start: Start, pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    run = start("--events", "--quiet", "--start-time-buffer", "60s", stdout=write_fd)
    run.wait_for_phase(Phase.BUFFERING)
    record = msgspec.json.decode((run.run_dir / "run.json").read_bytes(), type=RunRecord)
    main = next(worker for worker in record.workers if worker.role == "main")
    (mains,) = (set(place.cpus) for place in record.slices if place.uuid == main.slice_uuid)
    threads = [int(task.name) for task in Path(f"/proc/{run.pid}/task").iterdir()]
    assert len(threads) == 2
    for thread in threads:
        assert not os.sched_getaffinity(thread) & mains
    run.send(signal.SIGTERM)
    os.close(read_fd)
    run.expect(143)
