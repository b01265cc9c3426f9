"""Tuning Server: the highest target rate at which few enough queries are late.

Short runs first, each where the fitted line crosses the allowed share, inside the bracket; once the crossing is known
well enough, a run at full length just below it; if that fails, the next one lower, by what the line says of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from msgspec import Struct

from heteromig.campaign.early_stopping import fewest_queries, most_misses
from heteromig.campaign.knee import FAR, Knee, Reading, fit
from heteromig.campaign.outstanding import rarely_above
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

STEPS = (1.25, 2.0, 4.0)
"""Factors away from a start that is too low or too high, the last one again and again: four runs reach a factor of 40,
five one of 160."""
NEARLY = 2.0
"""How far down to go from a rate that failed, where the line has led to it."""
AIM = 0.8
"""Short runs aim at so much of the allowed share: a run that fails by little tells as much, but delays an answer."""
OVERLOADED = 0.95
"""Answering less than so much of the target rate, a server is at its capacity."""
SERVER_OVER_CAPACITY = 0.8
"""A first guess: Server over Offline was 0.65 to 0.89, mean 0.75, in NVIDIA's v2.0 results; Offline batches are fuller
than those of a server that is a little too busy."""
UNLIKELY = 4.0
"""Where so many spells are expected, there is none once in 50 runs."""
NEAR_CAPACITY = 0.75
"""Where that much passes, the next one is so far on the way to what was answered, in the logarithm: a GPU under load
was VALID up to 98.7 % of it (docs/hardware.md)."""
EDGE = 0.15
"""What is to be tried outside the bracket is tried so far inside of it, as a share of its logarithmic width."""
KNOWN = 0.85
"""The crossing is known well enough when its standard error is below so much of the precision."""
PASSING = 0.84
"""How likely all confirmations are to pass: one is a standard error below the crossing, three are 1.6 of them."""
MOST_CAUTION = 1.0
"""What is not known of the crossing lowers a confirmation by no more than so many times the precision."""
MOST_DOWN = 3.0
"""A confirmation that failed is lowered by no more than so many times the precision at once, or by `_step_down`. A
crossing that is not known even to that is no place to begin."""
LONGEST_STEP = 0.4
"""How far noise lowers a rate at once, in its logarithm: by a third. Low rates take long where queries are counted."""
LONGEST = 1 / 3
"""A short run near the knee takes at most so much of a full one; where it takes more, a full one tells as much."""
RUN_NOISE = 0.25
"""No run tells the crossing better than to so much of the precision."""
WORTH = 0.75
"""A confirmation higher up is worth its time if it gains more than so much of the precision."""
FLOOR = 0.05
"""Latencies at two rates, the lower one at most half of the other, that differ by less: the floor is reached."""
EXPLORED = 640.0
"""A start that is so many times too high is given up."""
NEAR_CEILING = 0.95
"""A rate that passes so near to what is known to be too high says that this is not so."""
BEYOND = 1.02
"""How far to go beyond the only end that a bracket has, where the line says to stay."""


class _Known(Struct, frozen=True):
    """What the runs of one side say."""

    settings: TuneSettings
    side: Side
    start_qps: float
    short: tuple[Probe, ...]
    full: tuple[Probe, ...]
    bracket: Bracket
    knee: Knee | None

    @property
    def runs(self) -> tuple[Probe, ...]:
        return self.short + self.full


def tune_server(
    settings: TuneSettings, side: Side, start_qps: float, runs: Sequence[Probe]
) -> RunProbe | Confirm | Answer | Inconclusive | NotPossible:
    """What to do next on a side, of whose `runs` none is spoiled."""
    known = _know(settings, side, start_qps, runs)
    if known.full:
        return _settled(known) or _next(known)
    return _given_up(known) or _next(known)


def _settled(known: _Known) -> Answer | Inconclusive | None:
    """What the confirmations came to; None while another one is due."""
    settings = known.settings
    if _unfinished(known) is not None:
        return None
    exhausted = len(known.full) >= settings.most_confirmations
    best, target = _best(known), _target(known)
    if best is not None and (exhausted or target is None or target[0] < best * (1 + WORTH * settings.precision)):
        return _answer(known, best)
    if exhausted:
        return _inconclusive(known, f"{len(known.full)} runs at full length, and no rate passed as often as it must")
    return None


def _given_up(known: _Known) -> Inconclusive | NotPossible | None:
    """Why short runs lead to no confirmation; None while they may."""
    settings = known.settings
    searched = len(known.short) >= settings.most_probes
    if _floor_reached(known) or (searched and _target(known) is None):
        return _not_possible(known)
    unknown = known.knee.error if known.knee is not None else 0.0
    if searched and unknown > max(known.bracket.width, MOST_DOWN * settings.precision):
        return _inconclusive(known, f"{len(known.short)} short runs scatter more than the bracket is wide")
    return None


def _next(known: _Known) -> RunProbe | Confirm:
    if (repeated := _unfinished(known)) is not None:
        return _confirm(known, repeated, "it passed before, and is to pass again")
    target = _target(known)
    if target is not None and (_ready(known) or len(known.short) >= known.settings.most_probes):
        return _confirm(known, *target)
    return _explore(known)


def may_miss(settings: TuneSettings, rate_qps: float) -> int:
    """How many queries of a full-length run at that rate may be late; -1 where it has too few queries to pass."""
    return most_misses(_queries(settings, rate_qps), settings.allowed_share)


def _most_misses_to_go_on(settings: TuneSettings, rate_qps: float) -> int | None:
    return None if settings.verdicts_only else max(0, may_miss(settings, rate_qps))


def _queries(settings: TuneSettings, rate_qps: float) -> int:
    """The queries of a full-length run. Their number is random; this is what it is very rarely above."""
    return rarely_above(max(rate_qps * settings.full_s, settings.min_queries))


def _know(settings: TuneSettings, side: Side, start_qps: float, runs: Sequence[Probe]) -> _Known:
    short = tuple(run for run in runs if not run.confirms)
    full = tuple(run for run in runs if run.confirms)
    return _Known(
        settings=settings,
        side=side,
        start_qps=start_qps,
        short=short,
        full=full,
        bracket=bracket_of(settings, runs),
        knee=knee_of(settings, runs),
    )


def knee_of(settings: TuneSettings, runs: Sequence[Probe]) -> Knee | None:
    """The line through the runs of a side, of which none is spoiled.

    None where none of them is near enough, and where the line is wrong: at the low end of the bracket there were far
    fewer late queries than it says. Beyond its knee a GPU falls off as a cliff does, and a line through two failures
    leads nowhere.
    """
    readings = [
        Reading(rate_qps=_rate(run), queries=run.queries, misses=run.misses, spells=run.spells)
        for run in runs
        if run.misses is not None and run.queries
    ]
    expected = max(_rate(runs[-1]) * settings.full_s, settings.min_queries) if runs else 0.0
    # Early stopping asks for a little less than the allowed share; how much less, depends on the number of queries.
    most = most_misses(math.ceil(expected), settings.allowed_share)
    passing = (most + 0.5) / expected if most >= 0 else settings.allowed_share
    knee = fit(readings, passing, RUN_NOISE * settings.precision)
    low = bracket_of(settings, runs).low_qps
    if knee is None or any(_disproves(knee, one) for one in readings if one.rate_qps == low):
        return None
    return knee


def _disproves(knee: Knee, reading: Reading) -> bool:
    """Whether the line would have had so many spells of late queries in that run that chance does not explain it."""
    late = knee.share_at(reading.rate_qps) * reading.queries
    return late / (knee.share * knee.spell_queries) >= UNLIKELY and reading.misses * FAR <= late


def _rate(run: Probe) -> float:
    if run.rate_qps is None:
        raise ValueError(f"a run of Server without a rate: {run}")
    return run.rate_qps


def has_passed(settings: TuneSettings, run: Probe) -> bool:
    """LoadGen's verdict; of a short run too short for one, whether few enough queries were late."""
    if run.outcome is Outcome.INVALID and not run.confirms and run.misses is not None:
        return run.misses <= settings.allowed_share * run.queries
    return run.outcome is Outcome.VALID


def bracket_of(settings: TuneSettings, runs: Sequence[Probe]) -> Bracket:
    """What full-length runs say, and of the short ones what does not contradict them.

    All full-length runs at a rate have to pass: it failed where one of them did.
    """
    short, full = ([run for run in runs if run.confirms is confirms] for confirms in (False, True))
    failed = {_rate(run) for run in full if not has_passed(settings, run)}
    passed = {_rate(run) for run in full} - failed
    ceiling, floor = min(failed, default=math.inf), max(passed, default=0.0)
    passed |= {_rate(run) for run in short if has_passed(settings, run) and _rate(run) < ceiling}
    failed |= {_rate(run) for run in short if not has_passed(settings, run) and _rate(run) > floor}
    lowest, highest = min(failed, default=math.inf), max(passed, default=0.0)
    return Bracket(
        low_qps=max((rate for rate in passed if rate < lowest), default=None),
        high_qps=min((rate for rate in failed if rate > highest), default=None),
    )


# --- confirmations ----------------------------------------------------------------------------------------------------


def _unfinished(known: _Known) -> float | None:
    """The rate of the last confirmation, where it passed every time so far, and not yet often enough."""
    if not known.full:
        return None
    rate = _rate(known.full[-1])
    passes = _passes(known, rate)
    return rate if passes is not None and passes < known.settings.confirmations else None


def _passes(known: _Known, rate: float) -> int | None:
    """How many confirmations passed at a rate; None where one failed."""
    outcomes = [has_passed(known.settings, run) for run in known.full if _rate(run) == rate]
    return len(outcomes) if all(outcomes) else None


def _best(known: _Known) -> float | None:
    confirmed = {
        _rate(run)
        for run in known.full
        if (passes := _passes(known, _rate(run))) is not None and passes >= known.settings.confirmations
    }
    return max(confirmed, default=None)


def _target(known: _Known) -> tuple[float, str] | None:
    """The rate to be confirmed next, and why; None while nothing is known of one."""
    settings, knee = known.settings, known.knee
    failed = _lowest_failed(known)
    best = _best(known)
    if knee is not None:
        below, step = _below(known, knee), _step_down(known, knee)
        rate = knee.rate_qps * math.exp(-below)
        why = f"{_percent(below)} below {_qps(knee.rate_qps)}, where the fitted line crosses what is allowed"
        nearest = _nearest_failure(known)
        if best is not None and math.isfinite(nearest) and rate > (middle := math.sqrt(best * nearest)):
            rate, why = middle, f"half way between {_qps(best)}, which passed, and {_qps(nearest)}, which failed"
        elif failed is not None and best is None and rate > (lower := failed * math.exp(-step)):
            rate, why = lower, f"{_percent(step)} below {_qps(failed)}, which failed at full length"
        elif failed is not None and rate < (lowest := failed * math.exp(-max(step, MOST_DOWN * settings.precision))):
            rate = lowest
            why = f"below {_qps(failed)}, which failed at full length; no lower at once, for the line may be bent"
        elif (
            failed is None
            and known.bracket.low_qps is not None
            and rate < (lowest := known.bracket.low_qps * math.exp(-MOST_DOWN * settings.precision))
        ):
            rate = lowest
            why = f"below {_qps(known.bracket.low_qps)}, which passed; the fitted line leads far lower, and may be bent"
    elif best is not None and (higher := _above(known, best)) is not None:
        rate, why = higher, f"half way between {_qps(best)}, which passed, and what failed, for no line leads on"
    elif failed is not None:
        rate = max(known.bracket.low_qps or 0.0, failed * (1 - settings.precision))
        why = f"below {_qps(failed)}, which failed at full length"
    elif known.bracket.low_qps is not None:
        rate, why = known.bracket.low_qps, "the highest rate that passed in a short run"
    else:
        return None
    return settings.rounded(rate), why


def _lowest_failed(known: _Known) -> float | None:
    """The lowest rate that failed at full length."""
    return min((_rate(run) for run in known.full if not has_passed(known.settings, run)), default=None)


def _nearest_failure(known: _Known) -> float:
    """The lowest rate that failed, in a short run as well where full-length ones do not contradict it; or infinite."""
    return min(_lowest_failed(known) or math.inf, known.bracket.high_qps or math.inf)


def _above(known: _Known, best: float) -> float | None:
    """Half way to what failed, where runs tell of late queries, and that is farther away than the precision."""
    settings, nearest = known.settings, _nearest_failure(known)
    if settings.verdicts_only or known.bracket.low_qps != best or not math.isfinite(nearest):
        return None
    return math.sqrt(best * nearest) if nearest / best - 1 > settings.precision else None


def _below(known: _Known, knee: Knee) -> float:
    """How far below the crossing all confirmations are likely to pass, in the logarithm of the rate."""
    settings = known.settings
    caution = NormalDist().inv_cdf(PASSING ** (1 / settings.confirmations))
    run = caution * math.hypot(_scatter(known, knee), RUN_NOISE * settings.precision)
    unknown = min(math.hypot(caution * knee.error, run), MOST_CAUTION * settings.precision)
    return max(unknown, min(run, LONGEST_STEP))


def _step_down(known: _Known, knee: Knee) -> float:
    """How far below a failed confirmation the next one is at least, in the logarithm of the rate.

    As far as one run is off, and twice as far with each rate that failed: runs that the line does not foresee fail
    because of something else than the rate, and small steps would only collect more of them.
    """
    failed = len({_rate(run) for run in known.full if not has_passed(known.settings, run)})
    precision = known.settings.precision
    least = min(max(RUN_NOISE * precision, _scatter(known, knee)), precision)
    return min(least * 2.0 ** (failed - 1), LONGEST_STEP)


def _ready(known: _Known) -> bool:
    """Whether a confirmation is worth its time."""
    precision = known.settings.precision
    if known.full:
        return True
    if known.bracket.low_qps is None:
        return False
    if known.settings.whole_rates and (known.bracket.high_qps or math.inf) <= known.bracket.low_qps + 1:
        return True  # no other rate is in between
    if known.knee is None:
        return known.bracket.width <= precision
    if known.settings.probe_s > LONGEST * known.settings.full_s:
        return True
    return _known_well(known) or known.bracket.width <= RUN_NOISE * precision


def _known_well(known: _Known) -> bool:
    """Whether the crossing is known as well as it needs to be, or as a full-length run could tell it."""
    knee = known.knee
    return knee is not None and knee.error <= max(KNOWN * known.settings.precision, _scatter(known, knee))


def _scatter(known: _Known, knee: Knee) -> float:
    """That of a full-length run."""
    return knee.scatter(max(knee.rate_qps * known.settings.full_s, known.settings.min_queries))


def _confirm(known: _Known, rate: float, why: str) -> Confirm:
    settings = known.settings
    return Confirm(
        side=known.side,
        rate_qps=rate,
        duration_s=settings.full_s,
        why=why,
        number=(_passes(known, rate) or 0) + 1,
        of=settings.confirmations,
        abort_above_misses=_most_misses_to_go_on(settings, rate),
    )


# --- short runs -------------------------------------------------------------------------------------------------------


def _explore(known: _Known) -> RunProbe:
    settings = known.settings
    rate, why = _inside(settings, known.bracket, *_wanted(known))
    return RunProbe(
        side=known.side,
        rate_qps=rate,
        duration_s=_duration_s(known, rate),
        why=why,
        abort_above_misses=_most_misses_to_go_on(settings, rate),
    )


def _duration_s(known: _Known, rate: float) -> float:
    """Long enough for the misses that are wanted; near the knee, for as many spells of them.

    While no query was late the knee is far away, and what a verdict takes is enough.
    """
    settings = known.settings
    if settings.verdicts_only:
        return settings.probe_s
    if all(has_passed(settings, run) and not run.misses for run in known.runs):
        verdict_s = fewest_queries(0, settings.allowed_share) / rate
        return min(settings.full_s, max(settings.probe_s, verdict_s))
    wanted_s = fewest_queries(settings.misses_wanted, settings.allowed_share) / rate
    if known.knee is not None:
        wanted_s = min(
            max(wanted_s, settings.misses_wanted * known.knee.spell_queries / rate), settings.full_s * LONGEST
        )
    return min(settings.full_s, max(settings.probe_s, wanted_s))


def _wanted(known: _Known) -> tuple[float, str]:
    """The rate to try next, and why; the bracket is yet to be looked at."""
    bracket, knee = known.bracket, known.knee
    if not known.runs:
        return known.start_qps, "the first rate"
    if knee is not None and (bracket.low_qps is not None or len(known.runs) < len(STEPS)):
        rate = _aimed(knee)
        how = "extrapolated"
        if bracket.low_qps is not None and bracket.high_qps is not None:
            how = f"interpolated between {_qps(bracket.low_qps)} and {_qps(bracket.high_qps)}"
        return rate, f"{how} at {AIM * known.settings.allowed_share:.1%} misses"
    if bracket.low_qps is None:
        return _lower(known)
    if bracket.high_qps is None:
        return _higher(known, bracket.low_qps)
    return _between(known, bracket.low_qps, bracket.high_qps)


def _between(known: _Known, low_qps: float, high_qps: float) -> tuple[float, str]:
    """A rate between one that passed and one that failed, by what was answered beyond capacity, or by halves."""
    bracket, answered, near = known.bracket, _answered(known), 1 + known.settings.precision
    if answered is not None:
        beyond = f"{_qps(answered)}, which was answered beyond capacity"
        if bracket.holds(first := known.settings.rounded(SERVER_OVER_CAPACITY * answered)):
            return first, f"{SERVER_OVER_CAPACITY:.0%} of {beyond}"
        if low_qps * near < answered < high_qps:
            return low_qps * (answered / low_qps) ** NEAR_CAPACITY, f"just below {beyond}"
        above = known.settings.rounded(answered * near)
        if bracket.holds(above) and above * near < high_qps:  # nearer to what failed, halves are quicker
            return above, f"just above {beyond}"
    middle = math.sqrt(low_qps * high_qps)
    return middle, f"half way between {_qps(low_qps)}, which passed, and {_qps(high_qps)}, which failed"


def _lower(known: _Known) -> tuple[float, str]:
    lowest = min(_rate(run) for run in known.runs)
    answered = _answered(known)
    if answered is not None and (capacity := SERVER_OVER_CAPACITY * answered) < lowest:
        return capacity, f"{SERVER_OVER_CAPACITY:.0%} of {_qps(answered)}, which was answered beyond capacity"
    if known.knee is not None:  # so it is not far away, and the greatest steps would go too far
        why = f"{_qps(lowest)} failed, which the fitted line did not foresee"
        return min(lowest / NEARLY, _aimed(known.knee)), why
    factor = STEPS[min(len(known.runs), len(STEPS)) - 1]
    return lowest / factor, f"{_qps(lowest)} failed: {factor:g} times lower"


def _aimed(knee: Knee) -> float:
    return knee.rate_qps * math.pow(AIM, 1 / knee.slope)


def _higher(known: _Known, low_qps: float) -> tuple[float, str]:
    ceiling = known.settings.ceiling_qps
    if ceiling is not None and low_qps < NEAR_CEILING * ceiling:
        return math.sqrt(
            low_qps * ceiling
        ), f"half way between {_qps(low_qps)} and {_qps(ceiling)}, known to be too high"
    factor = STEPS[min(len(known.runs), len(STEPS)) - 1]
    return low_qps * factor, f"{_qps(low_qps)} passed: {factor:g} times higher"


def _overloaded(run: Probe) -> bool:
    return run.achieved_qps is not None and run.achieved_qps < OVERLOADED * _rate(run)


def _answered(known: _Known) -> float | None:
    """What the last overloaded run answered; None where none was."""
    rates = [run.achieved_qps for run in known.runs if run.achieved_qps and _overloaded(run)]
    return rates[-1] if rates else None


def _inside(settings: TuneSettings, bracket: Bracket, rate: float, why: str) -> tuple[float, str]:
    """The nearest rate that is well inside the bracket."""
    low, high = bracket.low_qps, bracket.high_qps
    if not bracket.holds(settings.rounded(rate)):
        if low is not None and high is not None:
            share = EDGE if rate <= low else 1 - EDGE
            rate = low * (high / low) ** share
        else:
            rate = low * BEYOND if low is not None else (high or rate) / BEYOND
        why += ", kept inside the bracket"
    rounded = settings.rounded(rate)
    if settings.whole_rates:
        return max(rounded, low + 1 if low is not None else rounded), why
    return (rounded if bracket.holds(rounded) else rate), why


def _floor_reached(known: _Known) -> bool:
    """Whether nothing passed, and going lower does not help."""
    if not known.runs or any(has_passed(known.settings, run) for run in known.runs):
        return False
    low, *others = sorted(known.runs, key=_rate)
    if _rate(low) * EXPLORED <= known.start_qps:
        return True
    return any(
        not _overloaded(run)
        and not _overloaded(low)
        and 2 * _rate(low) <= _rate(run)
        and low.percentile_latency_ms is not None
        and run.percentile_latency_ms is not None
        and low.percentile_latency_ms > run.percentile_latency_ms * (1 - FLOOR)
        for run in others
    )


# --- ends -------------------------------------------------------------------------------------------------------------


def _answer(known: _Known, best: float) -> Answer:
    settings = known.settings
    confirmed = [run for run in known.full if _rate(run) == best]
    below = [_rate(run) for run in known.runs if not has_passed(settings, run) and _rate(run) < best]
    why = f"{_qps(best)} passed {len(confirmed)} of {len(confirmed)} runs at full length"
    if below:
        why += f", although {_qps(min(below))} failed in another run"
    if known.knee is not None:
        why += f"; the fitted line crosses what is allowed at {_qps(known.knee.rate_qps)}"
        if known.knee.rate_qps > best * (1 + settings.precision):
            why += ", and runs scatter too much for a confirmation nearer to it"
    return Answer(
        side=known.side,
        rate_qps=best,
        achieved_qps=tuple(run.achieved_qps for run in confirmed),
        percentile_latency_ms=tuple(run.percentile_latency_ms for run in confirmed),
        bracket=known.bracket,
        noise=known.knee.noise if known.knee is not None else None,
        runs=len(known.runs),
        why=f"{why}.",
    )


def _inconclusive(known: _Known, what: str) -> Inconclusive:
    passed = [_rate(run) for run in known.full if has_passed(known.settings, run)]
    noise = known.knee.noise if known.knee is not None else None
    figures = [f"{len(passed)} of {len(known.full)} runs at full length passed"]
    if passed:
        often = max(sorted(set(passed), reverse=True), key=passed.count)
        runs = sum(_rate(run) == often for run in known.full)
        figures.append(f"{_qps(often)} most often, {passed.count(often)} of {runs} times")
    if known.knee is not None:
        figures.append(f"the line crosses at {_qps(known.knee.rate_qps)} with an error of {known.knee.error:.1%}")
    if noise is not None:
        figures.append(f"runs scatter by {noise:.1%} of the rate")
    return Inconclusive(side=known.side, why=f"{what}: {', '.join(figures)}.", bracket=known.bracket, noise=noise)


def _not_possible(known: _Known) -> NotPossible:
    latencies = [run.percentile_latency_ms for run in known.runs if run.percentile_latency_ms is not None]
    floor_ms = min(latencies, default=None)
    lowest = min(_rate(run) for run in known.runs)
    limit_ms = known.settings.latency_limit_ms
    measured = "no latency was measured" if floor_ms is None else f"the lowest latency measured is {floor_ms:.4g} ms"
    allowed = "" if limit_ms is None else f", and {limit_ms:.4g} ms are allowed"
    # By a rule of main's own the reason may be one that no rate changes.
    last = known.runs[-1].reason if known.settings.verdicts_only else ""
    said = f"; the last run: {last}" if last else ""
    return NotPossible(
        side=known.side,
        why=f"no rate down to {_qps(lowest)} passed: {measured}{allowed}{said}.",
        floor_ms=floor_ms,
    )


def _percent(logarithm: float) -> str:
    return f"{-math.expm1(-logarithm):.1%}"


def _qps(rate: float) -> str:
    return f"{rate:.5g} qps"
