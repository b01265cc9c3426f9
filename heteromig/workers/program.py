"""A program that is asked one thing and answers at once."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from heteromig.core.errors import PreflightError
from heteromig.workers.sweep import note_reaped, note_started

_REAP_TIMEOUT_S = 2.0


class Answer(NamedTuple):
    """How it ended, and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str


def ask_program(argv: tuple[str, ...], said: str, *, env: Mapping[str, str], timeout_s: float) -> Answer | None:
    """Run a program with `said` on its standard input and nothing but `env` for its environment.

    Returns:
        Its answer; None where it took longer than `timeout_s`, and was killed.

    Raises:
        PreflightError: it cannot be started.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise PreflightError(f"The program {argv[0]} cannot be started: {error.strerror}.") from error
    note_started(process.pid)
    try:
        stdout, stderr = process.communicate(said, timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            process.communicate(timeout=_REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # stuck in the kernel, or its pipes went to a child of its own
            process.returncode = 0  # so that the interpreter does not warn about it
        else:
            note_reaped(process.pid)
        return None
    note_reaped(process.pid)
    return Answer(process.returncode, stdout, stderr)
