from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heteromig.slices.processes import Ancestry, StatFile, read_command, read_stat, read_variable
from tests.slices.conftest import Spawn
from tests.slices.waiting import until


def test_a_process_is_read_from_proc() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    assert stat.parent == os.getppid()
    assert not stat.is_kernel_thread
    assert stat.resident_bytes > 1 << 20
    assert int(stat.image[0]) > 0


def test_a_name_full_of_parentheses_and_blanks_does_not_confuse(spawn: Spawn, tmp_path: Path) -> None:
    program = tmp_path / ") S 1 (a"
    program.symlink_to("/bin/sleep")
    child = spawn([str(program), "600"])
    until(lambda: read_command(child.pid).endswith("600"), "the child executes")
    stat = read_stat(child.pid)
    assert stat is not None
    assert stat.parent == os.getpid()


def test_nobody_is_none(spawn: Spawn) -> None:
    child = spawn(["true"])
    child.wait()
    assert read_stat(child.pid) is None
    assert read_variable(child.pid, b"PATH") is None
    assert read_command(child.pid) == ""
    assert Ancestry().of(child.pid) == ()


def test_the_environment_is_that_which_the_process_was_started_with(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_CUDA_VISIBLE_DEVICES", "wrong")
    monkeypatch.setenv("LATER", "x" * 100_000)
    child = spawn(visible="MIG-a,MIG-b")
    until(lambda: read_command(child.pid) == "sleep 600", "the child executes")
    assert read_variable(child.pid, b"CUDA_VISIBLE_DEVICES") == b"MIG-a,MIG-b"
    assert read_variable(child.pid, b"VISIBLE_DEVICES") is None
    assert len(read_variable(child.pid, b"LATER") or b"") == 100_000


def test_ancestors_come_nearest_first(spawn: Spawn) -> None:
    nested = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
    )
    middle = spawn([sys.executable, "-c", nested], stdout=subprocess.PIPE)
    assert middle.stdout is not None
    inner = int(middle.stdout.readline())
    assert Ancestry().of(inner)[:2] == (middle.pid, os.getpid())
    os.kill(inner, 9)
    middle.wait()


@pytest.mark.parametrize("keep", [True, False])
def test_a_kept_file_follows_the_process_and_ends_with_it(spawn: Spawn, keep: bool) -> None:  # noqa: FBT001 - a table
    child = spawn()
    file = StatFile(child.pid, keep=keep)
    until(lambda: read_command(child.pid) == "sleep 600", "the child executes")
    assert file.read() == read_stat(child.pid)
    child.kill()
    child.wait()
    assert file.read() is None
    file.close()
    file.close()


def test_files_are_not_left_open(spawn: Spawn) -> None:
    file = StatFile(spawn().pid, keep=True)
    file.read()
    descriptor = file._descriptor
    assert descriptor is not None
    os.fstat(descriptor)
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
