"""One run at a time on each GPU: advisory locks that the kernel drops when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from heteromig.core.errors import BusyError, PreflightError
from heteromig.slices.source import SliceSource

_STICKY_FOR_ALL = 0o1777
_FOR_ALL = 0o666
_PID_BYTES = 32


class HeldLocks:
    """Locks on GPUs, held until `close` or the end of the process.

    They do not pass to programs that this process executes; a child that forks and goes on without exec holds them too.
    """

    def __init__(self, held: ExitStack) -> None:
        self._held = held

    def close(self) -> None:
        """Let others have the GPUs; without effect the second time."""
        self._held.close()


def lock_directory(source: SliceSource, runs_dir: Path) -> Path:
    """Where the locks of a source are: under the runs directory for simulated GPUs, else one place for the machine.

    That place must be the same for all users, so it depends on nothing but the machine: `/run/lock` where everybody may
    write there (Debian and its kin), else `/tmp`.
    """
    if source.simulated:
        return runs_dir / ".locks"
    run_lock = Path("/run/lock")
    try:
        shared = stat.S_IMODE(run_lock.stat().st_mode) & _STICKY_FOR_ALL == _STICKY_FOR_ALL
    except OSError:
        shared = False
    return run_lock / "heteromig" if shared else Path("/tmp/heteromig-locks")  # noqa: S108 - opened without following links


def lock_gpus(uuids: Iterable[str], directory: Path, pid: int | None = None) -> HeldLocks:
    """Lock each GPU, or none of them.

    The directory is made when it is missing, for all users of the machine. Symbolic links are not followed, neither
    to it nor in it. `pid` is the process that others are told of, None for this one.

    Raises:
        BusyError: another process holds one of them.
        PreflightError: locks cannot be made there.
    """
    with ExitStack() as held:
        try:
            directory_fd = _open_directory(directory)
            held.callback(os.close, directory_fd)
            for uuid in sorted(set(uuids)):
                held.callback(_release, _lock(directory_fd, f"{uuid}.lock", uuid, pid or os.getpid()))
        except OSError as error:
            raise PreflightError(
                f"GPUs cannot be locked in {directory} ({error.strerror}): make it a directory where you may write, "
                "with files that you may write."
            ) from error
        return HeldLocks(held.pop_all())
    raise AssertionError  # pragma: no cover - ExitStack swallows nothing here


def holder_of(uuid: str, directory: Path) -> int | None:
    """The process for which the GPU is locked at this moment; None where it is not, or where that cannot be seen."""
    try:
        descriptor = os.open(directory / f"{uuid}.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def stale_locks(directory: Path, pid: int) -> list[Path]:
    """Lock files in which that pid was written, and that nobody holds: whoever did was killed."""
    return [path for path in sorted(directory.glob("*.lock")) if _is_stale(path, pid, remove=False)]


def remove_stale_lock(path: Path, pid: int) -> bool:
    """Remove such a file, unless somebody was quicker to lock it; whether that was done.

    Raises:
        OSError: it is not for this user to remove.
    """
    return _is_stale(path, pid, remove=True)


def _is_stale(path: Path, pid: int, *, remove: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _read_pid(descriptor) != pid:
            return False
        if remove:  # while it is locked: who opened it meanwhile finds that it is not there any more
            path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _release(descriptor: int) -> None:
    """Let go of a lock; the file has no pid then, which tells it from one whose holder was killed."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, _PID_BYTES, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None


def _open_directory(directory: Path) -> int:
    directory.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(directory, flags)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(directory, mode=0o700)  # noqa: PTH102 - opened by descriptor right below
    except FileExistsError:
        return os.open(directory, flags)
    descriptor = os.open(directory, flags)
    os.fchmod(descriptor, _STICKY_FOR_ALL)  # past the umask; sticky, so that nobody can remove another's file
    return descriptor


def _lock(directory_fd: int, name: str, uuid: str, pid: int) -> int:
    """A descriptor of the locked file, with that pid written into it."""
    while True:
        descriptor = _open_file(directory_fd, name)
        try:
            _take(descriptor, uuid)
            if _is_still(descriptor, directory_fd, name):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d\n" % pid, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # somebody tidied up between our opening and locking it: what we hold protects nothing


def _open_file(directory_fd: int, name: str) -> int:
    """Open the file or make it, in two steps: sticky directories refuse O_CREAT on a file of somebody else."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        try:
            return os.open(name, flags, dir_fd=directory_fd)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, mode=0o600, dir_fd=directory_fd)
        except FileExistsError:
            continue
        os.fchmod(descriptor, _FOR_ALL)  # past the umask: other users must be able to lock it
        return descriptor


def _take(descriptor: int, uuid: str) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise PreflightError(
            f"The lock file of GPU {uuid} is not a plain file of its own: somebody put something else in its place; "
            "remove it."
        )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read_pid(descriptor)
        if holder is not None and not Path(f"/proc/{holder}").exists():
            raise BusyError(
                f"GPU {uuid} is in use by another heteromig run (pid {holder}, which is in another container, or is "
                "gone, and what it did to the GPU is just being taken back): try again in a few seconds."
            ) from None
        raise BusyError(
            f"GPU {uuid} is in use by another heteromig run (pid {holder or 'unknown'}): wait until it has ended, or "
            "stop it."
        ) from None


def _is_still(descriptor: int, directory_fd: int, name: str) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
