"""A helper child with pipes, for the sampler: the controller writes to it, reads from it and can abandon it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import IO

from heteromig.core.errors import PreflightError
from heteromig.workers.environment import package_path, without_slice
from heteromig.workers.sweep import kill_tree, note_reaped, note_started

REAP_TIMEOUT_S = 5.0
"""A process that got KILL is gone within milliseconds unless it is stuck in the kernel."""


class Helper:
    """A running child; its standard input and output are unbuffered pipes whose other ends nobody else holds."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError
        self._process = process
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)

    def reap(self) -> int | None:
        """The exit code, negative for a signal; None while the child lives. Never blocks."""
        returncode = self._process.poll()
        if returncode is not None:
            note_reaped(self.pid)
        return returncode

    def kill(self) -> None:
        """KILL the child and its descendants."""
        kill_tree(self.pid)

    def close(self) -> None:
        """Close the pipes, KILL the child if it still lives, and reap it, or abandon it when KILL does not help."""
        self.stdin.close()
        self.stdout.close()
        if self.reap() is None:
            self.kill()
            try:
                self._process.wait(REAP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                # Stuck in the kernel, as under a hanging driver. It stays noted as started on purpose, and the
                # interpreter is told not to warn about it.
                self._process.returncode = 0
            else:
                note_reaped(self.pid)
        os.close(self.pidfd)


def spawn_helper(argv: tuple[str, ...], *, stderr: Path, cpus: tuple[int, ...] = (), cwd: Path | None = None) -> Helper:
    """Start `argv` in a session of its own, with its errors appended to `stderr`.

    It gets this process' environment, finds this package from any directory, and is on no slice. `cpus` are the
    processors it may use, empty for all that this process may use. A terminal's Ctrl-C does not reach it; the end of
    its standard input is what tells it that the controller is gone.

    Raises:
        PreflightError: the program or the file for its errors cannot be opened.
    """
    try:
        fd = os.open(stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "ab") as errors:
            process = subprocess.Popen(
                argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                cwd=cwd,
                env={**without_slice(), "PYTHONPATH": package_path()},
            )
    except OSError as error:
        raise PreflightError(f"The helper {argv[0]} with its errors in {stderr} cannot be started: {error}.") from error
    note_started(process.pid)
    if cpus:
        # From here, because pinning in the child would need code between fork and exec. Early enough: a program has
        # no second thread yet, and later ones inherit the mask.
        os.sched_setaffinity(process.pid, cpus)
    return Helper(process)
