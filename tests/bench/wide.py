"""A simulated board with as many slices as eight GPUs have, because the boards that the simulator knows have seven.

As a program (`python -m tests.bench.wide ...`) it is the sampler, with that board known.
"""

from __future__ import annotations

import sys
from typing import Any

from heteromig.runner.sampler_link import SamplerLink
from heteromig.slices import sampler
from heteromig.slices.boards import BOARDS, Board, Profile

WIDE = "bench-56"
SLICES = 56
_MEMORY_SLICES = 64  # a power of two, which numbers the instances
_GIB_BYTES = 1 << 30


def add_board() -> None:
    """Make `sim:bench-56` a board of this process."""
    profile = Profile(
        name="1g.10gb",
        profile_id=19,
        starts=tuple(range(SLICES)),
        size=1,
        compute_slices=1,
        sm_count=14,
        memory_bytes=10 * _GIB_BYTES,
        max_instances=SLICES,
    )
    BOARDS[WIDE] = Board(
        name=WIDE,
        product="board of 56 slices",
        memory_bytes=_MEMORY_SLICES * 10 * _GIB_BYTES,
        memory_slices=_MEMORY_SLICES,
        profiles=(profile,),
    )


class WideSamplerLink(SamplerLink):
    """Starts this program instead of the sampler, which would not know the board."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        python, dash_m, _, *rest = self._argv
        self._argv = (python, dash_m, "tests.bench.wide", *rest)


if __name__ == "__main__":
    add_board()
    sys.exit(sampler.main())
