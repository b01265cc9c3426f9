"""Incremental reading of a file that somebody else is writing, possibly a lot, possibly not yet."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

MAX_READ_BYTES = 4 << 20
"""At most this much is read at once; the rest waits for the next tick."""
MAX_LINE_BYTES = 64 << 10
"""Longer lines are cut; what follows up to their end is skipped. LoadGen's longest ones list samples."""
MAX_DISPLAY_CHARS = 200

_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
"""ECMA-48 escape sequences: control sequences, operating system commands and other strings, two-character ones."""


class Tail:
    """Whole lines of the file at `path` that appeared since the last `read`.

    A carriage return ends a line as well, so that progress bars are seen as they move. A file that was replaced or
    truncated is read from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._identity = (0, 0)
        self._offset = 0
        self._size = 0
        self._partial = b""
        self._skipping = False
        self._last_line = b""

    @property
    def last_line(self) -> bytes:
        """The last line that is not empty, complete or not."""
        return self._partial.strip() or self._last_line

    def read(self, *, at_end: bool = False) -> bytes:
        """New lines, each ended by one newline; empty when there are none or the file does not exist.

        At most `MAX_READ_BYTES` at once, see `is_behind`. With `at_end` nobody writes any more: call again until the
        result is empty, and a last line without an end is told as well. One stat(2) when nothing changed.
        """
        while data := self._new_bytes():
            if block := self._lines(data):
                return block
            if not at_end:
                return b""
        return self._lines(b"\n") if at_end and self._partial else b""

    @property
    def is_behind(self) -> bool:
        """The file held more than the last `read` took."""
        return self._offset < self._size

    def close(self) -> None:
        """Give the file descriptor back; a later `read` would start at the beginning."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._identity = (0, 0)

    def _new_bytes(self) -> bytes:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - Path.stat takes half as long again, for every log at every tick
        except OSError:
            return b""
        if not stat.S_ISREG(status.st_mode):
            return b""
        if (status.st_dev, status.st_ino) != self._identity or status.st_size < self._offset:
            self._start_again()
        self._size = status.st_size
        if self._fd < 0 or status.st_size == self._offset:
            return b""
        # Asking for no more than there is: Python would allocate all of it first, which takes longer than the reading.
        data = os.pread(self._fd, min(MAX_READ_BYTES, status.st_size - self._offset), self._offset)
        self._offset += len(data)
        return data

    def _start_again(self) -> None:
        self.close()
        self._offset = 0
        self._partial = b""
        self._skipping = False
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        status = os.fstat(fd)
        self._fd = fd
        self._identity = (status.st_dev, status.st_ino)

    def _lines(self, data: bytes) -> bytes:
        """The lines that `data` completes, with all too long ones cut."""
        if b"\r" in data:
            data = data.replace(b"\r", b"\n")
        complete, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._keep(rest)
            return b""
        if self._skipping:  # The line being skipped ends here; its beginning is in `_partial`.
            _, _, complete = complete.partition(b"\n")
            complete = self._partial + b"\n" + complete
        else:
            complete = self._partial + complete
        self._partial = b""
        self._skipping = False
        self._keep(rest)
        if len(complete) > MAX_LINE_BYTES:
            complete = b"\n".join(line[:MAX_LINE_BYTES] for line in complete.split(b"\n"))
        self._last_line = complete.rstrip().rpartition(b"\n")[2] or self._last_line
        return complete + b"\n"

    def _keep(self, rest: bytes) -> None:
        """Remember the beginning of a line that has no end yet."""
        if not self._skipping:
            self._partial += rest
            if len(self._partial) > MAX_LINE_BYTES:
                self._partial = self._partial[:MAX_LINE_BYTES]
                self._skipping = True


def displayable(line: bytes) -> str:
    """`line` without escape sequences, control and formatting characters, cut to what fits on a screen."""
    text = line[: 8 * MAX_DISPLAY_CHARS].decode(errors="replace").replace("\t", " ")
    text = "".join(char for char in _ESCAPE.sub("", text) if char.isprintable()).strip()
    return text if len(text) <= MAX_DISPLAY_CHARS else text[: MAX_DISPLAY_CHARS - 1] + "…"
