"""How the benchmark program is stopped: TERM or INT, at any moment.

Before the timed section a signal ends the program from within the handler. An exception would not do: raised while a
library runs a finaliser or a catch-all clause, it is swallowed and the stop with it. Within the timed section the
signal becomes a message to the main thread, which has LoadGen finish; `SimpleQueue.put` is the one queue operation
that may interrupt itself.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue
    from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """The handlers of one process, and where signals go.

    `cleanup` is called before a signal ends the program: what must not be left behind.
    """

    def __init__(self) -> None:
        self.cleanup: Callable[[], None] | None = None
        self._inbox: SimpleQueue[object] | None = None
        self._stop_message: object = None

    def install(self) -> None:
        """Take over TERM and INT; call on the main thread, before anything slow is imported."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._on_signal)

    def deliver_to(self, inbox: SimpleQueue[object], message: object) -> None:
        """From now on put `message` into `inbox` rather than exit: the timed section begins."""
        self._stop_message = message
        self._inbox = inbox

    def ignore(self) -> None:
        """The program ends by itself within moments; a signal would only spoil how."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if self._inbox is not None:
            self._inbox.put(self._stop_message)
            return
        self.ignore()
        if self.cleanup is not None:
            self.cleanup()
        # Not through sys.stdout: the handler may have interrupted a write to it, which cannot be entered twice.
        os.write(1, f"Stopped by {signal.Signals(signum).name} before anything was measured.\n".encode())
        die(128 + signum)


def die(exit_code: int) -> None:
    """End the process from any thread and without unwinding, which LoadGen's threads cannot do."""
    os._exit(exit_code)
