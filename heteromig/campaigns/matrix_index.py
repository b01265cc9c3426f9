"""`campaign.json` of a matrix: what was asked, every run so far, and how far it came."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from heteromig.campaign.fingerprint import fingerprint, require_same
from heteromig.campaign.matrix import CellRun, Ending, RunCell
from heteromig.campaigns.directory import (
    MATRIX,
    SCHEMA_VERSION,
    read_index,
    require_campaign,
    require_place,
    require_same_run,
    require_unaltered,
    write_campaign,
)
from heteromig.campaigns.matrix_asking import Asking, MatrixAsked
from heteromig.core.record import Tool
from heteromig.core.redaction import Redaction
from heteromig.runner.recording import TOOL


class MatrixEntry(Struct, frozen=True):
    """One run that has ended, in `run_dir` relative to the directory of the matrix; `took_s` is how long in all.

    `run` is what the planner is told of it; its time is without that of building engines. It is None where the run is
    the reason to stop, and says nothing of its cell: it was interrupted, or others use the host. It is done again when
    the matrix goes on.
    """

    step: RunCell
    run_dir: str
    exit_code: int
    took_s: float
    run: CellRun | None


class MatrixIndex(Struct, frozen=True):
    """All of it. `fingerprint` is that of `asked`; times are UTC.

    The first `forgiven` runs were there when it was last continued: those of them that came to nothing count no more.
    `exit_code` is None while it goes on, and where its controller was killed; `sentence` says what stopped it.
    """

    schema_version: int
    tool: Tool
    kind: str
    campaign_id: str
    fingerprint: str
    asked: MatrixAsked
    began_at: str
    ended_at: str | None = None
    entries: tuple[MatrixEntry, ...] = ()
    forgiven: int = 0
    exit_code: int | None = None
    sentence: str = ""

    @property
    def runs(self) -> tuple[CellRun, ...]:
        """What the planner is told."""
        return tuple(
            entry.run
            for number, entry in enumerate(self.entries)
            if entry.run is not None and not (number < self.forgiven and entry.run.ending is not Ending.MEASURED)
        )

    def after(self, entry: MatrixEntry) -> MatrixIndex:
        """The same, one run later."""
        return replace(self, entries=(*self.entries, entry))

    def ended(self, at: str, exit_code: int, sentence: str) -> MatrixIndex:
        """The same, with nothing more to come for now."""
        return replace(self, ended_at=at, exit_code=exit_code, sentence=sentence)

    def continued(self) -> MatrixIndex:
        """The same, going on."""
        return replace(self, forgiven=len(self.entries), ended_at=None, exit_code=None, sentence="")


def written_down(asked: Asking) -> MatrixAsked:
    """What is asked, without its secrets."""
    first = asked.first
    return MatrixAsked(asked.settings, asked.target_qps, Redaction(first, os.environ).spec(first))


def begin_matrix(campaign_dir: Path, asked: MatrixAsked, at: str) -> MatrixIndex:
    """An empty matrix, which is on the disk."""
    index = MatrixIndex(
        schema_version=SCHEMA_VERSION,
        tool=TOOL,
        kind=MATRIX,
        campaign_id=campaign_dir.name,
        fingerprint=fingerprint(asked),
        asked=asked,
        began_at=at,
    )
    write_campaign(campaign_dir, index)
    return index


def read_matrix(campaign_dir: Path) -> MatrixIndex:
    """What is written of a matrix.

    Raises:
        UsageError: it is the directory of something else.
        EvidenceError: it cannot be read, was altered, or is of another version.
    """
    index = read_index(require_campaign(campaign_dir, MATRIX), MatrixIndex)
    require_unaltered(campaign_dir, index.fingerprint, index.asked)
    return index


def resume_matrix(campaign_dir: Path, asked: MatrixAsked) -> MatrixIndex:
    """The matrix in that directory, to go on.

    Raises:
        UsageError: there is none, it was asked something else, or it is not in the directory of runs.
        EvidenceError: it cannot be read, was altered, or is of another version.
    """
    index = read_matrix(campaign_dir)
    require_same(index.asked.matrix, asked.matrix)
    require_same_run(index.asked.run, asked.run)
    require_same(replace(index.asked, run=asked.run), asked)
    require_place(campaign_dir, asked.run)
    return index.continued()
