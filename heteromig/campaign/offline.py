"""Tuning Offline: the expected rate with which a run is VALID, and what it then measures.

Nothing is searched here. LoadGen issues 1.1 times what is expected in the minimum duration, at once
(loadgen/test_settings_internal.cc), and the run is VALID when it lasts as long as that duration: when no more than 1.1
times the expected rate is answered. Higher expectations only make it longer. So the best is to expect what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from heteromig.campaign.probes import (
    Answer,
    Bracket,
    Confirm,
    Inconclusive,
    NotPossible,
    Outcome,
    Probe,
    RunProbe,
    Side,
    TuneSettings,
)

SLACK = 1.1
"""LoadGen's, see above."""
TELLING = 2.0
"""A run that was so many times shorter or longer than asked for tells the rate too badly."""
PATIENCE = 3.0
"""A run that takes so many times what was asked for is ended."""
LOWER = 4.0
"""A rate too high by an unknown factor is lowered by this one."""


def tune_offline(
    settings: TuneSettings, side: Side, start_qps: float, runs: Sequence[Probe]
) -> RunProbe | Confirm | Answer | Inconclusive | NotPossible:
    """What to do next on a side, of whose `runs` none is spoiled."""
    full = [run for run in runs if run.confirms]
    short = [run for run in runs if not run.confirms]
    measured = _measured(runs, start_qps)
    rate = _rounded(settings, measured)
    same = [run for run in full if run.rate_qps == full[-1].rate_qps]
    passed = all(run.outcome is Outcome.VALID for run in same)
    if full and passed and len(same) >= settings.confirmations:
        return _answer(side, same, len(runs))
    if len(full) >= settings.most_confirmations:
        return Inconclusive(
            side=side,
            why=f"{len(full)} runs at full length, and no expected rate passed as often as it must: they measured "
            f"{_rates(full)}.",
            bracket=Bracket(low_qps=None, high_qps=None),
            noise=_noise(full),
        )
    if full and passed:
        return _confirm(settings, side, same[-1].rate_qps or rate, len(same) + 1, "it passed before")
    last = f"the last run measured {measured:.5g} samples/s"
    if full or (short and _telling(short[-1], rate)):
        return _confirm(settings, side, rate, 1, last)
    if len(short) >= settings.most_probes:
        return NotPossible(side=side, why=f"{len(short)} short runs did not tell a rate.", floor_ms=None)
    return RunProbe(
        side=side,
        rate_qps=rate,
        duration_s=settings.probe_s,
        why=f"{last}, too far from what it expected" if short else "the first rate",
        abort_after_s=PATIENCE * settings.probe_s,
    )


def _measured(runs: Sequence[Probe], start_qps: float) -> float:
    """What to expect next."""
    if not runs:
        return start_qps
    last = runs[-1]
    return last.achieved_qps or (last.rate_qps or start_qps) / LOWER


def _telling(run: Probe, rate: float) -> bool:
    """Whether a run is enough to expect `rate` next; one that expected it already is, for no other would tell more."""
    expected, measured = run.rate_qps, run.achieved_qps
    if expected is None or measured is None:
        return False
    return expected == rate or expected / TELLING < measured < expected * TELLING


def _confirm(settings: TuneSettings, side: Side, rate: float, number: int, why: str) -> Confirm:
    return Confirm(
        side=side,
        rate_qps=rate,
        duration_s=settings.full_s,
        why=f"{why}; a run that answers no more than {SLACK:g} times that lasts long enough",
        number=number,
        of=settings.confirmations,
        abort_after_s=PATIENCE * settings.full_s,
    )


def _answer(side: Side, confirmed: Sequence[Probe], runs: int) -> Answer:
    return Answer(
        side=side,
        rate_qps=confirmed[-1].rate_qps,
        achieved_qps=tuple(run.achieved_qps for run in confirmed),
        percentile_latency_ms=tuple(run.percentile_latency_ms for run in confirmed),
        bracket=Bracket(low_qps=None, high_qps=None),
        noise=_noise(confirmed),
        runs=runs,
        why=f"expecting {confirmed[-1].rate_qps:.5g} samples/s, {len(confirmed)} of {len(confirmed)} runs at full "
        f"length passed and measured {_rates(confirmed)}; Offline needs no search.",
    )


def _noise(runs: Sequence[Probe]) -> float | None:
    """How far apart the measured rates are, as a share of the lowest; None where there are not two."""
    rates = [run.achieved_qps for run in runs if run.achieved_qps]
    return max(rates) / min(rates) - 1 if len(rates) > 1 else None


def _rates(runs: Sequence[Probe]) -> str:
    return ", ".join("unknown" if run.achieved_qps is None else f"{run.achieved_qps:.5g}" for run in runs)


def _rounded(settings: TuneSettings, rate: float) -> float:
    """A whole rate is rather too high than too low, which only makes a run longer."""
    return float(math.ceil(rate)) if settings.whole_rates else settings.rounded(rate)
