from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from heteromig.benchmarks.calibration import calibrate


class Engine:
    """Takes the same CPU time for each sample, and waits as well, as if others had the core."""

    def __init__(self, cpu_s: float, wait_s: float) -> None:
        self._cpu_s = cpu_s
        self._wait_s = wait_s
        self.largest_index = 0

    def __call__(self, indices: list[int]) -> NDArray[np.int32]:
        end_s = time.thread_time() + self._cpu_s * len(indices)
        while time.thread_time() < end_s:
            pass
        time.sleep(self._wait_s)
        self.largest_index = max(self.largest_index, *indices)
        return np.zeros(len(indices), dtype=np.int32)


def test_an_engine_that_computes_elsewhere_is_counted_by_the_wall_clock() -> None:
    engine = Engine(0.0, 0.002)
    rates = calibrate(engine, sample_count=10, batch=4, budget_s=0.2, clock_s=time.monotonic)
    assert 0 < rates.batch_qps <= 2000
    assert 0 < rates.single_qps <= 500


@pytest.mark.parametrize("wait_s", [0.0, 0.004])
def test_the_rate_does_not_depend_on_who_else_has_the_core(wait_s: float) -> None:
    engine = Engine(0.001, wait_s)
    rates = calibrate(engine, sample_count=10, batch=4, budget_s=0.1)
    assert rates.batch_qps == pytest.approx(1000, rel=0.15)
    assert rates.single_qps == pytest.approx(1000, rel=0.3)
    assert engine.largest_index == 9
