"""The process that cuts a GPU is killed at every step, and another one cuts the GPU back.

Each step has two moments: right before it is done and right after. Steps are every call that changes the GPU, and every
opening, syncing and renaming of a file of the journal.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heteromig.slices.mig.applying import LayoutChange
from heteromig.slices.mig.calls import PartitionLibrary
from heteromig.slices.mig.journal import Progress
from tests.slices.mig.bench import CHANGING, Bench, tampered

LAYOUT = "2g.12gb@2,2x1g.6gb"
FOUR = "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3"
MIXED = "1g.6gb@0,1g.6gb@1,2g.12gb@2"
Work = Callable[[LayoutChange], object]


class Moments:
    """The moments of this process, which is killed at one of them."""

    def __init__(self, last: int | None) -> None:
        self.passed: list[str] = []
        self._last = last

    def pass_one(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def both(*args: Any, **options: Any) -> Any:
            self.pass_one(f"{name(*args)} begins")
            answer = call(*args, **options)
            self.pass_one(f"{name(*args)} is done")
            return answer

        return both


def work(bench: Bench, do: Work, last: int | None, *, enable: bool = False) -> list[str]:
    """Do it in a child process that is killed at its `last` moment; returns the moments if it was not killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - it is killed, or leaves without reporting what it covered
        try:
            moments = Moments(last)
            _live(bench, do, moments, enable=enable)
            os.write(writing, "\n".join(moments.passed).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if last is not None:
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        return []
    assert told, "it failed"
    return told.decode().splitlines()


def _live(bench: Bench, do: Work, moments: Moments, *, enable: bool) -> None:
    """In the child: with the file of the journal and the calls that change something watched."""
    library = bench.library
    journal = str(bench.file.path)
    fresh = str(bench.file.path.with_name(f".{bench.file.path.name}.new"))

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in {"open", "os.rename", "os.remove"} and str(args[0]) in {journal, fresh}:
            moments.pass_one(f"{event} {Path(str(args[0])).name}")

    sys.addaudithook(watch)
    os.fsync = moments.around(os.fsync, lambda fd: f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}")
    watched: PartitionLibrary = tampered(
        library, **{name: moments.around(getattr(library, name), _what) for name in CHANGING}
    )
    do(bench.change(watched, enable_mig_mode=enable))


def _what(*args: Any) -> str:
    return "a question" if 0xFFFFFFFF in args else "a change"


def applying(change: LayoutChange) -> object:
    return change.apply("0", LAYOUT)


def restoring(change: LayoutChange) -> object:
    return change.restore()


def fresh(folder: Path, number: int) -> Bench:
    (folder / str(number)).mkdir()
    return Bench("sim:a30", folder / str(number))


def check_that_it_is_back(bench: Bench, cut: str = FOUR) -> None:
    assert bench.cut == cut
    uuids = bench.uuids
    entry = bench.file.read()
    assert entry is None or entry.progress is Progress.RESTORED
    assert bench.change().restore() is None
    assert bench.uuids == uuids


def test_the_way_back_is_on_the_disk_before_anything_is_done_and_each_time_it_changes(tmp_path: Path) -> None:
    bench = fresh(tmp_path, 0)
    journal = [
        "os.remove .journal.json.new",
        "open .journal.json.new",
        "sync .journal.json.new begins",
        "sync .journal.json.new is done",
        "os.rename .journal.json.new",
        "sync 0 begins",
        "sync 0 is done",
    ]
    for do in (applying, restoring):
        first, *moments = [name for name in work(bench, do, None) if "question" not in name]
        assert first == "open journal.json"
        assert moments[:7] == moments[-7:] == journal
        assert moments[7:-7] == ["a change begins", "a change is done"] * 6


def test_apply_is_taken_back_wherever_it_was_killed(tmp_path: Path) -> None:
    moments = len(work(fresh(tmp_path, 0), applying, None))
    assert moments > 20
    seen = set()
    for last in range(1, moments + 1):
        bench = fresh(tmp_path, last)
        before = bench.uuids
        work(bench, applying, last)
        seen.add(bench.cut)
        bench.change().restore()
        check_that_it_is_back(bench)
        assert {place: uuid for place, uuid in bench.uuids.items() if place in {"1g.6gb@0", "1g.6gb@1"}} == {
            place: uuid for place, uuid in before.items() if place in {"1g.6gb@0", "1g.6gb@1"}
        }
    assert {FOUR, MIXED} < seen
    assert len(seen) == 7  # every cut in between was seen


def test_apply_is_finished_by_another_apply_wherever_it_was_killed(tmp_path: Path) -> None:
    moments = len(work(fresh(tmp_path, 0), applying, None))
    for last in range(1, moments + 1):
        bench = fresh(tmp_path, last)
        work(bench, applying, last)
        layout = LAYOUT if last % 2 else "4g.24gb"
        bench.change().apply("0", layout)
        assert bench.cut == (MIXED if last % 2 else "4g.24gb@0")
        assert bench.journal.progress is Progress.APPLIED
        bench.change().restore()
        check_that_it_is_back(bench)


def test_restore_is_finished_wherever_it_was_killed(tmp_path: Path) -> None:
    def applied(number: int) -> Bench:
        bench = fresh(tmp_path, number)
        bench.change().apply("0", LAYOUT)
        return bench

    moments = len(work(applied(0), restoring, None))
    assert moments > 20
    for last in range(1, moments + 1):
        bench = applied(last)
        work(bench, restoring, last)
        bench.change().restore()
        check_that_it_is_back(bench)


def test_what_was_killed_twice_is_finished_too(tmp_path: Path) -> None:
    moments = len(work(fresh(tmp_path, 0), applying, None))
    for last in range(3, moments + 1, 3):
        bench = fresh(tmp_path, last)
        work(bench, applying, last)
        if bench.journal_is_open:
            work(bench, restoring, 5)
        bench.change().restore()
        check_that_it_is_back(bench)


def test_the_mig_mode_is_taken_back_wherever_it_was_killed(tmp_path: Path) -> None:
    def off(number: int) -> Bench:
        (tmp_path / str(number)).mkdir()
        bench = Bench("sim:h100-sxm-80gb", tmp_path / str(number))
        bench.clear()
        bench.set_mode(0)
        return bench

    def apply(change: LayoutChange) -> object:
        return change.apply("0", "2x3g.40gb")

    moments = len(work(off(0), apply, None, enable=True))
    modes = set()
    for last in range(1, moments + 1):
        bench = off(last)
        work(bench, apply, last, enable=True)
        modes.add(bench.mode)
        if last % 3 == 0 and bench.journal_is_open:
            work(bench, restoring, 4)
        bench.change().restore()
        check_that_it_is_back(bench, "nothing")
        assert bench.mode == (False, False)
    assert modes == {(False, False), (True, True)}
