from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from heteromig.core.errors import BusyError, PreflightError
from heteromig.slices.discovery import take_inventory
from heteromig.slices.libraries import open_library
from heteromig.slices.locks import holder_of, lock_directory, lock_gpus
from heteromig.slices.source import SliceSource, parse_slices
from tests.slices.conftest import Spawn

HOLDER = """
import sys, time
from pathlib import Path
from heteromig.slices.locks import lock_gpus
locks = lock_gpus(sys.argv[2:], Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "runs" / ".locks"


def hold(spawn: Spawn, directory: Path, *uuids: str) -> subprocess.Popen[bytes]:
    child = spawn([sys.executable, "-c", HOLDER, str(directory), *uuids], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    return child


def test_a_gpu_is_held_by_one_process_until_it_dies(spawn: Spawn, directory: Path) -> None:
    child = hold(spawn, directory, "GPU-a", "GPU-b")
    with pytest.raises(PreflightError, match=rf"GPU GPU-b is in use by another heteromig run \(pid {child.pid}\)"):
        lock_gpus(["GPU-b"], directory)
    with closing(lock_gpus(["GPU-c"], directory)):
        pass
    child.kill()
    child.wait()
    with closing(lock_gpus(["GPU-b"], directory)):
        assert (directory / "GPU-b.lock").read_text() == f"{os.getpid()}\n"


def test_all_are_locked_or_none(spawn: Spawn, directory: Path) -> None:
    hold(spawn, directory, "GPU-b")
    with pytest.raises(PreflightError, match="GPU-b"):
        lock_gpus(["GPU-a", "GPU-b"], directory)
    lock_gpus(["GPU-a"], directory).close()


def test_locks_end_with_close_and_exclude_the_same_process_too(directory: Path) -> None:
    locks = lock_gpus(["GPU-a", "GPU-a"], directory)
    with pytest.raises(PreflightError, match=str(os.getpid())):
        lock_gpus(["GPU-a"], directory)
    locks.close()
    locks.close()
    lock_gpus(["GPU-a"], directory).close()


def test_programs_started_meanwhile_do_not_hold_them(spawn: Spawn, directory: Path) -> None:
    with closing(lock_gpus(["GPU-a"], directory)):
        spawn(close_fds=False)
    lock_gpus(["GPU-a"], directory).close()


def test_other_users_can_lock_and_not_remove(directory: Path) -> None:
    before = os.umask(0o077)
    try:
        lock_gpus(["GPU-a"], directory).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o1777
    assert stat.S_IMODE((directory / "GPU-a.lock").stat().st_mode) == 0o666


def test_a_lock_file_that_was_removed_protects_nothing_and_is_made_again(directory: Path) -> None:
    with closing(lock_gpus(["GPU-a"], directory)):
        (directory / "GPU-a.lock").unlink()
        lock_gpus(["GPU-a"], directory).close()
        assert (directory / "GPU-a.lock").exists()


def test_a_lock_file_that_is_removed_while_we_lock_it_is_not_relied_upon(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_flock = fcntl.flock
    removed: list[Path] = []

    def flock_a_moment_late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(directory / "GPU-a.lock")
            removed[0].unlink()
        real_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_a_moment_late)
    with closing(lock_gpus(["GPU-a"], directory)), pytest.raises(PreflightError, match="in use"):
        lock_gpus(["GPU-a"], directory)
    assert removed


def test_links_are_not_followed(directory: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_gpus([], directory).close()
    (directory / "GPU-a.lock").symlink_to(victim)
    (directory / "GPU-b.lock").hardlink_to(victim)
    os.mkfifo(directory / "GPU-c.lock")
    for uuid in ("GPU-a", "GPU-b", "GPU-c"):
        with pytest.raises(PreflightError):
            lock_gpus([uuid], directory)
    assert victim.read_text() == "precious"
    linked = tmp_path / "linked"
    linked.symlink_to(directory)
    with pytest.raises(PreflightError, match="cannot be locked in"):
        lock_gpus(["GPU-d"], linked)


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "locks"):
        with pytest.raises(PreflightError, match=f"cannot be locked in {directory}"):
            lock_gpus(["GPU-a"], directory)


def test_gpus_of_one_host_are_locked_one_by_one(spawn: Spawn, tmp_path: Path, two: SliceSource) -> None:
    directory = lock_directory(two, tmp_path)
    idle, busy = (gpu.uuid for gpu in take_inventory(open_library(two, tmp_path), two).gpus)
    child = hold(spawn, directory, busy)
    lock_gpus([idle], directory).close()
    with pytest.raises(PreflightError, match=rf"GPU {busy} is in use by another heteromig run \(pid {child.pid}\)"):
        lock_gpus([idle, busy], directory)
    single = parse_slices("sim:a30")
    (only,) = take_inventory(open_library(single, tmp_path), single).gpus
    with closing(lock_gpus([only.uuid], directory)), pytest.raises(PreflightError, match=f"GPU {idle} is in use"):
        lock_gpus([idle], directory)


def test_simulated_gpus_are_locked_by_runs_directory_and_real_ones_by_machine(tmp_path: Path) -> None:
    assert lock_directory(parse_slices("sim:a30"), tmp_path) == tmp_path / ".locks"
    real = lock_directory(parse_slices("mig"), tmp_path)
    assert real in (Path("/run/lock/heteromig"), Path("/tmp/heteromig-locks"))  # noqa: S108 - compared, not used
    assert real == lock_directory(parse_slices("gpu"), tmp_path / "elsewhere")


def test_whoever_holds_a_lock_may_do_so_for_another_process(spawn: Spawn, directory: Path) -> None:
    assert holder_of("GPU-1", directory) is None
    with closing(lock_gpus(["GPU-1"], directory, pid=os.getppid())):
        assert holder_of("GPU-1", directory) == os.getppid()
        with pytest.raises(BusyError, match=rf"in use by another heteromig run \(pid {os.getppid()}\)"):
            lock_gpus(["GPU-1"], directory)
    with (
        closing(lock_gpus(["GPU-1"], directory, pid=1 << 30)),
        pytest.raises(BusyError, match=rf"\(pid {1 << 30}, which .* just being taken back\): try again"),
    ):
        lock_gpus(["GPU-1"], directory)
    assert holder_of("GPU-1", directory) is None
    child = hold(spawn, directory, "GPU-1")
    assert holder_of("GPU-1", directory) == child.pid
    (directory / "GPU-1.lock").write_text("somebody\n")
    assert holder_of("GPU-1", directory) is None
    with pytest.raises(BusyError, match=r"\(pid unknown\)"):
        lock_gpus(["GPU-1"], directory)
