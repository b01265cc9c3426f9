"""Runs as they were recorded: whole run directories, good and bad, that have to come out the same for ever.

`python -m tests.recordings.record` records them anew, all or those that are named, and replaces what is here. That is
needed when a schema changes; `make test` says so.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from heteromig.core.phases import Phase

RECORDED = Path(__file__).parent / "runs"


class Recorded(Struct, frozen=True):
    """What a recording shows: the exit code of `verify` and `replay`, the status, and the phase that it reaches."""

    exit_code: int
    status: str
    phase: Phase = Phase.FINISHED


RECORDINGS: dict[str, Recorded] = {
    "engines-built": Recorded(0, "built"),
    "valid": Recorded(0, "valid"),
    "valid-wait": Recorded(0, "valid"),
    "valid-layout": Recorded(0, "valid"),
    "valid-command": Recorded(0, "valid"),
    "valid-nvidia-tree": Recorded(0, "valid"),
    "lenient": Recorded(0, "lenient"),
    "main-invalid": Recorded(3, "invalid"),
    "background-ends-early": Recorded(4, "invalid"),
    "background-killed": Recorded(5, "failed"),
    "start-timeout": Recorded(6, "failed"),
    "xid": Recorded(7, "failed"),
    "interrupted": Recorded(130, "aborted"),
    "controller-killed": Recorded(9, "inconclusive", Phase.MAIN_RUNNING),
}
"""By the name of the directory below `RECORDED`."""
