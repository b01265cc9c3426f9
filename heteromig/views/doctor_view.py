"""What `doctor` found, for people: a line a finding, what to do about it below, and in the end whether a run can begin.

Of more than two GPUs, what is in order has one line each.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from rich.text import Text

from heteromig.views.text import printable
from heteromig.views.verdict_text import SIMULATED_NOTE

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "dim"}
_STATUS_WIDTH = max(map(len, _STYLES))
_FEW_GPUS = 2
_LEAST_WIDTH = 30


class Found(Protocol):
    """One finding."""

    @property
    def check(self) -> str:
        """What was looked at."""
        ...

    @property
    def status(self) -> Enum:
        """How it came out: ok, warning, problem or unknown."""
        ...

    @property
    def what(self) -> str:
        """In words."""
        ...

    @property
    def fix(self) -> str | None:
        """What to do about it."""
        ...

    @property
    def gpu_uuid(self) -> str | None:
        """The GPU that it is about."""
        ...


class Timed(Protocol):
    """How long a call takes."""

    @property
    def call(self) -> str:
        """Its name."""
        ...

    @property
    def count(self) -> int:
        """How often it was measured."""
        ...

    @property
    def p50_ms(self) -> float:
        """The median."""
        ...

    @property
    def p99_ms(self) -> float:
        """The 99th percentile."""
        ...


class Examined(Protocol):
    """A GPU."""

    @property
    def index(self) -> int:
        """NVML's."""
        ...

    @property
    def uuid(self) -> str:
        """Its UUID."""
        ...

    @property
    def name(self) -> str:
        """Its product."""
        ...


class Examination(Protocol):
    """All of it."""

    @property
    def simulated(self) -> bool:
        """Whether no GPU is involved."""
        ...

    @property
    def slices(self) -> str:
        """The value of `--slices`."""
        ...

    @property
    def exit_code(self) -> int:
        """0 where a run can begin."""
        ...

    @property
    def gpus(self) -> Sequence[Examined]:
        """Those that findings are about."""
        ...

    @property
    def findings(self) -> Sequence[Found]:
        """In order."""
        ...

    @property
    def latencies(self) -> Sequence[Timed]:
        """Of NVML's calls."""
        ...


def examination(report: Examination, width: int) -> Text:
    """The whole report."""
    text = Text()
    rows = _Rows(text, max((len(one.check) for one in report.findings), default=0), width)
    known = {gpu.uuid for gpu in report.gpus}
    for finding in report.findings:
        if finding.gpu_uuid not in known:
            rows.append_finding(finding)
    for gpu in report.gpus:
        text.append(f"\nGPU {gpu.index}  {printable(gpu.name)}  {printable(gpu.uuid)}\n", "bold")
        findings = [one for one in report.findings if one.gpu_uuid == gpu.uuid]
        if len(report.gpus) <= _FEW_GPUS:
            for finding in findings:
                rows.append_finding(finding)
        else:
            rows.append_summed_up(findings)
    if not report.simulated:
        _append_latencies(text, report.latencies)
    _append_conclusion(text, report, width)
    text.rstrip()
    return text


class _Rows:
    """Findings below each other; `margin` is the width of the names of checks."""

    def __init__(self, text: Text, margin: int, width: int) -> None:
        self._text = text
        self._margin = margin
        self._indent = _STATUS_WIDTH + margin + 4
        self._room = max(_LEAST_WIDTH, width - self._indent)

    def append_finding(self, finding: Found) -> None:
        """What, and below it what to do."""
        self._append(str(finding.status.value), finding.check, printable(finding.what))
        fix = printable(finding.fix or "")
        if fix and fix[1:] not in printable(finding.what):  # refusals say themselves what to do
            self._append("", "", f"-> {fix}")

    def append_summed_up(self, findings: Sequence[Found]) -> None:
        """What is in order in one line; everything else as ever."""
        for finding in findings:
            if finding.status.value != "ok":
                self.append_finding(finding)
        fine = ", ".join(one.check for one in findings if one.status.value == "ok")
        if fine:
            self._append("ok", "", fine)

    def _append(self, status: str, check: str, words: str) -> None:
        # Commands and UUIDs are copied from here: nothing within a word is broken.
        lines = textwrap.wrap(words, self._room, break_long_words=False, break_on_hyphens=False) or [""]
        self._text.append(f"{status:<{_STATUS_WIDTH}}", _STYLES.get(status, ""))
        self._text.append(f"  {check:<{self._margin}}  {lines[0]}".rstrip() + "\n")
        for line in lines[1:]:
            self._text.append(" " * self._indent + line + "\n")


def _append_latencies(text: Text, latencies: Sequence[Timed]) -> None:
    if not latencies:
        return
    name_width = max(len(one.call) for one in latencies)
    text.append("\nHow long the calls of NVML take that a run makes while it watches\n", "bold")
    text.append(f"{'CALL':<{name_width}}  {'N':>5}  {'P50 MS':>8}  {'P99 MS':>8}\n", "dim")
    for one in latencies:
        text.append(f"{printable(one.call):<{name_width}}  {one.count:>5}  {one.p50_ms:>8.3f}  {one.p99_ms:>8.3f}\n")


def _append_conclusion(text: Text, report: Examination, width: int) -> None:
    count = " and ".join(filter(None, (_counted(report.findings, name) for name in ("problem", "warning"))))
    if report.exit_code:
        head, style, rest = f"A run would be refused (exit {report.exit_code})", "bold red", f": {count}."
    else:
        head, style, rest = "A run can begin", "bold green", f": {count}." if count else ": nothing is wrong."
    lines = textwrap.wrap(head + rest, width)
    text.append("\n" + lines[0][: len(head)], style)
    text.append(lines[0][len(head) :] + "\n")
    for line in lines[1:]:
        text.append(line + "\n")
    if report.simulated:
        text.append(SIMULATED_NOTE + "\n", "yellow")


def _counted(findings: Sequence[Found], status: str) -> str:
    """How many there are, and of which checks: the first of them have scrolled away by now."""
    checks = [one.check for one in findings if one.status.value == status]
    if not checks:
        return ""
    return f"{len(checks)} {status}{'' if len(checks) == 1 else 's'} ({', '.join(dict.fromkeys(checks))})"
