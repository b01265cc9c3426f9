"""Real pseudo-terminals, and what was written to them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Iterator
from typing import TextIO


class Terminal:
    """One end is a terminal for the views; the other is read here, or not."""

    def __init__(self, columns: int, lines: int) -> None:
        self._master_fd, slave_fd = pty.openpty()
        self.stream: TextIO = os.fdopen(slave_fd, "w", encoding="utf-8")
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, until: str, within_s: float = 10.0) -> str:
        """What arrives up to `until`, which has to come."""
        data = b""
        deadline = time.monotonic() + within_s
        while until.encode() not in data:
            assert time.monotonic() < deadline, f"{until!r} is not in {data.decode(errors='replace')!r}"
            if select.select([self._master_fd], [], [], 0.1)[0]:
                data += os.read(self._master_fd, 65536)
        return data.decode(errors="replace")

    def hang_up(self) -> None:
        os.close(self._master_fd)
        self._master_fd = -1

    def close(self) -> None:
        if self._master_fd >= 0:
            os.close(self._master_fd)
        self.stream.close()


@contextlib.contextmanager
def terminal(columns: int = 100, lines: int = 40) -> Iterator[Terminal]:
    made = Terminal(columns, lines)
    try:
        yield made
    finally:
        made.close()
