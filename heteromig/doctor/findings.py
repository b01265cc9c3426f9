"""What `doctor` says: findings, how long NVML takes to answer, and whether a run would be refused."""

from __future__ import annotations

import re
from enum import Enum

from msgspec import Struct

from heteromig.core.errors import HeteromigError, PreflightError

SCHEMA_VERSION = 1


class Status(Enum):
    """How a finding came out."""

    OK = "ok"
    WARNING = "warning"
    """A run would begin, and somebody may regret it."""
    PROBLEM = "problem"
    """A run would be refused."""
    UNKNOWN = "unknown"
    """It cannot be told here; `what` says why."""


class Finding(Struct, frozen=True):
    """One thing that was looked at.

    `what` is for people; of a problem it is the sentence with which `run` refuses. `fix` is what to do about it, None
    where there is nothing to be done. `gpu_uuid` is the GPU that it is about, None where it is about the machine.
    """

    check: str
    status: Status
    what: str
    fix: str | None = None
    gpu_uuid: str | None = None


class Latency(Struct, frozen=True):
    """How long a call of NVML takes: `sample` is one whole reading of all devices, as the sampler does once a period.

    `count` is how often it was measured; with a hundred or fewer, `p99_ms` is the longest of them.
    """

    call: str
    count: int
    p50_ms: float
    p99_ms: float


class ExaminedGpu(Struct, frozen=True):
    """A GPU that findings are about; `index` is NVML's."""

    index: int
    uuid: str
    name: str


class Report(Struct, frozen=True):
    """Everything that was found, in the order of reading. `exit_code` is 7 where there is a problem, else 0."""

    schema_version: int
    simulated: bool
    slices: str
    exit_code: int
    gpus: tuple[ExaminedGpu, ...]
    findings: tuple[Finding, ...]
    latencies: tuple[Latency, ...]


def report_of(
    slices: str,
    gpus: tuple[ExaminedGpu, ...],
    findings: tuple[Finding, ...],
    latencies: tuple[Latency, ...],
    *,
    simulated: bool,
) -> Report:
    """The report with these findings."""
    problem = any(one.status is Status.PROBLEM for one in findings)
    return Report(
        schema_version=SCHEMA_VERSION,
        simulated=simulated,
        slices=slices,
        exit_code=PreflightError.exit_code if problem else 0,
        gpus=gpus,
        findings=findings,
        latencies=latencies,
    )


def ok(check: str, what: str, *, gpu: str | None = None) -> Finding:
    """Nothing is wrong."""
    return Finding(check, Status.OK, what, gpu_uuid=gpu)


def warning(check: str, what: str, fix: str, *, gpu: str | None = None) -> Finding:
    """A run would begin, and somebody may regret it."""
    return Finding(check, Status.WARNING, what, fix, gpu)


def unknown(check: str, what: str, fix: str | None = None, *, gpu: str | None = None) -> Finding:
    """It cannot be told."""
    return Finding(check, Status.UNKNOWN, what, fix, gpu)


def problem(check: str, refusal: HeteromigError | str, *, gpu: str | None = None) -> Finding:
    """`run` refuses, with that sentence."""
    return Finding(check, Status.PROBLEM, str(refusal), remedy(str(refusal)), gpu)


_PARENTHESES = re.compile(r"\([^()]*\)")
_SEPARATORS = (re.compile(r"\. (?=[A-Z])"), re.compile(r"; "), re.compile(r": "))


def remedy(sentence: str) -> str:
    """The part of a refusal that says what to do: its last sentence, or what follows its last semicolon or first colon.

    That is how the refusals of heteromig are written. Parentheses are not looked into.
    """
    bare = _PARENTHESES.sub(lambda match: " " * len(match[0]), sentence)
    last, semicolon, colon = _SEPARATORS
    for ends in ([match.end() for match in last.finditer(bare)][:1], [m.end() for m in semicolon.finditer(bare)][-1:]):
        if ends:
            return _capital(sentence[ends[0] :])
    first = colon.search(bare)
    return _capital(sentence[first.end() :] if first else sentence)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
