"""The arithmetic of the proof: was every background timed during the whole timed section of main?

All times are UTC nanoseconds, because LoadGen stamps its timed section with the wall clock.
"""

from __future__ import annotations

from msgspec import Struct

from heteromig.core.units import NS_PER_S, UtcNs


class Reason(Struct, frozen=True):
    """One thing that decided the verdict, with the exit code it asks for."""

    exit_code: int
    sentence: str
