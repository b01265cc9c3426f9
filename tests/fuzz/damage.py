"""Bytes to try: real files with damage, and texts made of a format's own words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NUMBERS = (
    b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e999", b"-1", b"0", b"-0.0", b"1e-400", b"9" * 18, b"9" * 20,
    b"9" * 400, b"9" * 5000, b"18446744073709551616", b"9223372036854775808", b"-9223372036854775809",
    b"0x" + b"f" * 6000, b"1.5",
    b"1e308", b"null", b"true", b'"1"',
)  # fmt: skip
_ODD = (
    b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\r", b"\n", b"\r\n", b"\x1b[2J", b"\x1b]0;", b"\\",
    b'"', b"{", b"}", b"[", b"]", b":", b",", b" " * 300, b"\\ud800", b"\x85", b"\xe2\x80\xa8",
)  # fmt: skip
_NESTED = (b"[" * 3000, b'{"a":' * 3000, b"[" * 200 + b"]" * 200, b"- " * 3000, b"a." * 3000)

Change = Callable[[st.DrawFn, bytes], bytes]


def _place(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


def _range(draw: st.DrawFn, data: bytes) -> tuple[int, int]:
    start = _place(draw, data)
    return start, min(len(data), start + draw(st.integers(1, 200)))


def _flip(draw: st.DrawFn, data: bytes) -> bytes:
    if not data:
        return data
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]


def _cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: _place(draw, data)]


def _leave_out(draw: st.DrawFn, data: bytes) -> bytes:
    start, end = _range(draw, data)
    return data[:start] + data[end:]


def _repeat(draw: st.DrawFn, data: bytes) -> bytes:
    start, end = _range(draw, data)
    return data[:end] + data[start:end] * draw(st.integers(1, 50)) + data[end:]


def _insert(draw: st.DrawFn, data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + draw(st.sampled_from((*_ODD, *_NESTED))) + data[at:]


def _swap_lines(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data
    one, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _double_line(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    one = draw(st.integers(0, len(lines) - 1))
    return b"".join((*lines[:one], lines[one], *lines[one:]))


def _drop_line(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    one = draw(st.integers(0, len(lines) - 1))
    return b"".join((*lines[:one], *lines[one + 1 :]))


def _other_number(draw: st.DrawFn, data: bytes) -> bytes:
    start = _place(draw, data)
    found = _NUMBER.search(data, start) or _NUMBER.search(data)
    if found is None:
        return data
    return data[: found.start()] + draw(st.sampled_from(_NUMBERS)) + data[found.end() :]


CHANGES: tuple[Change, ...] = (
    _flip, _cut, _leave_out, _repeat, _insert, _swap_lines, _double_line, _drop_line, _other_number, _other_number,
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """One of the `originals` with one to four things done to it."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 4))):
        data = draw(st.sampled_from(CHANGES))(draw, data)
    return data


def worded(words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Texts of a format's own words and of others."""
    return st.lists(st.sampled_from((*words, *words, *_NUMBERS, *_ODD)) | st.binary(max_size=6), max_size=30).map(
        b"".join
    )
