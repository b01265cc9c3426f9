"""Talking to an MPS control daemon through NVIDIA's own program.

What it answers was read off `nvidia-cuda-mps-control` of driver 580.159.04: without a daemon it exits with 1, and with
0 otherwise, whatever the daemon says; `terminate_client` answers 0 on a line of its own where it did so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from heteromig.core.errors import PreflightError
from heteromig.workers.program import Answer, ask_program

PROGRAM = "nvidia-cuda-mps-control"
NAME = PROGRAM[:15]
"""What the kernel calls a daemon and its servers alike (`TASK_COMM_LEN`, proc(5))."""
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
LOGS = "CUDA_MPS_LOG_DIRECTORY"
_OWN = "CUDA_MPS_"

ANSWER_LIMIT_S = 3.0
"""A daemon that is up answers within milliseconds, 80 ms while its server starts."""


def find_program() -> str:
    """Where it is.

    Raises:
        PreflightError: it is not there.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise PreflightError(
            f"{PROGRAM}, which shares a GPU under MPS, is not on PATH: it comes with NVIDIA's driver (on Ubuntu and "
            "Debian in a package of its own, nvidia-compute-utils), and into a container with the driver capability "
            "compute (NVIDIA_DRIVER_CAPABILITIES=compute,utility). Or use --slices gpu or --slices mig."
        )
    return found


def daemon_environment() -> dict[str, str]:
    """This process' environment without what its user may have said to another MPS daemon."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}


class Control:
    """The daemon whose pipes are in one directory, be it there or not."""

    def __init__(self, program: str, environment: Mapping[str, str], pipes: str, logs: str) -> None:
        self._program = program
        self._environment = {**environment, PIPES: pipes, LOGS: logs}

    def ask(self, command: str, limit_s: float = ANSWER_LIMIT_S) -> str | None:
        """What the daemon says to a command; None where there is no daemon, or it does not answer in time."""
        answer = self._ask(command, limit_s)
        return None if answer is None or answer.exit_code != 0 else answer.stdout

    def servers(self) -> tuple[int, ...] | None:
        """Pids of its servers, None where it does not say."""
        return _pids(self.ask("get_server_list"))

    def clients(self, server: int) -> tuple[int, ...] | None:
        """Pids of the clients of a server, None where it does not say."""
        return _pids(self.ask(f"get_client_list {server}"))

    def terminate_client(self, server: int, client: int) -> bool:
        """Take a client's work off the GPU, so that its process can be killed without harm to others; whether it was.

        Its next call of CUDA fails. Others cannot begin anything new meanwhile (CUDA MPS documentation).
        """
        answer = self.ask(f"terminate_client {server} {client}")
        return answer is not None and answer.split()[-1:] == ["0"]

    def _ask(self, command: str, limit_s: float) -> Answer | None:
        try:
            return ask_program((self._program,), f"{command}\n", env=self._environment, timeout_s=limit_s)
        except PreflightError:
            return None


def _pids(answer: str | None) -> tuple[int, ...] | None:
    if answer is None or any(not line.strip().isdigit() for line in answer.splitlines()):
        return None
    return tuple(int(line) for line in answer.splitlines())
