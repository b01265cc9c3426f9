"""The heartbeats in a worker's output, read once, after the run, for the certificate.

The output can be anything, and of any size: what is kept of it at a time is one block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from heteromig.core.units import NS_PER_S, MonotonicNs
from heteromig.logs.files import open_regular

_BLOCK_BYTES = 1 << 20
_NEEDLE = b"heartbeat: "
_LONGEST_BYTES = 256
"""More than any heartbeat has: a line that goes on beyond a block is looked at once more from so far before its end."""

_STAMPED = re.compile(
    rb"\bheartbeat: completed=(?P<completed>\d{1,18}) samples_per_second=[0-9.eE+-]{1,40} "
    rb"monotonic_s=(?P<seconds>\d{1,12})\.(?P<fraction>\d{1,9})(?: over_latency=\d{1,18})?[ \t]*\r?\n"
)


def read_progress(path: Path) -> Iterator[MonotonicNs]:
    """When a worker said that it had completed more, by its own heartbeats that say when they were given, in order.

    Heartbeats without a stamp are no part of it, nor those that tell of nothing new.

    Raises:
        FileNotFoundError: there is no such file.
        EvidenceError: it is no regular file, or cannot be read.
    """
    completed = 0
    for match in _heartbeats(path):
        said = int(match["completed"])
        if said != completed and said > 0:  # less than before: it began to count anew
            yield int(match["seconds"]) * NS_PER_S + int(match["fraction"].ljust(9, b"0"))
        completed = said


def _heartbeats(path: Path) -> Iterator[re.Match[bytes]]:
    with open_regular(path, "The output") as file:
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            block = rest + block
            at = block.find(_NEEDLE)  # many times as fast as looking for the whole expression
            while at >= 0:
                if (match := _STAMPED.match(block, at)) is not None:
                    yield match
                at = block.find(_NEEDLE, at + len(_NEEDLE))
            # What comes after the last whole line, where that is not far too long for a heartbeat.
            rest = block[max(block.rfind(b"\n") + 1, len(block) - _LONGEST_BYTES) :]
