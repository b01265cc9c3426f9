"""Files that were for the time of a run only, and that a killed run left.

They are looked for where nobody else writes: a run directory of this user or of root, and not behind links.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from heteromig.harnesses.make.shadow import SHADOW, remove_shadow
from heteromig.runner.rundir import LATEST
from heteromig.slices.mig.journal import RUN_JOURNAL
from heteromig.slices.processes import is_there

_ENDS_WITH_PID = re.compile(rf"\.(?:{LATEST}-|make-[0-9a-f]{{12}}\.json\.)(\d+)")
_BUILDING = re.compile(r"\.(?P<engine>.+)\.[^.]+\.building")


def is_ours(path: Path) -> bool:
    """Whether it is a directory of this user or of root; a link is not."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in {os.geteuid(), 0}


def residue_of_run(run_dir: Path, *, shadows: bool) -> Iterator[Path]:
    """Half-written files in the directory of a dead run, and, if asked for, its shadows of NVIDIA's tree."""
    for path in sorted(run_dir.glob(".*.new")):
        if path.name != f".{RUN_JOURNAL}.new" and path.is_file():
            yield path
    folders = [folder for folder in sorted((run_dir / "workers").glob("*")) if is_ours(folder)]
    for folder in (run_dir / "mps", *folders):
        if is_ours(folder) and (folder / ".exit.json").is_file():
            yield folder / ".exit.json"
        if shadows and is_ours(folder / SHADOW):
            yield folder / SHADOW


def residue_beside_runs(directory: Path) -> Iterator[Path]:
    """What processes that are gone left in a directory of runs or of engines, half done."""
    if not is_ours(directory):
        return
    for path in sorted(directory.glob(".*")):
        numbered = _ENDS_WITH_PID.fullmatch(path.name)
        building = _BUILDING.fullmatch(path.name)
        if numbered is not None:
            if not is_there(int(numbered[1])):
                yield path
        elif building is not None and is_ours(path) and not _is_being_built(directory, building["engine"]):
            yield path


def remove(path: Path) -> None:
    """Remove a file, a link, or a directory with everything in it; what links point at stays.

    Raises:
        OSError: something of it is left.
    """
    if path.name == SHADOW:
        remove_shadow(path)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_being_built(directory: Path, engine: str) -> bool:
    """Whether a builder holds the lock beside that engine, as `benchmarks/build.py` makes it."""
    try:
        fd = os.open(directory / f".{engine}.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # nobody knows
    with contextlib.closing(os.fdopen(fd, "rb+")) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
