"""The words in which a cell of the matrix is written: what befalls a run in which phase, and what has to come of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct

from heteromig.core.phases import Phase

if TYPE_CHECKING:
    from tests.faults.stage import Stage


class Kind(Enum):
    """What a cell is played with."""

    QUICK = "simulated slices, LoadGen over nothing"
    LOADGEN = "simulated slices, the embedded benchmarks"
    MIG = "the stand-in for NVML, ordinary programs"
    MPS = "the stand-ins for NVML and MPS, clients of the daemon"


class Need(Enum):
    """What a machine must have for a cell; without it the cell is skipped, and says so."""

    ROOT = "root, to mount a small disk in a namespace of its own, or to be somebody else"
    COMPILER = "a C compiler"


class Act(Struct, frozen=True):
    """A fault, in words and in deeds.

    `before` prepares it, without a run yet; `strike` does it, once the run is held in the cell's phase. Where there is
    no `strike`, a worker does it by itself, as its habit in `environ` says. `after` ends what was begun, once the
    run is over.
    """

    words: str
    flags: tuple[str, ...] = ()
    environ: Mapping[str, str] = {}
    before: Callable[[Stage], None] | None = None
    strike: Callable[[Stage], None] | None = None
    after: Callable[[Stage], None] | None = None


class Expected(Struct, frozen=True):
    """How a run comes out.

    `status` is that of the verdict, None where there is none. `says` are words of its reasons, or of standard error
    where there is no verdict. `verify` is the exit code of `heteromig verify`, the same unless said otherwise.
    """

    exit_code: int
    status: str | None
    says: tuple[str, ...] = ()
    verify: int | None = None

    @property
    def verified(self) -> int:
        """What `verify` exits with."""
        return self.exit_code if self.verify is None else self.verify

    def exits(self, exit_code: int) -> Expected:
        """The same verdict with another exit code: what a run found out could not be printed."""
        return Expected(exit_code, self.status, self.says, self.verified)


class Cell(Struct, frozen=True):
    """One cell. `expected` are the honest ways to come out, most often one."""

    topic: str
    act: Act
    phase: Phase
    expected: tuple[Expected, ...]
    kind: Kind = Kind.QUICK
    needs: tuple[Need, ...] = ()
    fast: bool = False

    @property
    def name(self) -> str:
        """Unlike that of any other."""
        return f"{self.topic}: {self.act.words}, {self.phase.value}"


def cell(topic: str, act: Act, phase: Phase, *expected: Expected, **more: object) -> Cell:
    """A cell, in one line of a table."""
    return Cell(topic, act, phase, expected, **more)  # type: ignore[arg-type]


VALID = Expected(0, "valid")


def valid(*says: str) -> Expected:
    """The fault costs nothing."""
    return Expected(0, "valid", says)


def invalid(exit_code: int, *says: str) -> Expected:
    """Main finished, and proves nothing."""
    return Expected(exit_code, "invalid", says)


def failed(exit_code: int, *says: str) -> Expected:
    """Something failed, and the run was ended for it."""
    return Expected(exit_code, "failed", says)


def inconclusive(*says: str) -> Expected:
    """Evidence is missing."""
    return Expected(9, "inconclusive", says)


def aborted(signum: int, *says: str) -> Expected:
    """A signal ended the run."""
    return Expected(128 + signum, "aborted", says)


def gave_up(*says: str, verify: int = 9) -> Expected:
    """The controller could not go on, and said so in a sentence."""
    return Expected(1, None, says, verify=verify)


KILLED = Expected(-signal.SIGKILL, None, verify=9)
"""The controller died without a word; whoever asks later is told that nothing is proven."""


def does(who: str, deed: str, words: str = "", **more: object) -> Act:
    """A worker does `deed` by itself (`exit 1 at marker`), or when it is told to where that says `at cue`."""
    strike = _cue if " at cue" in deed else None
    habit = {f"QUICK_{who.upper()}": deed}
    return Act(words or deed.removesuffix(" at cue"), environ=habit, strike=strike, **more)  # type: ignore[arg-type]


def _cue(stage: Stage) -> None:
    stage.cue()
