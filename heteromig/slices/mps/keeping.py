"""An MPS daemon of the run's own, for the time of a run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from heteromig import __version__
from heteromig.core.devices import Gpu
from heteromig.core.errors import HeteromigError, PreflightError
from heteromig.slices.discovery import take_inventory
from heteromig.slices.keeping import Prepared, Restored
from heteromig.slices.libraries import open_library
from heteromig.slices.mps.control import LOGS, NAME, PIPES, PROGRAM, Control, daemon_environment, find_program
from heteromig.slices.mps.journal import (
    RUN_JOURNAL,
    SCHEMA_VERSION,
    DaemonProcess,
    ShareJournal,
    read_journal,
    write_journal,
)
from heteromig.slices.mps.refusals import require_shareable
from heteromig.slices.mps.shares import share_environment
from heteromig.slices.nvml import NVMLError
from heteromig.slices.processes import read_command, read_name, read_variable
from heteromig.slices.source import parse_slices
from heteromig.workers.command import Command
from heteromig.workers.guardian import Process, read_process, read_processes, send_signal
from heteromig.workers.sweep import become_subreaper
from heteromig.workers.worker import STDOUT_LOG, Worker

DAEMON_DIRECTORY = "mps"
"""In the run directory: what the daemon said, how it was started and how it ended."""

TERMINATE_CLIENTS = "terminate_client"
"""The order to take processes, whose pids follow, off the GPU before they are killed."""

_PREFIX = "heteromig-mps-"
_DIRECTORY_BYTES_MAX = 72
"""A path of a UNIX socket has 107 bytes at most (unix(7)), and the daemon's longest is `/nvidia-cuda-mps-control.pid`;
the one of driver 580 ends with 1 where its directory has 100 bytes."""

_START_LIMIT_S = 10.0
"""It takes the daemon 25 ms to answer and its server half a second to start on an H100."""
_CLIENTS_LIMIT_S = 4.0
"""How long clients may take to be gone when the daemon is to end: guardians kill theirs within two seconds."""
_QUIT_LIMIT_S = 5.0
_FORCE_S = 1
"""After so long a daemon that was told to quit ends in spite of its clients (`quit -t`)."""
_SIGNAL_LIMIT_S = 3.0
_RECHECK_S = 0.02


class KeptShares:
    """The daemon, in a process tree of its own that dies with this process, and its server."""

    def __init__(self, *, slices: str, runs_dir: Path, run_dir: Path, gpu: str | None, found: bool = False) -> None:
        """`gpu` is its UUID or index; None for the first that is not in MIG mode. See `read_journal` for `found`.

        Raises:
            UsageError: there is no such GPU.
            PreflightError: there is no driver, or no GPU that can be shared.
        """
        self._source = parse_slices(slices)
        self._run_dir = run_dir
        self._path = run_dir / RUN_JOURNAL
        self._journal = read_journal(self._path, found=found)
        self._library = open_library(self._source, runs_dir)
        self._gpu: Gpu | None = None
        self._guarded: Worker | None = None
        self._control: Control | None = None
        self._server_fd: int | None = None
        if self._journal is not None:  # of a predecessor: what it did is taken back even where the GPU is lost
            self.gpu_uuid = self._journal.gpu_uuid
            return
        try:
            self._gpu = take_inventory(self._library, self._source, gpu).gpus[0]
        except NVMLError as error:
            raise PreflightError(
                f"NVML cannot enumerate the GPUs: it says {str(error)!r}; check nvidia-smi and the kernel's log."
            ) from error
        self.gpu_uuid = self._gpu.uuid

    @property
    def watched(self) -> tuple[int, ...]:
        """Readable when the daemon or its server ended."""
        guarded = () if self._guarded is None else (self._guarded.pidfd,)
        return guarded if self._server_fd is None else (*guarded, self._server_fd)

    def loss(self) -> str | None:
        """What happened to the daemon, or to its server."""
        processes = self._journal.processes if self._journal is not None else ()
        if self._guarded is None or not processes:
            return None
        daemon, *servers = processes
        if self._guarded_is_gone() or not _is_there(daemon):  # which takes its server along
            return f"The MPS control daemon of this run (pid {daemon.pid}) ended{self._last_words()}"
        gone = next((server.pid for server in servers if not _is_there(server)), None)
        return None if gone is None else f"The MPS server of this run (pid {gone}) ended{self._last_words()}"

    def prepare(self) -> Prepared:
        """Start the daemon and its server."""
        assert self._gpu is not None  # noqa: S101 - only a successor has none, and it prepares nothing
        program = find_program()
        require_shareable(self._library, self._gpu)
        become_subreaper()  # of what a guardian leaves that somebody kills
        for name in [name for name in os.environ if name.startswith("CUDA_MPS_")]:
            del os.environ[name]  # limits that its user has set for other daemons are none of this one's
        self._write(
            ShareJournal(
                schema_version=SCHEMA_VERSION,
                tool_version=__version__,
                gpu_uuid=self.gpu_uuid,
                slices=str(self._source),
                directory=_fresh_name(),
                written_at=datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
            )
        )
        try:
            self._start(program)
        except HeteromigError as error:
            try:
                self.restore()
            except HeteromigError as left:
                raise PreflightError(f"{error} {left}") from error
            raise
        assert self._journal is not None  # noqa: S101 - it was written
        logs = str(self._run_dir / DAEMON_DIRECTORY)
        return Prepared(
            gpu_uuid=self.gpu_uuid,
            what=f"{self._gpu.name} ({self.gpu_uuid}) is shared by an MPS daemon of the run's own, "
            f"{self._source.mps_shares} shares of {self._source.mps_percent} %.",
            environment=share_environment(self._source, self.gpu_uuid, self._journal.directory, logs),
        )

    def obey(self, order: str) -> None:
        """Take processes off the GPU that are to be killed next, those of them that are on it."""
        what, *pids = order.split() or [""]
        if what != TERMINATE_CLIENTS or self._control is None:
            return
        doomed = {int(pid) for pid in pids if pid.isdigit()}
        for server in self._control.servers() or ():
            for client in self._control.clients(server) or ():
                if client in doomed:
                    self._control.terminate_client(server, client)

    def restore(self) -> Restored:
        """End the daemon and its server, and remove its directory."""
        journal = self._journal
        if journal is None or journal.ended:
            return Restored("No MPS daemon was started.")
        self._forget_server()
        asked = bool(journal.processes) and self._quit(journal)  # one that never answered does not answer now
        if self._guarded is not None and not (asked and _wait(self._guarded_is_gone, _SIGNAL_LIMIT_S)):
            self._guarded.terminate()
            if not _wait(self._guarded_is_gone, _SIGNAL_LIMIT_S):
                self._guarded.kill()
                _wait(self._guarded_is_gone, _SIGNAL_LIMIT_S)
        # Those that the guardian of a killed keeper is about to end, or that nobody is.
        if not any(_are_gone(journal, signum) for signum in (None, signal.SIGTERM, signal.SIGKILL)):
            pids = ", ".join(str(process.pid) for process in _processes_of(journal))
            raise PreflightError(
                f"The MPS daemon of this run cannot be ended, not by SIGKILL either: pid {pids}; see the kernel's log."
            )
        if self._guarded is not None:
            self._guarded.close()
        _remove(Path(journal.directory))
        self._write(msgspec.structs.replace(journal, ended=True))
        return Restored(f"The MPS daemon {'was told to quit, and did' if asked else 'was ended'}.")

    def _start(self, program: str) -> None:
        assert self._journal is not None  # noqa: S101 - it was written before
        pipes, logs = self._journal.directory, self._run_dir / DAEMON_DIRECTORY
        try:
            os.mkdir(pipes, mode=0o700)  # noqa: PTH102 - refused where somebody else was there first
            logs.mkdir()
        except OSError as error:
            raise PreflightError(
                f"A directory for the MPS daemon cannot be made: {error}. Make room for it in {pipes} and {logs}."
            ) from None
        said = {PIPES: pipes, LOGS: str(logs), "CUDA_VISIBLE_DEVICES": self.gpu_uuid}
        self._control = Control(program, daemon_environment(), pipes, str(logs))
        self._guarded = Worker(
            index=0, directory=logs, command=Command(argv=(program, "-f"), env=said, cwd=logs), lines=()
        )
        self._guarded.spawn()
        if not _wait(lambda: self._has_ended() or self._asked_servers() is not None, _START_LIMIT_S):
            raise PreflightError(
                f"The MPS daemon does not answer within {_START_LIMIT_S:g} s{self._last_words()} Does the driver hang?"
            )
        if self._has_ended():
            raise PreflightError(
                f"The MPS daemon ended as soon as it was started{self._last_words()} Does it run by hand "
                f"({PROGRAM} -f)?"
            )
        # At once and not with the first client, so that a server that cannot start is a refusal, not a dead worker.
        self._control.ask(f"start_server -uid {os.geteuid()}")
        if not _wait(self._has_server, _START_LIMIT_S):
            raise PreflightError(f"The MPS daemon cannot start its server{self._last_words()}")
        daemon, servers = self._guarded.pid, self._asked_servers() or ()
        found = (read_process(pid) for pid in (daemon, *servers[-1:]) if pid is not None)
        self._write(
            msgspec.structs.replace(
                self._journal,
                processes=tuple(
                    DaemonProcess(process.pid, process.start_time, read_command(process.pid))
                    for process in found
                    if process is not None
                ),
            )
        )
        with contextlib.suppress(ProcessLookupError):
            self._server_fd = os.pidfd_open(servers[-1]) if servers else None

    def _asked_servers(self) -> tuple[int, ...] | None:
        assert self._control is not None  # noqa: S101 - it is being started
        return self._control.servers()

    def _has_server(self) -> bool:
        """Whether a server is up; where the daemon is too old to be asked that, as soon as there is one."""
        servers = self._asked_servers()
        if not servers or self._control is None:
            return False
        status = self._control.ask(f"get_server_status {servers[-1]}")
        return status is not None and "INITIALIZING" not in status

    def _has_ended(self) -> bool:
        """Whether the daemon is gone; its guardian says so, and why."""
        assert self._guarded is not None  # noqa: S101 - it was started
        self._guarded.read_report(time.monotonic_ns())
        return self._guarded_is_gone()

    def _guarded_is_gone(self) -> bool:
        assert self._guarded is not None  # noqa: S101 - as above
        self._guarded.reap(time.monotonic_ns())
        return not self._guarded.is_alive

    def _quit(self, journal: ShareJournal) -> bool:
        """Tell the daemon to quit, once its clients are gone or have had their time; whether it did."""
        control = self._control
        if control is None:
            try:
                logs = str(self._run_dir / DAEMON_DIRECTORY)
                control = Control(find_program(), daemon_environment(), journal.directory, logs)
            except PreflightError:
                return False
        gone = _wait(lambda: not _clients(control), _CLIENTS_LIMIT_S)
        # A plain `quit` waits for clients for ever.
        return control.ask("quit" if gone else f"quit -t {_FORCE_S}", _QUIT_LIMIT_S) is not None

    def _last_words(self) -> str:
        """The end of a sentence: what the daemon said last, and where the rest is."""
        log = self._run_dir / DAEMON_DIRECTORY / STDOUT_LOG
        try:
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            lines = []
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f', having said "{said}"; see {log}.' if said else f"; it said nothing ({log})."

    def _forget_server(self) -> None:
        if self._server_fd is not None:
            os.close(self._server_fd)
            self._server_fd = None

    def _write(self, journal: ShareJournal) -> None:
        write_journal(self._path, journal)
        self._journal = journal


def _wait(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_RECHECK_S)
    return True


def _clients(control: Control) -> tuple[int, ...]:
    servers = control.servers() or ()
    return tuple(client for server in servers for client in control.clients(server) or ())


def _fresh_name() -> str:
    """A name for a directory, short enough for sockets, that nobody can guess."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) + len(_PREFIX) + 17 > _DIRECTORY_BYTES_MAX:
        base = "/tmp"  # noqa: S108 - the name cannot be guessed, and is refused where it is taken
    return str(Path(base).absolute() / f"{_PREFIX}{secrets.token_hex(8)}")


def _is_there(process: DaemonProcess) -> bool:
    found = read_process(process.pid)
    return found is not None and found.start_time == process.start_time and found.state not in "ZX"


def _processes_of(journal: ShareJournal) -> Iterator[Process]:
    """What is left of the daemon and its servers: those written down, and those that have its directory."""
    known = {(one.pid, one.start_time) for one in journal.processes}
    for process in read_processes():
        if process.state in "ZX":
            continue
        pipes = read_variable(process.pid, PIPES.encode()) if read_name(process.pid) == NAME else None
        if pipes == os.fsencode(journal.directory) or (process.pid, process.start_time) in known:
            yield process


def _are_gone(journal: ShareJournal, signum: int | None) -> bool:
    """Whether they are, after that signal and a while."""
    if signum is not None:
        for process in _processes_of(journal):
            send_signal(process, signum)
    return _wait(lambda: not list(_processes_of(journal)), _SIGNAL_LIMIT_S)


def _remove(directory: Path) -> None:
    """Remove the daemon's directory, if it is one of ours."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and directory.name.startswith(_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        raise PreflightError(f"The directory of the MPS daemon {directory} cannot be removed: remove it by hand.")
