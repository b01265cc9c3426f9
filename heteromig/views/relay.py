"""The journal passed on while it grows, to somebody who may read it slowly, or stop reading.

Whatever the reader does, nobody else waits: a thread of its own reads the journal back from the disk and does the
writing. The file is the buffer, so that a reader who falls behind misses nothing and costs no memory, and what arrives
is always a beginning of the journal, byte for byte. Only what a reader has not taken when the run is over, and does not
go on taking, is left undelivered; `close` says how much.
"""

from __future__ import annotations

import errno
import io
import os
import select
import threading
from pathlib import Path

from msgspec import Struct

_CHUNK_BYTES = 4096
"""A page of a pipe: a slow reader is seen to read whenever it has emptied one."""
_COUNTING_BYTES = 1 << 20


class Shortfall(Struct, frozen=True):
    """What did not arrive: so many of all `lines` of the journal at `path`, and why, as the end of a sentence."""

    path: Path
    missing: int
    lines: int
    why: str


class Relay:
    """Passes a growing file on to the descriptor `fd`, which it neither changes nor closes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._path: Path | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        # All of the following only with the condition held.
        self._size_bytes = 0
        self._sent_bytes = 0
        self._closing = False
        self._over = False
        self._failure: OSError | None = None

    def grown(self, path: Path, size_bytes: int) -> None:
        """The first `size_bytes` of the file at `path` are there; returns at once."""
        with self._changed:
            self._size_bytes = size_bytes
            self._changed.notify_all()
        if self._thread is None:
            # Not before the first bytes: a thread inherits the processors that the loop has settled on by then.
            self._path = path
            # A daemon, because a write that nobody takes never returns, and must not keep the process.
            self._thread = threading.Thread(target=self._pass_on, args=(path,), name="relay", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # a limit of the system
                self._failure, self._over = OSError(errno.EAGAIN, str(error)), True

    def close(self, patience_s: float = 5.0) -> Shortfall | None:
        """The file does not grow any more: wait as long as the reader takes something every `patience_s`.

        Ctrl-C ends the waiting. Returns what was not delivered, None where that is nothing.
        """
        why = f"it was not read for {patience_s:g} s"
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            try:
                while self._thread is not None and not self._over and self._moves_on(patience_s):
                    pass
            except KeyboardInterrupt:
                why = "you did not want to wait for its reader"
        if self._path is None or self._sent_bytes >= self._size_bytes:
            return None
        return Shortfall(
            path=self._path,
            missing=_lines(self._path, self._sent_bytes, self._size_bytes),
            lines=_lines(self._path, 0, self._size_bytes),
            why=why if self._failure is None else _reason(self._failure),
        )

    def _moves_on(self, patience_s: float) -> bool:
        """Whether within that time something was taken, or all is over; the condition is held."""
        before_bytes = self._sent_bytes
        return self._changed.wait_for(lambda: self._over or self._sent_bytes != before_bytes, patience_s)

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _pass_on(self, path: Path) -> None:
        try:
            with path.open("rb", buffering=0) as file:
                while self._wait_for_more():
                    data = _read(file)
                    while data:
                        written = _write(self._fd, data)
                        data = data[written:]
                        with self._changed:
                            self._sent_bytes += written
                            self._changed.notify_all()
        except OSError as error:
            with self._changed:
                self._failure = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _wait_for_more(self) -> bool:
        """Whether there is something to pass on; False when there will be nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._sent_bytes < self._size_bytes or self._closing)
            return self._sent_bytes < self._size_bytes


def _read(file: io.FileIO) -> bytes:
    data = file.read(_CHUNK_BYTES)
    if not data:
        raise OSError(errno.ENODATA, "the journal was cut short")
    return data


def _write(fd: int, data: bytes) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:  # somebody who shares it has made it so
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll()
        return 0


def _lines(path: Path, begin_bytes: int, end_bytes: int) -> int:
    """Lines that end between two offsets."""
    count = 0
    with path.open("rb") as file:
        file.seek(begin_bytes)
        while begin_bytes < end_bytes and (block := file.read(min(_COUNTING_BYTES, end_bytes - begin_bytes))):
            begin_bytes += len(block)
            count += block.count(b"\n")
    return count


def _reason(failure: OSError) -> str:
    if isinstance(failure, BrokenPipeError):
        return "nobody reads it any more"
    return f"of an error ({failure.strerror})"
