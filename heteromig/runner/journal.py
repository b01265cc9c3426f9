"""`events.jsonl`: one JSON object a line, append-only, enough to replay the run through the core.

The first line is the header with the spec. Then come, in the order in which they happened, every event and what the
core asked for because of it, transitions and rejected guards among that. Events are numbered, so that one that is
missing or out of its place is noticed even if it changed nothing. Lines reach the kernel at once, so that they survive
the controller's death; they are synced when the run is sealed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, Union

import msgspec
from msgspec import Struct

from heteromig.core.decoding import may_have_long_numbers, require_short_numbers
from heteromig.core.effects import AnyEffect
from heteromig.core.errors import EvidenceError
from heteromig.core.events import AnyEvent, RunStarted
from heteromig.core.record import Tool
from heteromig.core.spec import RunSpec
from heteromig.core.units import MonotonicNs, UtcNs
from heteromig.logs.files import read_regular
from heteromig.workers.private import create_private

JOURNAL = "events.jsonl"
SCHEMA_VERSION = 3
_LINE_BYTES_MAX = 1 << 24


class Header(Struct, frozen=True, tag="header", tag_field="line"):
    """The first line; `at_ns` and `at_utc_ns` are the same moment on the two clocks."""

    schema_version: int
    tool: Tool
    run_id: str
    at_ns: MonotonicNs
    at_utc_ns: UtcNs
    spec: RunSpec

    def utc_ns(self, at_ns: MonotonicNs) -> UtcNs:
        """The wall-clock time of a monotonic one, as long as nobody set the wall clock in between."""
        return self.at_utc_ns + at_ns - self.at_ns


class Heard(Struct, frozen=True, tag="event", tag_field="line"):
    """An event that the core was given; `number` counts them from 1."""

    number: int
    event: AnyEvent


class Asked(Struct, frozen=True, tag="effect", tag_field="line"):
    """An effect that the core asked for, because of the event before it."""

    effect: AnyEffect


class _Version(Struct, frozen=True, tag="header", tag_field="line"):
    """What is read of a header before the rest of it, which another version may have changed."""

    schema_version: int
    tool: msgspec.Raw = msgspec.Raw()


class Told(Struct, frozen=True, rename="kebab"):
    """Of the spec in the header."""

    slices: str
    harness: str
    engines_dir: str


class _ToldHeader(Struct, frozen=True, tag="header", tag_field="line"):
    spec: Told


Line = Union[Header, Heard, Asked]  # noqa: UP007 - msgspec decodes this union at run time on 3.10 too

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Line)
_TOLD = msgspec.json.Decoder(_ToldHeader)
_VERSION = msgspec.json.Decoder(_Version)
_TOOL = msgspec.json.Decoder(Tool)


class Follower(Protocol):
    """Whoever wants to know that the journal grows, at once."""

    def grown(self, path: Path, size_bytes: int) -> None:
        """The first `size_bytes` of the file at `path` are written. The run waits while this is called."""


class Journal:
    """The file while it is written; `followers` are told after each write."""

    def __init__(self, run_dir: Path, followers: Sequence[Follower] = ()) -> None:
        self._path = run_dir / JOURNAL
        self._fd = create_private(self._path, os.O_APPEND)  # the header has the commands with their variables
        self._followers = followers
        self._size_bytes = 0

    def write(self, *lines: Line) -> None:
        """Append; all lines of a call reach the file together."""
        data = b"".join(_ENCODER.encode(line) + b"\n" for line in lines)
        self._size_bytes += len(data)
        while data:
            data = data[os.write(self._fd, data) :]
        for follower in self._followers:
            follower.grown(self._path, self._size_bytes)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self._fd)

    def require_there(self) -> None:
        """Check that the file still has its name: without it nothing of the run could be proven.

        Raises:
            FileNotFoundError: somebody deleted it.
        """
        if os.fstat(self._fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path))

    def close(self) -> None:
        """No more lines."""
        os.close(self._fd)


class JournalText(Struct, frozen=True):
    """A journal as read back: the header, the lines after it, and whether the last line was cut off."""

    header: Header
    lines: tuple[Heard | Asked, ...]
    cut: bool

    @property
    def controller(self) -> RunStarted | None:
        """Who ran the run; None where the journal ends before it says so."""
        first = self.lines[0] if self.lines else None
        return first.event if isinstance(first, Heard) and isinstance(first.event, RunStarted) else None

    @property
    def events(self) -> tuple[AnyEvent, ...]:
        """What the core was given."""
        return tuple(line.event for line in self.lines if isinstance(line, Heard))


def read_journal(run_dir: Path) -> JournalText:
    """The journal of a run, however far it got; a last line that was cut is left out.

    Raises:
        EvidenceError: the file cannot be read, is of another version, has no header, holds a line that is no journal
            line, or lacks an event before its last.
    """
    path = run_dir / JOURNAL
    try:
        raw = read_regular(path, "The journal")
        lines = list(_decode(path, raw))
    except FileNotFoundError as error:
        raise EvidenceError(f"The journal {path} cannot be read: {error.strerror}.") from None
    except MemoryError:
        raise EvidenceError(
            f"The journal {path} does not fit into memory: it was altered, or needs a machine with more."
        ) from None
    if not lines or not isinstance(lines[0], Header):
        raise EvidenceError(f"The journal {path} has no header, so nothing of this run can be checked.")
    rest: list[Heard | Asked] = []
    events = 0
    for number, line in enumerate(lines[1:], start=2):
        if isinstance(line, Header):
            raise EvidenceError(f"The journal {path} has a second header in line {number}: it was altered.")
        if isinstance(line, Heard):
            events += 1
            if line.number != events:
                raise EvidenceError(
                    f"Line {number} of the journal {path} has event {line.number} where event {events} belongs: it was "
                    "altered."
                )
        rest.append(line)
    return JournalText(header=lines[0], lines=tuple(rest), cut=not raw.endswith(b"\n"))


def read_controller_pid(run_dir: Path) -> int | None:
    """The process that runs the run, or ran it; None where the journal does not say."""
    try:
        if not stat.S_ISREG(os.lstat(run_dir / JOURNAL).st_mode):  # opening a FIFO would wait for its writer
            return None
        with (run_dir / JOURNAL).open("rb") as file:
            lines = [file.readline(_LINE_BYTES_MAX) for _ in range(2)]
        require_short_numbers(lines[1])
        heard = _DECODER.decode(lines[1])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    started = heard.event if isinstance(heard, Heard) else None
    return started.controller_pid if isinstance(started, RunStarted) else None


def read_told(run_dir: Path) -> Told | None:
    """What a run was told, as far as it matters to who cleans up after it; None where its journal does not say."""
    try:
        if not stat.S_ISREG(os.lstat(run_dir / JOURNAL).st_mode):
            return None
        with (run_dir / JOURNAL).open("rb") as file:
            return _TOLD.decode(file.readline(_LINE_BYTES_MAX)).spec
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decode(path: Path, raw: bytes) -> Iterator[Line]:
    complete = raw[: raw.rfind(b"\n") + 1]
    number = 0
    try:
        doubtful = may_have_long_numbers(complete)
        for number, line in enumerate(complete.splitlines(), start=1):
            if doubtful:
                require_short_numbers(line)
            if number == 1:
                _require_our_version(path, line)
            yield _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvidenceError(
            f"Line {number} of the journal {path} is not readable ({error}): it was altered, or written by another "
            "version of heteromig."
        ) from None


def _require_our_version(path: Path, line: bytes) -> None:
    try:
        header = _VERSION.decode(line)
    except msgspec.DecodeError:
        return  # not a header at all, which whoever reads the line says better
    if header.schema_version != SCHEMA_VERSION:
        raise EvidenceError(
            f"The journal {path} was written by another version of heteromig: its schema is {header.schema_version}, "
            f"and this one reads {SCHEMA_VERSION}. Verify it with {_named(header.tool)}, which wrote it."
        )


def _named(tool: msgspec.Raw) -> str:
    try:
        wrote = _TOOL.decode(tool)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "the version"
    return f"{wrote.name} {wrote.version}"
