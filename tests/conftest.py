"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_sessionstart() -> None:
    """Give child processes their signals back: whoever starts pytest in the background of a shell ignores some."""
    for signum, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, usual)
