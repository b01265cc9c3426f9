"""A bound on how long regular expressions of the user's own may search.

One such as `(a+)+$` takes twice as long for each further `a`, and the loop that searches has a run to watch. `re` looks
for signals while it matches, so a timer can end a match. It counts this process' own processor time: a machine that is
busy with something else, or a controller that was suspended, is no fault of the expression.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator

from heteromig.core.errors import HeteromigError


class _TooLongError(Exception):
    """The time is up."""


@contextlib.contextmanager
def bounded(expression: re.Pattern[bytes], limit_s: float, error: type[HeteromigError]) -> Iterator[None]:
    """End what is searched in the block after `limit_s` of processor time. Signals exist in the main thread only.

    Raises:
        HeteromigError: the time is up; it is of the kind `error`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = True

    def ring(_signum: int, _frame: object) -> None:
        if armed:  # a signal that came last may be handled only behind the block
            raise _TooLongError

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
    try:
        yield
    except _TooLongError:
        raise error(
            f"The pattern {expression.pattern.decode()!r} took more than {limit_s:g} s on what a program printed, and "
            "might never have come to an end: do not repeat what repeats itself, as (a+)+ does, and say more exactly "
            "what the line holds."
        ) from None
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
