from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from heteromig.views.relay import Relay

LINE = b"x" * 99 + b"\n"


class Growing:
    """A file that grows, as the journal does."""

    def __init__(self, path: Path, relay: Relay) -> None:
        self.path = path
        self.data = b""
        self._relay = relay

    def grow(self, lines: int) -> None:
        self.data += LINE * lines
        with self.path.open("ab") as file:
            file.write(LINE * lines)
        self._relay.grown(self.path, len(self.data))


class Pipe:
    """A pipe of one page."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, 4096)

    def read_all(self) -> bytes:
        """Everything up to the end, which comes when the writing end is closed."""
        with os.fdopen(self.read_fd, "rb") as reader:
            self.read_fd = -1
            return reader.read()

    def stop_reading(self) -> None:
        os.close(self.read_fd)
        self.read_fd = -1

    def stop_writing(self) -> None:
        os.close(self.write_fd)
        self.write_fd = -1

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_what_grows_arrives_at_once(tmp_path: Path, pipe: Pipe) -> None:
    relay = Relay(pipe.write_fd)
    journal = Growing(tmp_path / "journal", relay)
    for lines in (1, 2, 3):
        journal.grow(lines)
        arrived = b""
        while len(arrived) < lines * len(LINE):
            arrived += os.read(pipe.read_fd, 4096)
        assert arrived == LINE * lines
    assert relay.close() is None


def test_a_slow_reader_misses_nothing_and_holds_up_nobody(tmp_path: Path, pipe: Pipe) -> None:
    relay = Relay(pipe.write_fd)
    journal = Growing(tmp_path / "journal", relay)
    for _ in range(50):
        journal.grow(100)  # half a megabyte that nobody has read yet
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_all()))
    reader.start()
    assert relay.close() is None
    pipe.stop_writing()
    reader.join()
    assert read == [journal.data]


def test_a_reader_that_stops_reading_is_waited_for_no_longer_than_patience(tmp_path: Path) -> None:
    pipe = Pipe()  # which stays open: the thread that writes into it is left behind
    relay = Relay(pipe.write_fd)
    journal = Growing(tmp_path / "journal", relay)
    journal.grow(100)
    shortfall = relay.close(patience_s=0.1)
    assert shortfall is not None
    assert shortfall.path == journal.path
    assert shortfall.lines == 100
    assert shortfall.missing == 100 - 40  # a page holds 40 lines and a part of one
    assert shortfall.why == "it was not read for 0.1 s"
    pipe.stop_reading()


def test_a_reader_that_is_gone_is_said(tmp_path: Path, pipe: Pipe) -> None:
    relay = Relay(pipe.write_fd)
    journal = Growing(tmp_path / "journal", relay)
    pipe.stop_reading()
    journal.grow(3)
    journal.grow(4)
    shortfall = relay.close()
    assert shortfall is not None
    assert (shortfall.missing, shortfall.lines) == (7, 7)
    assert shortfall.why == "nobody reads it any more"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    relay = Relay(fd)
    Growing(tmp_path / "journal", relay).grow(5)
    shortfall = relay.close()
    os.close(fd)
    assert shortfall is not None
    assert shortfall.missing == 5
    assert shortfall.why == "of an error (No space left on device)"


def test_a_journal_that_is_cut_short_is_said(tmp_path: Path, pipe: Pipe) -> None:
    relay = Relay(pipe.write_fd)
    (tmp_path / "journal").write_bytes(LINE)
    relay.grown(tmp_path / "journal", 3 * len(LINE))
    shortfall = relay.close()
    assert shortfall is not None
    assert shortfall.why == "of an error (the journal was cut short)"


def test_a_descriptor_that_does_not_block_gets_everything_too(tmp_path: Path, pipe: Pipe) -> None:
    os.set_blocking(pipe.write_fd, False)
    relay = Relay(pipe.write_fd)
    journal = Growing(tmp_path / "journal", relay)
    journal.grow(1000)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_all()))
    reader.start()
    assert relay.close() is None
    pipe.stop_writing()
    reader.join()
    assert read == [journal.data]


def test_nothing_that_never_grew_is_missing(pipe: Pipe) -> None:
    assert Relay(pipe.write_fd).close() is None
