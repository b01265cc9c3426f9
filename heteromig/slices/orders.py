"""Files by which GPUs are cut and processes ended, in directories that others may write to as well."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from heteromig.core.errors import PreflightError

_ROOT = 0


def files_of_runs(runs_dir: Path, name: str) -> Iterator[Path]:
    """The files of that name in all run directories, those of series too; links such as `latest` are not followed."""
    for path in sorted((*runs_dir.glob(f"*/{name}"), *runs_dir.glob(f"*/*/{name}"))):
        if not path.parent.is_symlink() and (path.parent.parent == runs_dir or not path.parent.parent.is_symlink()):
            yield path


def read_orders(path: Path, bytes_max: int, *, only_trusted: bool) -> bytes:
    """The beginning of a regular file; links are not followed, and opening a FIFO does not wait for its writer.

    Args:
        path: where it is.
        bytes_max: how much is read at most.
        only_trusted: whether it must belong to this user or to root. That is for files that were found by looking:
            one that somebody put there, for whoever cleans up to act on it, says nothing.

    Raises:
        FileNotFoundError: there is nothing of that name.
        OSError: it cannot be read.
        PreflightError: it is no regular file, or one of somebody else.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PreflightError(f"{path} is not a regular file, so nothing is read from it: remove it.")
        if only_trusted and status.st_uid not in {os.geteuid(), _ROOT}:
            raise PreflightError(
                f"{path} belongs to another user (uid {status.st_uid}), so nothing is done that it says: let that user "
                "clean up, or, if what it says is right, make the file yours (chown) and try again."
            )
        return file.read(bytes_max)


def write_orders(path: Path, value: object) -> None:
    """Replace the file by the JSON of `value`, in one step, and wait until it is on the disk. No link is followed.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    fresh = unfinished(path)
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_directory(path.parent)


def unfinished(path: Path) -> Path:
    """Where the next content is written; whoever is killed meanwhile leaves it there."""
    return path.with_name(f".{path.name}.new")


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
