"""One process per worker that starts the harness, blocks on it, and leaves nothing behind.

Run as a script of its own (`python -I -S guardian.py LIFELINE_FD REPORT_FD COMMAND_FD PARENT_PID DIRECTORY`), so it
imports nothing but the standard library, and little of that. It reads what to run from COMMAND_FD, because
`command.json` in DIRECTORY has no secrets, writes down itself and the harness in `processes.jsonl` before either can do
anything, appends the harness' output to `stdout.log`, writes one line of JSON to the report pipe once the harness runs
(or could not be started), and `exit.json` when the harness and all its descendants are gone.

It is two processes. The one that the controller starts leads the session, and only watches over the other, its child,
which does all of the above. Both are child subreapers (prctl(2)), so that descendants which fork twice or call setsid
become their children rather than init's: as long as waitid(2) knows a child, the tree is not gone. Whichever of the two
is killed or stopped, the other one ends the tree when the controller is gone.

The lifeline carries commands (`c`, `t`, `k`, see `COMMANDS`); its end of file, like a TERM, means that the controller
is gone.
"""
# Importing pathlib would add a third to the start of every worker, hence no paths but strings here.
# ruff: noqa: PTH104, PTH108, PTH115, PTH123, PTH208

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
"""prctl(2), linux/prctl.h: the signal to get when the parent dies."""
PR_SET_CHILD_SUBREAPER = 36
"""prctl(2), linux/prctl.h: become the parent of orphaned descendants."""

COMMANDS = {ord("c"): "clean stop", ord("t"): "TERM", ord("k"): "KILL"}
"""What the controller may write to the lifeline: the rungs of the stop ladder."""
STRENGTH = ("clean stop", "TERM", "KILL", "lifeline")
"""Ways to be stopped, weakest first; `exit.json` names the strongest one that was begun."""

PROCESSES_FILE = "processes.jsonl"
"""Who was started, one JSON object a line; see `note_process`."""
MARK_VARIABLE = "HETEROMIG_WORKER_MARK"
"""In the environment of a harness and all its descendants: a random word, by which those that left the session of a
guardian that was killed are still known to be its own."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
FIRST_RECHECK_S = 0.002
LAST_RECHECK_S = 0.2
"""While killing, look again this often: only processes stuck in the kernel take more than a few rounds."""
ALONE_S = 1.0
"""So long may the guardian take to end its tree once the controller is gone, before its watcher does it."""


class Process:  # Neither a NamedTuple nor a dataclass: importing either takes longer than all the rest of this file.
    """A process as `/proc/<pid>/stat` shows it; `pid` and `start_time` (clock ticks since boot) identify it."""

    __slots__ = ("pid", "ppid", "session", "start_time", "state")

    def __init__(self, pid: int, ppid: int, session: int, start_time: int, state: str) -> None:
        self.pid = pid
        self.ppid = ppid
        self.session = session
        self.start_time = start_time
        self.state = state


def read_process(pid: int) -> Process | None:
    """The process `pid` as it is now (proc(5)); None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            # The second field is the program's name in parentheses and may itself hold spaces and parentheses.
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0].decode())


def read_processes() -> list[Process]:
    """Every process that `/proc` shows.

    Not atomic: a tree that is forking can hide members, so whoever kills must ask again until none is left.
    """
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def descendants(root: int) -> list[Process]:
    """All live or stopped processes below `root`, parents before children; zombies are left out."""
    children: dict[int, list[Process]] = {}
    for process in read_processes():
        children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        for process in children.pop(queue.pop(0), []):
            queue.append(process.pid)
            found.append(process)
    return [process for process in found if process.state not in "ZX"]


def send_signal(process: Process, signum: int) -> bool:
    """Signal exactly `process`, never one that got its pid later; False when it is gone or not ours to signal."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        now = read_process(process.pid)
        if now is None or now.start_time != process.start_time:
            return False
        signal.pidfd_send_signal(pidfd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    else:
        return True
    finally:
        os.close(pidfd)


def this_boot() -> str:
    """An id of this boot of the machine: pids and start times mean nothing after the next. Empty where it is hidden."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def this_pid_namespace() -> str:
    """Where the pids that this process sees mean something; empty where that is hidden."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def note_process(directory: str, role: str, pid: int, mark: str = "") -> None:
    """Append a process to `processes.jsonl`, so that it can be told and stopped when nobody is left who knows it.

    Raises:
        OSError: the file cannot be written.
    """
    process = read_process(pid)
    if process is None:  # it is gone, and nobody needs to stop it
        return
    record = {
        "boot_id": this_boot(),
        "pid_namespace": this_pid_namespace(),
        "role": role,
        "pid": pid,
        "start_time": process.start_time,
        "mark": mark,
    }
    path = f"{directory}/{PROCESSES_FILE}"
    # It has the mark, by which processes are killed: nobody else is to read, let alone to write it.
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(record).encode() + b"\n")  # one write, which others' do not get into
    finally:
        os.close(fd)


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process, numbered as in the manual page of prctl.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


def catch_signals() -> int:
    """Turn the signals of interest into bytes on a pipe, and return its read end."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for signum in (signal.SIGCHLD, *STOP_SIGNALS):
        signal.signal(signum, _do_nothing)
    return read_fd


def report(fd: int, message: dict[str, int | str | None]) -> None:
    """Tell the controller the one thing that it waits to hear."""
    with contextlib.suppress(BrokenPipeError):  # The controller is gone; the lifeline says so as well.
        os.write(fd, json.dumps(message).encode() + b"\n")
    os.close(fd)


class Guardian:
    """The harness, its descendants, and the three things to wait for: lifeline, signals, the outcome of exec."""

    def __init__(self, lifeline_fd: int, report_fd: int, command_fd: int, directory: str) -> None:
        self._lifeline_fd = lifeline_fd
        self._report_fd = report_fd
        self._directory = directory
        with open(command_fd, "rb") as spec:
            command = json.load(spec)
        self._mark = os.urandom(16).hex()
        self._argv: list[str] = command["argv"]
        self._env: dict[str, str] = {**os.environ, **command["env"], MARK_VARIABLE: self._mark}
        self._cwd: str = command["cwd"]
        self._cpus: list[int] = command["cpus"]
        self._clean_stop_signal: int | None = command["clean_stop_signal"]
        self._harness_pid = -1
        self._exec_fd = -1
        self._spawn_failed = False
        self._status: int | None = None
        self._stopped_by: str | None = None
        self._killing = False
        self._killed: set[tuple[int, int]] = set()
        self._poll = select.poll()
        self._wakeup_fd = catch_signals()
        self._poll.register(self._wakeup_fd, select.POLLIN)
        self._poll.register(lifeline_fd, select.POLLIN)

    def run(self) -> None:
        """Start the harness; return when nothing of it is left and `exit.json` is on disk."""
        try:
            self._prepare()
            self._start()
        except OSError as error:
            self._report({"error": f"The harness for {self._directory} cannot be started: {error}."})
            return
        recheck_s = FIRST_RECHECK_S
        while not self._reap():
            if self._killing:
                self._kill_descendants()
                self._wait(recheck_s)
                recheck_s = min(2 * recheck_s, LAST_RECHECK_S)
            else:
                self._wait(None)
        if self._exec_fd >= 0:
            self._learn_exec()
        if self._status is not None and not self._spawn_failed:
            self._write_exit(self._status)

    def _prepare(self) -> None:
        """Write down this process, point its output to the log and pin it; the harness inherits the latter two."""
        for pid in {os.getsid(0), os.getpid()}:  # whoever leads the session, by which its members are known
            note_process(self._directory, "guardian", pid)
        # Programs print what they were told, and NVIDIA's the whole environment: that is for nobody else to read.
        log_fd = os.open(f"{self._directory}/stdout.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.close(log_fd)
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)

    def _start(self) -> None:
        """Fork the harness; `_exec_fd` ends when its exec succeeded, or says why it did not."""
        self._exec_fd, error_fd = os.pipe2(os.O_CLOEXEC)
        self._poll.register(self._exec_fd, select.POLLIN)
        # Blocked, so that the child can neither swallow a stop signal with our handler nor write to our wakeup pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._started_utc_ns = time.time_ns()
        self._started_ns = time.monotonic_ns()
        self._harness_pid = os.fork()
        if self._harness_pid == 0:
            self._become_harness(error_fd)
        os.close(error_fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())

    def _become_harness(self, error_fd: int) -> None:
        """In the child: keep nothing of the guardian but its output and its processors, then exec."""
        failed_at = "record"
        try:
            signal.set_wakeup_fd(-1)
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            # A group of its own: a harness that signals its whole group (`kill 0`) must not hit the guardian.
            os.setpgid(0, 0)
            for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            note_process(self._directory, "harness", os.getpid(), self._mark)
            failed_at = "chdir"
            os.chdir(self._cwd)
            failed_at = "exec"
            os.execvpe(self._argv[0], self._argv, self._env)  # noqa: S606 - a shell is what nobody wants here
        except OSError as error:
            os.write(error_fd, f"{failed_at} {error.errno}".encode())
        finally:
            os._exit(127)

    def _learn_exec(self) -> None:
        """Report how exec went, once that is known."""
        failure = os.read(self._exec_fd, 64).decode()
        self._poll.unregister(self._exec_fd)
        os.close(self._exec_fd)
        self._exec_fd = -1
        if not failure:
            process = read_process(self._harness_pid)
            start_time = None if process is None else process.start_time
            self._report({"pid": self._harness_pid, "start_time": start_time})
            return
        self._spawn_failed = True
        failed_at, number = failure.split()
        reason = os.strerror(int(number))
        if failed_at == "chdir":
            sentence = f"The working directory {self._cwd} of the harness cannot be entered: {reason}."
        elif failed_at == "record":
            sentence = f"{self._directory}/{PROCESSES_FILE} cannot be written, so nothing was started: {reason}."
        else:
            sentence = (
                f"The program {self._argv[0]} cannot be run in {self._cwd}: {reason}. "
                "Check that it exists, is executable and is found along PATH."
            )
        self._report({"error": sentence})

    def _report(self, message: dict[str, int | str | None]) -> None:
        report(self._report_fd, message)

    def _wait(self, timeout_s: float | None) -> None:
        """Block until something happened, at most `timeout_s`, and take it in."""
        ready = {fd for fd, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000)}
        # First, so that a harness which had ended by itself does not count as one that was stopped.
        self._reap()
        if self._exec_fd in ready:
            self._learn_exec()
        if self._wakeup_fd in ready and not set(STOP_SIGNALS).isdisjoint(os.read(self._wakeup_fd, 4096)):
            self._stop("lifeline")
        if self._lifeline_fd in ready:
            commands = os.read(self._lifeline_fd, 64)
            for command in commands:
                self._stop(COMMANDS[command])
            if not commands:
                self._poll.unregister(self._lifeline_fd)
                self._stop("lifeline")

    def _stop(self, rung: str) -> None:
        """Take one rung of the stop ladder."""
        if self._status is None and (
            self._stopped_by is None or STRENGTH.index(rung) > STRENGTH.index(self._stopped_by)
        ):
            self._stopped_by = rung
        if rung == "clean stop":
            if self._status is None and self._clean_stop_signal is not None:
                # To the process alone. It is not reaped, so the number still is its own.
                os.kill(self._harness_pid, self._clean_stop_signal)
                os.kill(self._harness_pid, signal.SIGCONT)
        elif rung == "TERM":
            for process in descendants(os.getpid()):
                send_signal(process, signal.SIGTERM)
                # Who is stopped acts on nothing else, and a stop that is under way shows in no state yet.
                send_signal(process, signal.SIGCONT)
        else:
            self._killing = True

    def _kill_descendants(self) -> None:
        """KILL all that are there now; forks that this misses are found by the next call."""
        left = descendants(os.getpid())
        if self._status is None:
            # Atomic against forks within the harness' group, and exact: an unreaped leader keeps its number. There
            # may be no such group yet, or nobody in it that is ours to signal.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._harness_pid, signal.SIGKILL)
        for process in left:
            send_signal(process, signal.SIGKILL)
            if process.pid != self._harness_pid:
                self._killed.add((process.pid, process.start_time))

    def _reap(self) -> bool:
        """Reap what has ended; True when no child, hence no descendant, is left."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
            if ended is None:
                return False
            if ended.si_pid == self._harness_pid:
                self._ended_utc_ns = time.time_ns()
                self._ended_ns = time.monotonic_ns()
                if self._stopped_by != "TERM":
                    # Descendants that were asked to TERM have the controller's grace; other leftovers have none.
                    self._killing = True
                    self._kill_descendants()
                self._status = os.waitpid(ended.si_pid, 0)[1]
            else:
                os.waitpid(ended.si_pid, 0)

    def _write_exit(self, status: int) -> None:
        """Write `exit.json` so that it is there as a whole or not at all, even after a power cut."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        content = {
            "pid": self._harness_pid,
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            "killed_descendants": len(self._killed),
            "stopped_by": self._stopped_by,
            "utime_s": usage.ru_utime,
            "stime_s": usage.ru_stime,
            "maxrss_bytes": usage.ru_maxrss * 1024,
            "wall_s": (self._ended_ns - self._started_ns) / 1e9,
            "started_utc_ns": self._started_utc_ns,
            "ended_utc_ns": self._ended_utc_ns,
        }
        temporary = f"{self._directory}/.exit.json"
        # Not for others to write, whatever the umask is.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "w", encoding="ascii") as file:
                json.dump(content, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, f"{self._directory}/exit.json")
        except OSError:  # a full disk: the controller takes a guardian that says nothing for lost, as it should
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory_fd)
        os.close(directory_fd)


class Watcher:
    """The guardian's parent: what a guardian cannot do, because it is dead or stopped, it does."""

    def __init__(self, guardian_pid: int, lifeline_fd: int) -> None:
        self._guardian_pid = guardian_pid
        self._status: int | None = None
        self._poll = select.poll()
        self._wakeup_fd = catch_signals()
        self._poll.register(self._wakeup_fd, select.POLLIN)
        self._lifeline_fd = lifeline_fd
        self._poll.register(lifeline_fd, 0)  # its end alone: what it carries is for the guardian

    def run(self) -> int:
        """Return the guardian's exit status once nothing is left below this process."""
        alone_at_s: float | None = None
        while not self._reap():
            if self._status is not None or (alone_at_s is not None and time.monotonic() >= alone_at_s):
                for process in descendants(os.getpid()):
                    send_signal(process, signal.SIGKILL)
                self._wait(FIRST_RECHECK_S)
            elif self._wait(None if alone_at_s is None else ALONE_S) and alone_at_s is None:
                alone_at_s = time.monotonic() + ALONE_S
        return 1 if self._status is None else os.waitstatus_to_exitcode(self._status)

    def _wait(self, timeout_s: float | None) -> bool:
        """Block until something happened; whether the controller is gone, or somebody said TERM, which means the same.

        Whoever is stopped hears of neither until it is continued.
        """
        ready = {fd for fd, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000)}
        ending = self._lifeline_fd in ready
        if ending:
            self._poll.unregister(self._lifeline_fd)
        if self._wakeup_fd in ready:
            ending |= not set(STOP_SIGNALS).isdisjoint(os.read(self._wakeup_fd, 4096))
        if ending and self._status is None:
            # It is not reaped, so the number still is its own.
            os.kill(self._guardian_pid, signal.SIGTERM)
            os.kill(self._guardian_pid, signal.SIGCONT)
        return ending

    def _reap(self) -> bool:
        """Reap what has ended; True when nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._guardian_pid:
                self._status = status


def _do_nothing(_signum: int, _frame: object) -> None:
    """A handler must exist for a signal to reach the wakeup pipe."""


def main(lifeline_fd: int, report_fd: int, command_fd: int, parent_pid: int, directory: str) -> int:
    """Guard one harness until all of it is gone."""
    for fd in (lifeline_fd, report_fd):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the function takes it by position only
    os.set_blocking(lifeline_fd, False)
    watcher_pid = os.getpid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until there is somebody to hear them
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        return 1  # the controller died before its death could be announced
    try:
        guardian_pid = os.fork()
    except OSError as error:
        report(report_fd, {"error": f"The guardian for {directory} cannot be started: {error}."})
        return 1
    if guardian_pid == 0:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        guardian = Guardian(lifeline_fd, report_fd, command_fd, directory)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if os.getppid() == watcher_pid:
            guardian.run()
            os.kill(watcher_pid, signal.SIGCONT)  # somebody may have stopped it, and it is to end now
        return 0
    for fd in (report_fd, command_fd):  # which are the guardian's
        os.close(fd)
    watcher = Watcher(guardian_pid, lifeline_fd)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return watcher.run()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
