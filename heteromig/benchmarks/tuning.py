"""How many samples one call takes, chosen by measuring when an engine is built for a slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from heteromig.benchmarks.inference import Answer

WORTH_IT = 1.1
"""A batch twice as large has to give so many times as many samples a second."""
LONGEST_CALL_S = 0.01
"""A clean stop waits for one call, a Server query for up to two; the shortest latency limit is 15 ms."""
REPEATS = 5
"""The best counts: disturbances only ever slow a call down."""


def choose_batch(answer: Answer, batches: tuple[int, ...], sample_count: int, clock_s: Callable[[], float]) -> int:
    """The smallest of `batches`, in ascending order, beyond which a larger one gains little or takes too long."""
    chosen, chosen_qps = batches[0], 0.0
    for batch in batches if len(batches) > 1 else ():
        indices = [index % sample_count for index in range(batch)]
        call_s = min(_call_s(answer, indices, clock_s) for _ in range(REPEATS))
        if chosen_qps and (call_s > LONGEST_CALL_S or batch / call_s < chosen_qps * WORTH_IT):
            break
        chosen, chosen_qps = batch, batch / call_s
    return chosen


def _call_s(answer: Answer, indices: list[int], clock_s: Callable[[], float]) -> float:
    begin_s = clock_s()
    answer(indices)
    return max(clock_s() - begin_s, 1e-9)
