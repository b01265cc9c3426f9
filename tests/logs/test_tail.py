from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromig.logs import tail as tail_module
from heteromig.logs.tail import MAX_DISPLAY_CHARS, MAX_LINE_BYTES, MAX_READ_BYTES, Tail, displayable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_file_that_appears_and_grows(path: Path) -> None:
    tail = Tail(path)
    assert tail.read() == b""

    append(path, b"one\ntwo")
    assert tail.read() == b"one\n"
    assert tail.read() == b""
    append(path, b" three\n")
    assert tail.read() == b"two three\n"
    tail.close()


def test_the_end_without_a_newline(path: Path) -> None:
    tail = Tail(path)
    append(path, b"one\nrest")
    assert tail.read() == b"one\n"

    assert tail.read(at_end=True) == b"rest\n"
    assert tail.read(at_end=True) == b""
    tail.close()


def test_carriage_returns_end_lines(path: Path) -> None:
    tail = Tail(path)
    append(path, b"10%\r20%\r30%")
    assert tail.read() == b"10%\n20%\n"
    assert tail.last_line == b"30%"

    append(path, b"\r\nnext\r\n")
    assert tail.read() == b"30%\n\nnext\n\n"
    assert tail.last_line == b"next"
    tail.close()


def test_the_last_line_is_one_with_text(path: Path) -> None:
    tail = Tail(path)
    assert tail.last_line == b""
    append(path, b"first\n\n  \n")
    tail.read()
    assert tail.last_line == b"first"
    tail.close()


def test_a_truncated_file_is_read_again(path: Path) -> None:
    tail = Tail(path)
    append(path, b"a long first line\npartial")
    tail.read()

    path.write_bytes(b"new\n")

    assert tail.read() == b"new\n"
    tail.close()


def test_a_replaced_file_is_read_again(path: Path, tmp_path: Path) -> None:
    tail = Tail(path)
    append(path, b"old\npartial")
    tail.read()

    append(tmp_path / "other", b"longer than the old one\n")
    (tmp_path / "other").rename(path)

    assert tail.read() == b"longer than the old one\n"
    tail.close()


def test_a_file_that_vanishes_says_nothing(path: Path) -> None:
    tail = Tail(path)
    append(path, b"old\n")
    tail.read()
    path.unlink()

    assert tail.read() == b""
    tail.close()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_says_nothing(path: Path, make: object) -> None:
    assert callable(make)
    make(path)
    tail = Tail(path)

    assert tail.read(at_end=True) == b""
    tail.close()


def test_one_read_is_bounded(path: Path) -> None:
    tail = Tail(path)
    append(path, b"x" * 99 + b"\n")
    append(path, (b"y" * 99 + b"\n") * (MAX_READ_BYTES // 100))
    append(path, b"last\n")

    reads = [(tail.read(), tail.is_behind) for _ in range(2)]

    assert [is_behind for _, is_behind in reads] == [True, False]
    assert len(reads[0][0]) <= MAX_READ_BYTES
    assert b"".join(block for block, _ in reads).endswith(b"y\nlast\n")
    tail.close()


def test_a_line_of_100_mb_costs_no_memory(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000)
    append(path, b"\nnext\n")
    tail = Tail(path)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    blocks = [tail.read() for _ in range(100_000_000 // MAX_READ_BYTES + 2)]

    assert b"".join(blocks) == bytes(MAX_LINE_BYTES) + b"\nnext\n"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40 << 10
    tail.close()


def test_long_lines_within_a_block_are_cut(path: Path) -> None:
    tail = Tail(path)
    append(path, b"short\n" + b"x" * (MAX_LINE_BYTES + 5) + b"\nend\n")

    assert tail.read() == b"short\n" + b"x" * MAX_LINE_BYTES + b"\nend\n"
    tail.close()


pieces = st.lists(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\xff", b"defgh"]), max_size=8).map(b"".join))


@given(pieces)
@settings(max_examples=60, deadline=None)
def test_however_the_file_grows_the_lines_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("grow") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail_module, "MAX_READ_BYTES", 7)
        patch.setattr(tail_module, "MAX_LINE_BYTES", 4)
        tail = Tail(path)
        seen = b""
        for chunk in chunks:
            append(path, chunk)
            seen += tail.read()
        while more := tail.read(at_end=True):
            seen += more
        tail.close()

    whole = b"".join(chunks).replace(b"\r", b"\n").split(b"\n")
    assert [line for line in seen.split(b"\n") if line] == [line[:4] for line in whole if line]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain", "plain"),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07text\x1b(B", "red text"),
        (b"bell\x07 null\x00 tab\tend", "bell null tab end"),
        ("right\u202eleft zero\u200bwidth".encode(), "rightleft zerowidth"),
        (b"\xff\xfe broken", "\ufffd\ufffd broken"),
        ("größe 7 µs".encode(), "größe 7 µs"),
        (b"\x1b[ cut", "ut"),
    ],
)
def test_displayable(line: bytes, text: str) -> None:
    assert displayable(line) == text


@given(st.binary(max_size=3000))
def test_displayable_is_short_and_printable_whatever_comes(line: bytes) -> None:
    text = displayable(line)
    assert text.isprintable()
    assert len(text) <= MAX_DISPLAY_CHARS
