"""`heteromig doctor` as a process, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import msgspec

from heteromig.doctor.findings import Finding, Report, Status

PROGRAMS = """
[command.measured]
argv = ["true"]
start = "start"
result = "result"

[command.beside]
argv = ["true"]
start = "start"
"""
"""Programs that may be on any slice: `doctor` starts none of them."""

Ask = Callable[..., "Answered"]


class Answered:
    """What came of it."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.exit_code = process.returncode
        self.stderr = process.stderr
        assert process.stdout, process.stderr
        answer: dict[str, Any] = json.loads(process.stdout)
        jsonschema.validate(answer, msgspec.json.schema(Report))
        self.report = msgspec.convert(answer, Report)
        assert self.report.exit_code == self.exit_code

    def all(self, check: str) -> list[Finding]:
        """The findings of that check."""
        return [one for one in self.report.findings if one.check == check]

    def one(self, check: str) -> Finding:
        """The only finding of that check."""
        (found,) = self.all(check)
        return found

    def says(self, check: str) -> tuple[Status, str]:
        """The only finding of that check, without its fix."""
        return self.one(check).status, self.one(check).what

    @property
    def problems(self) -> list[str]:
        """What a run would be refused for."""
        return [one.what for one in self.report.findings if one.status is Status.PROBLEM]

    @property
    def wrong(self) -> list[str]:
        """The checks with a warning or a problem."""
        return [one.check for one in self.report.findings if one.status in {Status.WARNING, Status.PROBLEM}]


def heteromig(home: Path, *argv: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The command in that directory."""
    return subprocess.run(
        (sys.executable, "-m", "heteromig", *argv),
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environ},
        check=False,
    )


def ask(home: Path, *argv: str, environ: Mapping[str, str] | None = None) -> Answered:
    """`heteromig doctor --json` in that directory."""
    return Answered(heteromig(home, "doctor", "--json", *argv, environ=environ or {}))
