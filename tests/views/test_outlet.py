from __future__ import annotations

import fcntl
import io
import os
import time
from pathlib import Path

from heteromig.views.outlet import Outlet
from tests.views.terminals import terminal


def test_a_stream_that_is_closed_or_missing_swallows_everything() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, io.StringIO()):
        outlet = Outlet(stream)
        assert outlet.gone
        outlet.write("nobody reads this")
        assert not outlet.behind
        assert outlet.size() == (80, 24)
        outlet.close()


def test_a_pipe_that_nobody_reads_blocks_nothing_and_loses_only_the_excess() -> None:
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "w", encoding="utf-8") as stream, os.fdopen(read_fd, "rb") as reader:
        outlet = Outlet(stream)
        began = time.monotonic()
        for number in range(20_000):  # 1 MB: more than the pipe and the backlog hold together
            outlet.write(f"line {number:06d} {'x' * 38}\n")
        assert outlet.behind
        outlet.close(wait_s=0.2)
        assert time.monotonic() - began < 30
        stream.close()
        lines = reader.read().decode().splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(len(lines)))
    assert 1000 < len(lines) < 20_000


def test_what_a_slow_reader_has_not_taken_comes_later() -> None:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(write_fd, "w", encoding="utf-8") as stream, os.fdopen(read_fd, "rb") as reader:
        outlet = Outlet(stream)
        outlet.write("x" * 10_000)
        received = b""
        while outlet.behind:
            received += os.read(reader.fileno(), 4096)
        outlet.close()
        stream.close()
        received += reader.read()
    assert received == b"x" * 10_000


def test_a_reader_that_has_gone_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "w", encoding="utf-8") as stream:
        outlet = Outlet(stream)
        os.close(read_fd)
        gone = [outlet.gone]
        outlet.write("anybody?")
        gone.append(outlet.gone)
        outlet.write("no")
        outlet.close()
    assert gone == [False, True]


def test_a_reader_that_was_never_there_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with os.fdopen(write_fd, "w", encoding="utf-8") as stream:
        outlet = Outlet(stream)
        outlet.write("anybody?")
        assert outlet.gone


def test_a_terminal_that_has_hung_up_is_no_error() -> None:
    with terminal() as tty:
        outlet = Outlet(tty.stream)
        tty.hang_up()
        outlet.write("anybody?")
        assert outlet.gone


def test_the_terminal_stays_blocking_for_everybody_else() -> None:
    with terminal(columns=123, lines=45) as tty:
        outlet = Outlet(tty.stream)
        assert outlet.size() == (123, 45)
        outlet.write("hello")
        assert os.get_blocking(tty.stream.fileno())
        assert "hello" in tty.read("hello")
        outlet.close()


def test_a_terminal_of_unknown_size_is_80_by_24() -> None:
    with terminal(columns=0, lines=0) as tty:
        assert Outlet(tty.stream).size() == (80, 24)


def test_a_file_keeps_what_others_write_to_it(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        stream.write("before\n")
        outlet = Outlet(stream)
        outlet.write("between\n")
        stream.write("after\n")
        stream.flush()
        outlet.close()
    assert (tmp_path / "log").read_text() == "before\nbetween\nafter\n"


def test_a_terminal_without_unicode_gets_other_glyphs(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        outlet = Outlet(stream)
        outlet.write("a › b ━━╌╌ é\n")  # noqa: RUF001 - the glyph itself
        outlet.close()
    assert (tmp_path / "log").read_text() == "a > b ==-- ?\n"
