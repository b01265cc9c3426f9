"""How a run came out: reasons in, one verdict out.

The table of exit codes is the contract with scripts; `heteromig exit-codes` prints it.
"""

from __future__ import annotations

import signal
from enum import IntEnum

from msgspec import Struct


class ExitCode(IntEnum):
    """Exit codes of `run` and `verify`, besides 128 + signal number."""

    VALID = 0
    INTERNAL = 1
    USAGE = 2
    INVALID = 3
    OVERLAP = 4
    WORKER = 5
    START_TIMEOUT = 6
    DEVICE = 7
    GATE = 8
    INCONCLUSIVE = 9


EXIT_CODES: tuple[tuple[int, str, str], ...] = (
    (0, "valid", "main is VALID and the overlap is proven"),
    (1, "-", "internal error of heteromig"),
    (2, "-", "usage or configuration error"),
    (3, "invalid", "main finished but is not VALID, or its accuracy did not pass"),
    (4, "invalid", "overlap not proven, or a background ended before main did"),
    (5, "failed", "a worker failed: a build, a background or main exited non-zero, died, or stalled"),
    (6, "failed", "the backgrounds did not start in time"),
    (7, "failed", "preflight or device: no slices, slice busy, locked, geometry changed, Xid, GPU lost"),
    (8, "-", "a comparison gate failed"),
    (9, "inconclusive", "evidence is missing, or the run never finished"),
    (129, "aborted", "SIGHUP"),
    (130, "aborted", "SIGINT"),
    (131, "aborted", "SIGQUIT"),
    (143, "aborted", "SIGTERM"),
)
"""(exit code, verdict, meaning), in the order in which they are printed."""

SIGNAL_BASE = 128
INTERRUPTED = SIGNAL_BASE + signal.SIGINT
ABORT_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

_PRECEDENCE = (2, 1, 7, 6, 5, 4, 3, 9)
"""After signals. Usage errors found while planning come first: nothing has run that could matter more."""

_FORGIVEN_BY_LENIENT = frozenset({ExitCode.OVERLAP, ExitCode.WORKER, ExitCode.START_TIMEOUT})

_STATUS: dict[int, str] = {
    ExitCode.INTERNAL: "failed",
    ExitCode.USAGE: "failed",
    ExitCode.INVALID: "invalid",
    ExitCode.OVERLAP: "invalid",
    ExitCode.WORKER: "failed",
    ExitCode.START_TIMEOUT: "failed",
    ExitCode.DEVICE: "failed",
    ExitCode.INCONCLUSIVE: "inconclusive",
}


class Reason(Struct, frozen=True):
    """One thing that decided the verdict, with the exit code it asks for.

    `fatal` is what `--lenient` does not forgive whatever the exit code: a run can do without a neighbour, but not
    without main, or without its engines.
    """

    exit_code: int
    sentence: str
    fatal: bool = False


class Verdict(Struct, frozen=True):
    """`status` is valid, invalid, failed, aborted, inconclusive, lenient or built; `reasons` the weightiest first."""

    status: str
    exit_code: int
    reasons: tuple[Reason, ...]


def decide(reasons: tuple[Reason, ...], *, lenient: bool, good: str = "valid") -> Verdict:
    """The verdict for all that was found; `good` is the status when nothing was."""
    ranked = tuple(sorted(dict.fromkeys(reasons), key=_rank))
    if not ranked:
        return Verdict(status=good, exit_code=0, reasons=())
    worst = ranked[0].exit_code
    if worst > SIGNAL_BASE:
        return Verdict(status="aborted", exit_code=worst, reasons=ranked)
    if lenient:
        rest = [reason for reason in ranked if reason.fatal or reason.exit_code not in _FORGIVEN_BY_LENIENT]
        if not rest:
            return Verdict(status="lenient", exit_code=0, reasons=ranked)
        worst = rest[0].exit_code
    return Verdict(status=_STATUS.get(worst, "failed"), exit_code=worst, reasons=ranked)


def _rank(reason: Reason) -> int:
    if reason.exit_code > SIGNAL_BASE:
        return -1
    # A code that is none is of a journal that was altered, which whoever compares it will find.
    return _PRECEDENCE.index(reason.exit_code) if reason.exit_code in _PRECEDENCE else len(_PRECEDENCE)
