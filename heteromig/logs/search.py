"""Finding LoadGen's detail log where a harness chooses the directory itself, and telling it from older ones there."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from heteromig.logs.loadgen import DETAIL_LOG


class LogPlace(Struct, frozen=True):
    """Where LoadGen's logs of one worker appear: in directories that match `patterns`, as of `Path.glob`, below `root`.

    The pattern `.` is `root` itself.
    """

    root: Path
    patterns: tuple[str, ...] = (".",)

    def detail_logs(self) -> list[Path]:
        """All detail logs that are there, sorted."""
        found = {path for pattern in self.patterns for path in self.root.glob(f"{pattern}/{DETAIL_LOG}")}
        return sorted(found)


class LogSearch:
    """Finds the newest detail log of a worker; what was there before the worker is of another run."""

    def __init__(self, place: LogPlace) -> None:
        """A search that starts now, before the worker does."""
        self._place = place
        self._before = {path: _state(path) for path in place.detail_logs()}

    def find(self) -> Path | None:
        """The one that was changed last since the search began; None while there is none."""
        states = [(_state(path), path) for path in self._place.detail_logs()]
        fresh = [(state, path) for state, path in states if state is not None and state != self._before.get(path)]
        return max(fresh)[1] if fresh else None


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when LoadGen writes the file anew: (mtime in ns, inode, bytes); None where it has just vanished."""
    try:
        status = os.stat(path)  # noqa: PTH116 - as in `Tail`, for every log at every tick
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)
