"""When a run of Server is hopeless by its queue: for harnesses that do not tell of late queries while they run.

LoadGen ends a run, INVALID, once more than `max_async_queries` queries are outstanding (loadgen 6.0.17,
issue_query_controller.cc; the setting is older than any tree of NVIDIA's with MIG).
"""

from __future__ import annotations

import math

DEVIATIONS = 4.0
"""Standard deviations of a random number of queries; more are seen once in 30 000 times."""
CROWDED_DEVIATIONS, CROWDED_FEW = 6.0, 10
"""A Poisson number, be it large or small, is above its mean by so many standard deviations and so many more once in
10**9 times."""
MS_PER_S = 1000


def rarely_above(expected: float) -> int:
    """What a number of queries is very rarely above, where so many are expected: LoadGen's arrivals are Poisson's."""
    return math.ceil(expected + DEVIATIONS * math.sqrt(expected))


def most_outstanding(most_late: int, rate_qps: float, latency_limit_ms: float) -> int:
    """Above so many outstanding queries, more than `most_late` of them are late already.

    A query that is outstanding and not late yet was due within the last `latency_limit_ms`; LoadGen measures from when
    it was due. So many queries are due in that time at most, and all others are late, whenever they will be answered.
    More than are ever due so close together, for a run has as many such times as it has queries; and hence never 0, by
    which LoadGen means that there is no limit.
    """
    due = rate_qps * latency_limit_ms / MS_PER_S
    return max(0, most_late) + math.ceil(due + CROWDED_DEVIATIONS * math.sqrt(due)) + CROWDED_FEW
