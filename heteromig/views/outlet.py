"""A way out to a terminal or a pipe that never waits for whoever reads it, and never fails.

The loop that watches the benchmarks is one thread. A terminal stopped with Ctrl-S, a pager at the end of its page, or
a closed connection must not hold it up: what cannot be written now is kept, up to a limit, and tried again later.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from typing import TextIO

_CHUNK_BYTES = 4096
"""Linux calls a pipe writable when this much fits (PIPE_BUF), so that one such write does not block."""
_BACKLOG_BYTES = 256 * 1024

_ASCII = str.maketrans({"━": "=", "╌": "-", "›": ">", "·": "|", "…": "~", "├": "|", "└": "`", "─": "-", "│": "|"})  # noqa: RUF001 - the glyph itself
"""What stands for the views' glyphs on a terminal that is not in UTF-8."""


class Outlet:
    """Where a reporter writes; `None` or a closed stream is an outlet that swallows everything."""

    def __init__(self, stream: TextIO | None) -> None:
        self._encoding = "utf-8"
        self._pending = b""
        self._fd: int | None = None
        try:
            if stream is not None:
                self._encoding = stream.encoding or "utf-8"
                stream.flush()
                self._fd = _own_descriptor(stream.fileno())
        except (OSError, ValueError):  # closed, or no file at all
            self._fd = None

    @property
    def gone(self) -> bool:
        """Whether nobody will ever read what is written."""
        return self._fd is None

    @property
    def behind(self) -> bool:
        """Whether the reader has not taken all of what was written before; tries again first."""
        self._push()
        return bool(self._pending)

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal; (80, 24) where it does not say."""
        try:
            columns, lines = os.get_terminal_size(self._fd if self._fd is not None else -1)
        except OSError:
            return 80, 24
        return columns or 80, lines or 24

    def write(self, text: str) -> None:
        """Write `text`, or as much as fits now and the rest later; dropped whole when too much is waiting already."""
        if self._fd is None:
            return
        if not self._encoding.lower().startswith("utf"):
            text = text.translate(_ASCII)
        data = text.encode(self._encoding, "replace")
        if len(self._pending) + len(data) <= _BACKLOG_BYTES:
            self._pending += data
        self._push()

    def close(self, wait_s: float = 1.0) -> None:
        """Give the reader that long to take the rest, then let go."""
        deadline = time.monotonic() + wait_s
        while self.behind and time.monotonic() < deadline:
            select.select([], [] if self._fd is None else [self._fd], [], 0.05)
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._pending = b""

    def _push(self) -> None:
        try:
            while self._pending and self._fd is not None and _writable(self._fd):
                written = os.write(self._fd, self._pending[:_CHUNK_BYTES])
                self._pending = self._pending[written:]
        except BlockingIOError:
            return
        except OSError:  # the reader is gone: EPIPE, EIO
            if self._fd is not None:
                os.close(self._fd)
            self._fd = None
            self._pending = b""


def reader_is_gone(error: OSError, fd: int) -> bool:
    """Whether a write failed because nobody will ever read it: a pipe without a reader, a terminal that was closed."""
    if error.errno == errno.EIO:  # of a disk, this is an error like any other
        return stat.S_ISCHR(os.fstat(fd).st_mode)
    return error.errno == errno.EPIPE


def _own_descriptor(fd: int) -> int:
    """A descriptor for the same thing that does not block.

    O_NONBLOCK belongs to the open file, which is shared with the shell and everybody else on this terminal, so the
    terminal or pipe is opened once more. Regular files never block, and must keep the offset that they share.
    """
    if os.isatty(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode):
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # somebody else's terminal (after su), no /proc: chunks after a poll have to do
            pass
    return os.dup(fd)


def _writable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))
