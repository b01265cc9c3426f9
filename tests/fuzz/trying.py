"""One input given to one parser: it answers or refuses with a sentence, the same each time, and comes to an end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import HealthCheck, settings

from heteromig.core.errors import HeteromigError

HANG_S = 20.0
"""No input here takes a thousandth of that: whoever takes longer does not come to an end."""
SENTENCE_CHARS_MAX = 1_000_000

EXAMPLES = int(os.environ.get("FUZZ", "50"))
"""How many inputs of each kind a test tries; `make fuzz FUZZ=20000` is for leaving alone overnight."""

_REPEATABLE_MAX = 200
"""So few are always the same ones, so that `make test` says the same each time."""

TRIED: Counter[str] = Counter()
"""Inputs that were really given to each parser."""

Read = Callable[[bytes, Path], object]
"""What is fuzzed: it may write `data` to files in the directory, and gives back whatever it made of it."""


class HangError(BaseException):
    """No ordinary exception, so that no parser can take it for a damaged file."""


@contextlib.contextmanager
def no_hang(seconds: float = HANG_S) -> Iterator[None]:
    """Raise `HangError` in the block when it is not over in time; regular expressions are interrupted as well."""

    def raise_it(_signum: int, _frame: object) -> None:
        raise HangError(f"not over after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(name: str, read: Read, data: bytes, place: Path) -> str:
    """Give `data` to `read` twice, and say what came of it."""
    TRIED[name] += 1
    with no_hang():
        first = _once(read, data, place)
        assert _once(read, data, place) == first
    return first


def _once(read: Read, data: bytes, place: Path) -> str:
    try:
        return repr(read(data, place))
    except HeteromigError as error:
        sentence = str(error)
        assert sentence.endswith((".", "?")), sentence[-500:]
        assert len(sentence) <= SENTENCE_CHARS_MAX
        return f"{type(error).__name__}: {sentence}"


def trying(examples: int) -> settings:
    """How hypothesis is to go about it: patiently, and without a memory outside the repository."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples <= _REPEATABLE_MAX,
        suppress_health_check=list(HealthCheck),
    )
