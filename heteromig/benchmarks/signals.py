"""How the benchmark program is stopped: TERM or INT, at any moment.

Before the timed section a signal ends the program at once. Within it the signal becomes a message to the main
thread, which has LoadGen finish. Handlers do nothing but raise or put: `SimpleQueue.put` is the one queue operation
that may interrupt itself.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queue import SimpleQueue
    from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """A stop signal arrived before the timed section; no error, and nothing may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells report it."""
        return 128 + self.signum

    @property
    def name(self) -> str:
        """`SIGTERM` or `SIGINT`."""
        return signal.Signals(self.signum).name


class StopSignals:
    """The handlers of one process, and where signals go."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[object] | None = None
        self._stop_message: object = None

    def install(self) -> None:
        """Take over TERM and INT; call on the main thread, before anything slow is imported."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._on_signal)

    def deliver_to(self, inbox: SimpleQueue[object], message: object) -> None:
        """From now on put `message` into `inbox` rather than raise: the timed section begins."""
        self._stop_message = message
        self._inbox = inbox

    def ignore(self) -> None:
        """The program ends by itself within moments; a signal would only spoil how."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if self._inbox is None:
            self.ignore()
            raise StopRequested(signum)
        self._inbox.put(self._stop_message)


def die(exit_code: int) -> None:
    """End the process from any thread, without unwinding: LoadGen's threads cannot be unwound."""
    os._exit(exit_code)
