"""What `/proc` says of processes: parents, memory, names."""

from __future__ import annotations

import os
from typing import NamedTuple

_STAT_BYTES = 2048  # 52 numbers of at most 20 digits, and a name of at most 64 bytes
_COMMAND_BYTES = 256
_ENVIRONMENT_BYTES = 1 << 21  # ARG_MAX under the usual stack limit of 8 MiB: execve(2) accepts no more
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h, in field 9 of proc_pid_stat(5)
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")

Image = tuple[bytes, bytes, bytes]
"""What a process executes: its start time, and where its environment begins and ends."""


class ProcessStat(NamedTuple):
    """Fields of `/proc/<pid>/stat`; see proc_pid_stat(5).

    `image` changes whenever the process executes something else, because every exec chooses the addresses of the
    environment anew. They are 0 where we may not look into the process, and while it is exiting or within exec.
    `cpu_ticks` are those in user mode and in the kernel, as they were read: few readers want the numbers.
    """

    parent: int
    is_kernel_thread: bool
    resident_bytes: int
    image: Image
    cpu_ticks: tuple[bytes, bytes]


def read_stat(pid: int | str) -> ProcessStat | None:
    """One process, or None when there is none of that id."""
    return _parse_stat(_read(f"/proc/{pid}/stat", _STAT_BYTES))


def read_name(pid: int | str) -> str:
    """What the kernel calls the process: the first 15 bytes of its program's name; empty when it is gone."""
    return _read(f"/proc/{pid}/comm", _COMMAND_BYTES).rstrip(b"\n").decode(errors="replace")


def is_there(pid: int) -> bool:
    """Whether there is a process of that id, be it a zombie."""
    return os.path.exists(f"/proc/{pid}")  # noqa: PTH110 - as for `_read`


class StatFile:
    """`/proc/<pid>/stat` for reading again and again, at half the cost when it is kept open.

    A kept file belongs to the process and not to its id: once the process is gone, the id is looked up anew.
    """

    def __init__(self, pid: int | str, *, keep: bool) -> None:
        """Nothing is opened yet. `keep` says whether to keep the file open between reads."""
        self._path = f"/proc/{pid}/stat"
        self._keep = keep
        self._descriptor: int | None = None

    def read(self) -> ProcessStat | None:
        """The process of that id, or None when there is none."""
        if not self._keep:
            return _parse_stat(_read(self._path, _STAT_BYTES))
        if self._descriptor is not None:
            try:
                return _parse_stat(os.pread(self._descriptor, _STAT_BYTES, 0))
            except ProcessLookupError:
                self.close()
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return _parse_stat(os.pread(self._descriptor, _STAT_BYTES, 0))
        except (FileNotFoundError, ProcessLookupError):
            return None

    def close(self) -> None:
        """Keep nothing open; without effect the second time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


def _parse_stat(data: bytes) -> ProcessStat | None:
    # The name, in parentheses, may hold blanks and parentheses itself; the fields start after its end.
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 49:  # noqa: PLR2004 - up to field 51, the first two being gone
        return None
    return ProcessStat(
        parent=int(fields[1]),
        is_kernel_thread=bool(int(fields[6]) & _KERNEL_THREAD),
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        image=(fields[19], fields[47], fields[48]),
        cpu_ticks=(fields[11], fields[12]),
    )


def read_variable(pid: int | str, name: bytes) -> bytes | None:
    """The value of a variable in the environment that the process was started with; None if unset or not ours to read.

    A process that forked and did not exec yet still has its parent's.
    """
    environment = b"\0" + _read(f"/proc/{pid}/environ", _ENVIRONMENT_BYTES)
    at = environment.find(b"\0" + name + b"=")
    if at < 0:
        return None
    return environment[at + len(name) + 2 :].partition(b"\0")[0]


def has_environment(pid: int | str) -> bool:
    """Whether the environment that the process was started with can be read: it is alive, ours to read, and has any."""
    return bool(_read(f"/proc/{pid}/environ", 1))


def read_command(pid: int) -> str:
    """The command line, cut after some 250 bytes; empty when the process is gone or a zombie."""
    return _read(f"/proc/{pid}/cmdline", _COMMAND_BYTES).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


class Ancestry:
    """Parents of processes, each read once: make a new one for every reading."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        self._gone: set[int] = set()

    def is_cut(self, pid: int) -> bool:
        """Whether the process, or one of its ancestors, was not there any more when it was read."""
        return (pid, *self.of(pid))[-1] in self._gone

    def of(self, pid: int) -> tuple[int, ...]:
        """Pids of the parents, nearest first; as far as they could be read."""
        ancestors: list[int] = []
        while True:
            pid = self._parent(pid)
            if pid <= 0 or pid in ancestors:  # a pid reused while we read could close a circle
                return tuple(ancestors)
            ancestors.append(pid)

    def _parent(self, pid: int) -> int:
        parent = self._parents.get(pid)
        if parent is None:
            stat = read_stat(pid)
            if stat is None:
                self._gone.add(pid)
            parent = self._parents[pid] = 0 if stat is None else stat.parent
        return parent


def _read(path: str, limit_bytes: int) -> bytes:
    """Up to so many bytes of a file of `/proc`; empty when the process is gone or not ours.

    Bare system calls: this runs for every process of the machine once a period, beside measured benchmarks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, limit_bytes)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
