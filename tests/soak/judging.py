"""Figures of a soak: verdicts by planned fault, false valid, false alarms, leaks."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.errors import EvidenceError
from heteromig.runner.verification import verify_run
from tests.e2e.product import REPOSITORY
from tests.soak.injecting import Seen
from tests.soak.planning import FaultPlan, should_be_valid, why_not_valid
from tests.soak.resident import Held

VALID = 0
RSS_GROWTH_BYTES_MAX = 4 << 20
"""From the fourth run in one process to the last: what an interpreter's own caches take in a while."""


class Judged(Struct, frozen=True):
    """One run: what was planned, what it said, what `verify` says, and what is wrong with that."""

    plan: FaultPlan
    seen: Seen
    verified: int | None
    why_not: str | None
    false_valid: bool
    false_alarm: bool
    contradiction: str | None

    @property
    def is_wrong(self) -> bool:
        """Whether the soak fails because of it."""
        return self.false_valid or bool(self.seen.leaks) or self.contradiction is not None

    @property
    def sentence(self) -> str:
        """The run in a line."""
        wrong = "FALSE VALID " if self.false_valid else "false alarm " if self.false_alarm else ""
        return (
            f"{wrong}{self.plan}: exit {self.seen.exit_code}, verify {self.verified}, {self.seen.took_s:.1f} s; "
            f"{self.why_not or 'may be valid'}; {self.contradiction or ''} {'; '.join(self.seen.leaks)}"
            + (f"\n{self.seen.said}" if wrong or self.is_wrong else "")
        )


def judge(plan: FaultPlan, seen: Seen) -> Judged:
    """By the plan and the truth."""
    why_not = why_not_valid(plan, seen.truth)
    verified = _verify(seen.run_dir)
    said_valid = VALID in {seen.exit_code, verified}
    return Judged(
        plan=plan,
        seen=seen,
        verified=verified,
        why_not=why_not,
        false_valid=said_valid and why_not is not None,
        false_alarm=should_be_valid(plan) and seen.exit_code != VALID,
        contradiction=_contradiction(seen, verified),
    )


def _verify(run_dir: Path | None) -> int | None:
    if run_dir is None:
        return None
    try:
        return verify_run(run_dir).verdict.exit_code
    except EvidenceError as error:
        return error.exit_code


def _contradiction(seen: Seen, verified: int | None) -> str | None:
    """What must hold whatever was planned."""
    if seen.exit_code is None:
        return "it did not end"
    if seen.exit_code < 0 and seen.run_dir is None:
        return None  # it was hit while its interpreter was being started: nothing had begun
    if seen.exit_code == 1 or "Traceback" in seen.said:
        return "an internal error"
    if seen.exit_code >= 0 and verified is not None and verified != seen.exit_code:
        return f"verify says {verified}"
    if seen.exit_code < 0 and verified == VALID:
        return "verify says valid of a run that was killed"
    return None


def leaks_of() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def judge_residents(runs: int, home: Path) -> list[Held]:
    """What one process holds after each of its runs.

    Raises:
        CalledProcessError: it did not get through.
    """
    done = subprocess.run(
        (sys.executable, "-m", "tests.soak.resident", str(runs)),
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60 * runs,
    )
    return [msgspec.json.decode(line, type=Held) for line in done.stdout.splitlines()]


def render(
    judged: Sequence[Judged], residents: Sequence[Held], *, seed: int, own: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[str, bool]:
    """The figures as Markdown, and whether the soak failed."""
    by_plan: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_plan[one.plan.name].append(one)
    rows = [
        f"| {name} | {len(ones)} | {_codes(ones)} | {sum(one.why_not is not None for one in ones)} | "
        f"{sum(one.false_valid for one in ones)} | {sum(one.false_alarm for one in ones)} | "
        f"{statistics.median(one.seen.took_s for one in ones):.1f} |"
        for name, ones in sorted(by_plan.items())
    ]
    took_s = [one.seen.took_s for one in judged]
    peaks = [one.seen.peak_rss_bytes / (1 << 20) for one in judged if one.seen.peak_rss_bytes]
    half = len(peaks) // 2
    resident_wrong = _resident_faults(residents)
    wrong = [one for one in judged if one.is_wrong]
    false_valid = sum(one.false_valid for one in judged)
    alarms = [one for one in judged if one.false_alarm]
    leaks = [leak for one in judged for leak in one.seen.leaks]
    failed = bool(wrong) or bool(resident_wrong) or own[0] != own[1]
    first, last = residents[min(3, len(residents) - 1)], residents[-1]
    cannot = sum(one.why_not is not None for one in judged)
    unharmed = sum(should_be_valid(one.plan) for one in judged)
    contradictions = [one for one in judged if one.contradiction is not None]
    text = f"""# Soak

Written by `make soak` from a real run: {len(judged)} short runs in a row on simulated slices, seed {seed}, \
{datetime.now(timezone.utc):%Y-%m-%d}, {os.cpu_count()} processors, load average at the end {os.getloadavg()[0]:.1f}.

What was done to each run was settled before it began. Whether it may be valid is judged by that and by the clocks of
the workers and the injector, not by anything that heteromig wrote.

- **False valid: {false_valid}** of {cannot} runs that could not be valid, by exit code or by `heteromig verify`.
- False alarms: {len(alarms)} of {unharmed} runs in which nothing was planned that is a reason not to be valid.
{_items(f"{one.plan.name}: exit {one.seen.exit_code}" for one in alarms)}\
- Left behind 5 s after the end: {len(leaks)} (processes by their mark, locks, files in TMPDIR).
{_items(leaks)}\
- Contradictions (`verify` says otherwise, an internal error, no end): {len(contradictions)}.
{_items(f"{one.plan.name}: exit {one.seen.exit_code}, {one.contradiction}" for one in contradictions)}\
- The soak itself: {own[0][0]} descriptors and {own[0][1]} thread before, {own[1][0]} and {own[1][1]} after.
- A run took {statistics.median(took_s):.1f} s ({min(took_s):.1f} to {max(took_s):.1f}).
- Peak memory of the controllers: median {statistics.median(peaks[:half] or peaks):.1f} MiB in the first half of the
  runs, {statistics.median(peaks[half:]):.1f} MiB in the second, at most {max(peaks):.1f} MiB.
- {len(residents)} runs in one process: {first.descriptors} descriptors after the fourth and {last.descriptors} after
  the last, {last.threads} thread, {last.children} children, {first.rss_bytes / (1 << 20):.1f} MiB and \
{last.rss_bytes / (1 << 20):.1f} MiB resident.
{_items(resident_wrong)}
| planned | runs | exit codes (times) | could not be valid | false valid | false alarms | median s |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

A run that could have been valid need not be: a background that dies half a second after main's end, or a signal that
comes then, decides nothing. -9 is a controller that got SIGKILL.
"""
    return text, failed


def _items(sentences: Iterable[str]) -> str:
    return "".join(f"  - {sentence}\n" for sentence in sentences)


def _codes(ones: Sequence[Judged]) -> str:
    counts = Counter(one.seen.exit_code for one in ones)
    return ", ".join(f"{code} ({count})" for code, count in sorted(counts.items(), key=lambda pair: str(pair[0])))


def _resident_faults(residents: Sequence[Held]) -> list[str]:
    settled = residents[min(3, len(residents) - 1)]
    faults = []
    for number, held in enumerate(residents):
        if held.exit_code != held.expected:
            faults.append(f"run {number} ended with {held.exit_code} and not {held.expected}")
        if (held.descriptors, held.threads, held.children) != (settled.descriptors, 1, 0):
            faults.append(f"after run {number}: {held}")
    if residents[-1].rss_bytes - settled.rss_bytes > RSS_GROWTH_BYTES_MAX:
        faults.append("its memory grows")
    return faults
