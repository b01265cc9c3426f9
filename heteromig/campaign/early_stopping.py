"""How many queries may miss the latency limit: LoadGen's arithmetic of early stopping, for Server and the streams.

LoadGen calls a run VALID when, with a confidence of 99 %, no more than the allowed share of all queries would miss the
limit: of n queries so few did that as few or fewer would be seen with a probability below 1 % if the true share were
the allowed one (loadgen/early_stopping.cc, `odds`, with its tolerance 0). At the 99th percentile that takes 459
queries without a miss, 662 with one, 2010 with ten; for many queries it is a little less than the allowed share.
"""

from __future__ import annotations

import math
from functools import lru_cache

CONFIDENCE = 0.99
"""LoadGen's (loadgen/results.cc, `EarlyStopping`)."""
NEGLIGIBLE = 1e-10
"""LoadGen's series ends at 2**-33 too."""
MANY, NEAREST, FARTHEST = 1000.0, 1.5, 3.0
"""Where so many misses are allowed, the answer is so many standard deviations below; 2.33 in the limit."""


@lru_cache(maxsize=4096)
def fewest_queries(misses: int, allowed_share: float) -> int:
    """The least number of queries, misses included, with which a run that has so many misses is VALID."""
    low, high = misses, misses + 1
    while not _confident(high, misses, allowed_share):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _confident(middle, misses, allowed_share) else (middle, high)
    return high


@lru_cache(maxsize=4096)
def most_misses(queries: int, allowed_share: float) -> int:
    """The greatest number of misses with which a run of so many queries is VALID; -1 where not even 0 will do."""
    mean = queries * allowed_share
    low, high = -1, math.floor(mean) + 1
    if mean > MANY:
        deviation = math.sqrt(mean * (1 - allowed_share))
        low, high = math.floor(mean - FARTHEST * deviation), math.ceil(mean - NEAREST * deviation)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _confident(queries, middle, allowed_share) else (low, middle)
    return low


def cannot_pass(misses: int, allowed_share: float, queries_of_the_full_run: int) -> bool:
    """Whether a run with so many misses so far is INVALID even if all queries to come are in time."""
    return misses > most_misses(queries_of_the_full_run, allowed_share)


def _confident(queries: int, misses: int, allowed_share: float) -> bool:
    """Whether P(Binomial(queries, allowed_share) <= misses) is below 1 - CONFIDENCE."""
    if misses >= queries * allowed_share:
        return False  # at or above its mean the probability is at least a quarter
    log_term = (
        math.lgamma(queries + 1)
        - math.lgamma(misses + 1)
        - math.lgamma(queries - misses + 1)
        + misses * math.log(allowed_share)
        + (queries - misses) * math.log1p(-allowed_share)
    )
    # Summed from its last term down: below the mean the terms shrink ever faster.
    term = math.exp(log_term)
    total = 0.0
    odds = (1 - allowed_share) / allowed_share
    for count in range(misses, -1, -1):
        total += term
        if total >= 1 - CONFIDENCE or term < total * NEGLIGIBLE:
            break
        term *= odds * count / (queries - count + 1)
    return total < 1 - CONFIDENCE
