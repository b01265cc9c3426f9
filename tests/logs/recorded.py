"""Logs that several versions of LoadGen wrote; `recordings/README.md` says how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from heteromig.logs.loadgen import DETAIL_LOG, SUMMARY_LOG

RECORDINGS = Path(__file__).with_name("recordings")
KILLED = RECORDINGS / "6.0.17" / "killed" / DETAIL_LOG
SUBMISSION = RECORDINGS / "6.0.17" / "submission" / DETAIL_LOG


class Recording(Struct, frozen=True):
    version: str
    run: str

    @property
    def detail(self) -> Path:
        return RECORDINGS / self.version / self.run / DETAIL_LOG

    @property
    def summary(self) -> Path:
        return RECORDINGS / self.version / self.run / SUMMARY_LOG

    @property
    def lines(self) -> list[bytes]:
        return self.detail.read_bytes().splitlines(keepends=True)

    def entries(self, key: str) -> list[dict[str, Any]]:
        return [entry for entry in self.all_entries() if entry["key"] == key]

    def all_entries(self) -> list[dict[str, Any]]:
        """Read in the plainest way there is, to judge the parsers by."""
        texts = self.detail.read_text().split(":::MLLOG ")[1:]
        return [json.loads(text, strict=False) for text in texts]

    def __str__(self) -> str:
        return f"{self.version}-{self.run}"


_RUNS = ("offline", "server", "single_stream", "accuracy", "submission", "short", "late", "twice", "killed")
ALL = (
    *(Recording("4.0", run) for run in ("offline", "accuracy", "twice", "tokens", "killed")),
    *(Recording(version, run) for version in ("4.1.30", "5.1.2", "6.0.17") for run in _RUNS),
)


def of(*runs: str) -> tuple[Recording, ...]:
    return tuple(recording for recording in ALL if recording.run in runs)


def but(*runs: str) -> tuple[Recording, ...]:
    return tuple(recording for recording in ALL if recording.run not in runs)
