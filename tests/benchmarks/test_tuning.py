from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from heteromig.benchmarks.tuning import LONGEST_CALL_S, choose_batch

BATCHES = (1, 2, 4, 8, 16)


class Slice:
    """A call takes some time whatever it holds, and some for each sample beyond what it has room for at once."""

    def __init__(self, call_s: float, sample_s: float, width: int = 1) -> None:
        self._call_s, self._sample_s, self._width = call_s, sample_s, width
        self.now_s = 0.0
        self.calls: list[int] = []
        self._disturbances_s = itertools.cycle((0.5, 0.0))

    def answer(self, indices: list[int]) -> NDArray[np.int32]:
        self.calls.append(len(indices))
        assert max(indices) < 3
        self.now_s += self._call_s + self._sample_s * -(-len(indices) // self._width) + next(self._disturbances_s)
        return np.zeros(len(indices), dtype=np.int32)

    def clock_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("place", "chosen"),
    [
        (Slice(0.0, 0.0001, width=100), 16),  # wide enough for all of them
        (Slice(0.0, 0.0001, width=4), 4),  # full with four: more take longer by as much
        (Slice(0.0, 0.001), 1),  # full with one
        (Slice(0.001, 0.0), 16),  # nothing but the cost of a call
        (Slice(0.0, LONGEST_CALL_S * 2, width=100), 1),  # so slow that one is too long already
        (Slice(LONGEST_CALL_S / 2, LONGEST_CALL_S / 6), 2),  # four would be worth it, and take too long
    ],
)
def test_a_batch_is_as_large_as_pays(place: Slice, chosen: int) -> None:
    assert choose_batch(place.answer, BATCHES, 3, place.clock_s) == chosen


def test_where_there_is_no_choice_nothing_is_measured() -> None:
    place = Slice(1.0, 1.0)
    assert choose_batch(place.answer, (8,), 3, place.clock_s) == 8
    assert not place.calls
