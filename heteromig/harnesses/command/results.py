"""What a program said of its result, out of its own output."""

from __future__ import annotations

import math
import os
import re
import stat
from pathlib import Path

from heteromig.core.errors import EvidenceError
from heteromig.core.overlap import MainResult
from heteromig.harnesses.command.conditions import number
from heteromig.harnesses.command.programs import Program
from heteromig.logs.patience import bounded
from heteromig.logs.tail import Tail

SEARCH_LIMIT_S = 10.0
"""Of processor time for a piece of some MiB: nothing waits for it but the verdict."""


def judge_output(output: Path, program: Program, expression: re.Pattern[bytes]) -> MainResult:
    """Whether the last line that matches `expression` says what `valid-when` asks for.

    What was printed before the start marker is of a warm-up, and no result of what was measured.

    Raises:
        EvidenceError: the output cannot be read.
    """
    found = last_match(output, expression, since=program.start)
    if found is None:
        why = f"no line of {output} matches its result pattern {program.spec.result!r}"
        return MainResult(valid=False, complaints=(why,), metrics={})
    complaints = [condition.complaint(found) for condition in program.conditions]
    unmet = tuple(one for one in complaints if one is not None)
    return MainResult(valid=not unmet, complaints=unmet, metrics=_figures(found))


def last_match(
    output: Path, expression: re.Pattern[bytes], *, since: re.Pattern[bytes] | None = None
) -> dict[str, str | None] | None:
    """The named groups of the last match, None each that took no part; None without a match.

    Lines before the first one that matches `since` are passed over.

    The file is read in pieces of some MiB, by whole lines and as `Tail` reads it while it grows: it may be larger than
    the memory.

    Raises:
        EvidenceError: it is not there, no regular file, or cannot be read; no line matches `since`; or an expression
            takes longer than `SEARCH_LIMIT_S`.
    """
    found: dict[str, str | None] | None = None
    tail = Tail(output)
    try:
        if not stat.S_ISREG(os.lstat(output).st_mode):
            raise EvidenceError(f"The output {output} is not a regular file, so nothing is read from it.")
        with output.open("rb"):
            pass  # `Tail` takes a file that cannot be opened for one that is not there yet
        while block := tail.read(at_end=True):
            with bounded(since or expression, SEARCH_LIMIT_S, EvidenceError):
                first = since.search(block) if since is not None else None
            if since is not None and first is None:
                continue
            begin = block.rfind(b"\n", 0, first.start()) + 1 if first is not None else 0
            since, match = None, None
            with bounded(expression, SEARCH_LIMIT_S, EvidenceError):
                for match in expression.finditer(block, begin):  # noqa: B007 - the last one is wanted
                    pass
            if match is not None:
                found = {name: _text(value) for name, value in match.groupdict().items()}
    except OSError as error:
        raise EvidenceError(f"The output {output} cannot be read: {error.strerror}.") from None
    finally:
        tail.close()
    if since is not None:
        raise EvidenceError(f"No line of {output} matches the start pattern, so that none of them is its result.")
    return found


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _figures(found: dict[str, str | None]) -> dict[str, float]:
    """Those of the groups that are numbers."""
    numbers = {name: number(text) for name, text in found.items() if text is not None}
    figures = {name: float(value) for name, value in numbers.items() if value is not None}
    return {name: value for name, value in figures.items() if math.isfinite(value)}
