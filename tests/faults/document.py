"""Write `docs/fault-matrix.md` from the results of `make faults`: `python -m tests.faults.document RESULTS`."""

from __future__ import annotations

import itertools
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tests.faults.cells import Cell, Expected
from tests.faults.matrix import CELLS
from tests.faults.stage import REPOSITORY, Result, Seen

DOCUMENT = REPOSITORY / "docs" / "fault-matrix.md"
HEADS = ("case", "phase", "expected", "seen", "detected", "gone")
NOT_PLAYED = "not played"


def row_start(cell: Cell) -> str:
    """What the tables alone decide of a cell's row."""
    expected = " or ".join(dict.fromkeys(map(_outcome, cell.expected)))
    return f"| {cell.act.words} | {cell.phase.value} | {expected} |"


def document(results: Mapping[str, Result]) -> str:
    """The whole document."""
    return "\n".join(_lines(results)) + "\n"


def read_results(lines: Iterable[bytes]) -> dict[str, Result]:
    """The last result of each cell."""
    decoded = (msgspec.json.decode(line, type=Result) for line in lines)
    return {result.name: result for result in decoded}


def _lines(results: Mapping[str, Result]) -> Iterator[str]:
    played = [results[cell.name] for cell in CELLS if cell.name in results]
    left = [one for one in played if one.seen.left]
    yield "# The fault matrix"
    yield ""
    yield _INTRODUCTION
    yield ""
    yield (
        f"The last run played {len(played)} of {len(CELLS)} cells; {sum(one.passed for one in played)} came out as"
        f" expected, and {len(left)} left something behind. {_machine()}"
    )
    for topic, cells in itertools.groupby(CELLS, key=lambda cell: cell.topic):
        yield ""
        yield f"## {topic[0].upper()}{topic[1:]}"
        yield ""
        yield f"| {' | '.join(HEADS)} |"
        yield f"|{'---|' * len(HEADS)}"
        for cell in cells:
            yield f"{row_start(cell)} {_seen(results.get(cell.name))} |"
    yield ""
    yield _LIMITS


def _outcome(one: Expected | Seen) -> str:
    verified = one.verify if isinstance(one, Seen) else one.verified
    if one.exit_code < 0:
        return f"killed, verify {int(verified)}"
    if one.status is None:
        return f"exit {one.exit_code}, verify {int(verified)}"
    beside = "" if verified == one.exit_code else f", verify {int(verified)}"
    return f"{one.status} {one.exit_code}{beside}"


def _seen(result: Result | None) -> str:
    if result is None:
        return f"{NOT_PLAYED} | - | -"
    seen = result.seen
    detected = "-" if seen.detected_s is None else f"{max(seen.detected_s, 0.001):.3f} s"
    outcome = _outcome(seen) if result.passed else f"**{_outcome(seen)}**"
    return f"{outcome} | {detected} | {seen.gone_s:.3f} s"


def _machine() -> str:
    return f"On Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores."


_INTRODUCTION = """What befalls a run, and what comes of it. `make faults` plays every cell with a real run of real
processes, and then writes this document; `make test` plays a part of it, and fails when a row here is not a cell of the
tables under `tests/faults/tables/`, or the other way round. Do not edit it.

- *phase*: where the run is held, or found by the fault, when it strikes.
- *expected* and *seen*: status of the verdict and exit code. Where there is no verdict, because the controller died or
  could not go on, what `heteromig verify` exits with: 9 is inconclusive, 2 says that there is no run directory.
  Everywhere else `verify` exits like the run. `or` joins outcomes that are all honest.
- *detected*: from the fault to the transition to `draining`, or to the end of a run that never got there; `-` where
  there is nothing to detect, or where nobody can tell when it began.
- *gone*: from the end of the run (after a SIGKILL of the controller: from the fault) until nothing is left: no process,
  lock, MPS daemon, temporary file or changed layout. Each cell fails where that takes more than 5 s."""

_LIMITS = """## What is not promised

- A worker's tree dies with the controller as long as its guardian, or the guardian's child, lives and runs. Where both
  are SIGKILLed or stopped in the same moment as the controller, the harness itself still dies (its parent's death
  KILLs it), but children that it left behind in sessions of their own live on; stopped guardians end the tree when they
  are continued. There is nobody left to do it sooner: cgroups that end with a process are not there for every user.
- On a disk that is full a run ends without a verdict: there is no place to prove one. It says so, exits with 1, and
  leaves nothing running; what is on disk is inconclusive.
- A run directory that is deleted takes the evidence with it.
- What is written half when a controller is SIGKILLed in the midst of it is `.run.json.new`, never `run.json`."""


def main() -> None:
    with Path(sys.argv[1]).open("rb") as lines:
        results = read_results(lines)
    DOCUMENT.write_text(document(results), encoding="utf-8")
    failed = [name for name, result in results.items() if not result.passed]
    sys.exit(f"{len(failed)} cells did not come out as expected: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
