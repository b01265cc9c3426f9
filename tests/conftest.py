"""What holds for all tests."""

from __future__ import annotations

import os
import signal

_OUTER_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")


def pytest_sessionstart() -> None:
    """Give child processes what they get from a user's shell.

    Whoever starts pytest in the background of a shell ignores some signals; `make test` passes on what is for its own
    sub-makes, and harnesses that run make say that it is not for them.
    """
    for name in _OUTER_MAKE:
        os.environ.pop(name, None)
    for signum, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, usual)
