"""A series: runs of one main beside its neighbours, each between two baselines. Its order, and `series.json`.

What comes next is decided here, from what has been done, and nothing is run.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.decoding import decode
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.core.record import Tool
from heteromig.core.spec import Goal
from heteromig.core.verdict import ExitCode
from heteromig.logs.files import read_regular
from heteromig.runner.rundir import RUN_JSON, write_json

SERIES_JSON = "series.json"
SCHEMA_VERSION = 1


class Entry(Struct, frozen=True):
    """One run that has ended; `run_dir` is relative to the directory of the series, None where none came into being."""

    goal: Goal
    run_dir: str | None
    exit_code: int


class Series(Struct, frozen=True):
    """All of `series.json`: the order that was planned, and how far it came.

    `exit_code` is that of the whole, None while it goes on, and where its controller was killed; `sentence` says what
    stopped it, empty where nothing did.
    """

    schema_version: int
    tool: Tool
    series_id: str
    planned: tuple[Goal, ...]
    entries: tuple[Entry, ...] = ()
    exit_code: int | None = None
    sentence: str = ""

    def after(self, entry: Entry) -> Series:
        """The same, one run later."""
        return msgspec.structs.replace(self, entries=(*self.entries, entry))

    def ended(self, exit_code: int, sentence: str = "") -> Series:
        """The same, with nothing more to come."""
        return msgspec.structs.replace(self, exit_code=exit_code, sentence=sentence)

    @property
    def next_goal(self) -> Goal | None:
        """What to run next; None where all was run, or one did not come out well, which ends a series."""
        if any(entry.exit_code != ExitCode.VALID for entry in self.entries) or len(self.entries) >= len(self.planned):
            return None
        return self.planned[len(self.entries)]

    @property
    def is_complete(self) -> bool:
        """Whether all that was planned came out well."""
        return len(self.entries) == len(self.planned) and all(entry.exit_code == 0 for entry in self.entries)


def plan_order(runs: int) -> tuple[Goal, ...]:
    """A B A B ... A: each run between two baselines, so that what drifts evenly from run to run cancels."""
    return (*(goal for _ in range(runs) for goal in (Goal.BASELINE, Goal.RUN)), Goal.BASELINE)


def is_series(directory: Path) -> bool:
    """Whether that is the directory of a series."""
    return (directory / SERIES_JSON).is_file()


def such_as(directory: Path) -> str:
    """An example of the runs in a directory of many, as the middle of a sentence; empty where there is none."""
    runs = [path.parent for path in sorted(directory.glob(f"*/{RUN_JSON}"))]
    return f", such as {shlex.quote(str(runs[min(1, len(runs) - 1)]))}" if runs else ""


def refuse_series(directory: Path) -> None:
    """What is for one run cannot be done with a series.

    Raises:
        UsageError: it is the directory of a series.
    """
    if is_series(directory):
        raise UsageError(
            f"{directory} is the directory of a series: name one of its runs{such_as(directory)}, or see what "
            f"they come to together with heteromig compare {shlex.quote(str(directory))}"
        )


def read_series(series_dir: Path) -> Series:
    """What is written of a series.

    Raises:
        EvidenceError: it cannot be read, or is of another version.
    """
    path = series_dir / SERIES_JSON
    try:
        series = decode(read_regular(path, "The index of the series"), Series)
    except FileNotFoundError as error:
        raise EvidenceError(f"The index of the series {path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EvidenceError(
            f"{path} is not the index of a series ({error}): name the run directories instead."
        ) from None
    if series.schema_version != SCHEMA_VERSION:
        raise EvidenceError(
            f"{path} was written by another version of heteromig: its schema is {series.schema_version}, and this one "
            f"reads {SCHEMA_VERSION}."
        )
    return series


def write_series(series_dir: Path, series: Series) -> None:
    """Replace the index, in one step, and wait until it is on the disk."""
    write_json(series_dir / SERIES_JSON, series, sync=True)
