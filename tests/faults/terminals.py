"""A terminal window that can be closed."""

from __future__ import annotations

import os
import pty
import select
import threading


class Terminal:
    """A pseudo-terminal that somebody reads until it is closed."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.path = os.ttyname(theirs)
        os.close(theirs)
        self._stop_reading, self._stop = os.pipe()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> None:
        """The window is closed: who has it for a terminal gets SIGHUP."""
        if self._reader.is_alive():
            os.write(self._stop, b"x")
            self._reader.join()
            for fd in (self._ours, self._stop_reading, self._stop):
                os.close(fd)

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        poll.register(self._stop_reading, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop_reading in ready:
                return
            try:
                os.read(self._ours, 1 << 16)
            except OSError:  # nobody has it open yet, or any more
                poll.unregister(self._ours)
