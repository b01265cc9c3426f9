"""The figures of a tuning: how many queries were late at which rate, and how the bracket narrowed from run to run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from heteromig.campaign.knee import FAR
from heteromig.campaign.probes import Bracket, Side
from heteromig.report.drawing import (
    BAD,
    FAINT,
    GLYPH_PIXELS,
    INK,
    MAIN,
    MUTED,
    NARROW,
    OTHER,
    PAPER,
    SECOND,
    SETTINGS,
    WIDE,
    as_svg,
    blank,
)
from heteromig.report.tuning_story import SIDES, Fate, TunedRun, TunedSide, TuningStory

_MARKS: dict[Fate, dict[str, Any]] = {
    Fate.PASSED: {"marker": "o", "markersize": 9, "color": MAIN, "markeredgecolor": PAPER, "markeredgewidth": 0.8},
    Fate.FAILED: {"marker": "X", "markersize": 10, "color": BAD, "markeredgecolor": PAPER, "markeredgewidth": 0.8},
    Fate.ENDED: {"marker": "^", "markersize": 9, "color": PAPER, "markeredgecolor": BAD, "markeredgewidth": 1.6},
    Fate.NOTHING: {"marker": "s", "markersize": 7, "color": PAPER, "markeredgecolor": OTHER, "markeredgewidth": 1.4},
}
_RING: dict[str, Any] = {"marker": "o", "markersize": 16, "color": "none", "markeredgewidth": 1.2}
_EDGES = {Fate.PASSED: MAIN, Fate.FAILED: BAD, Fate.ENDED: BAD, Fate.NOTHING: OTHER}
_SURELY = 0.95
"""Of the allowed share: what LoadGen is sure of has a line of its own where it is less."""
_BAND = 0.12
"""How opaque a bracket is."""
_NONE_LATE = 0.4
"""Of the least share drawn: where runs are drawn in which no query was late, which has no logarithm."""
_MARGIN = 0.06
_MARK_PIXELS, _RING_PIXELS, _LINE_PIXELS = 6.0, 10.0, 13.0
_STEPS = ((1, 2, 5), (1, 3), (1,))
"""Of ticks within a decade, the finest of which there are few enough."""
_NEAR = 6.0
"""Below such a ratio of its ends an axis has even steps, although it is logarithmic."""

_Box = tuple[float, float, float, float]


def search(story: TuningStory, *, narrow: bool) -> str:
    """The share of late queries over the rate, a panel for each side; nothing where no run tells any."""
    sides = [side for side in story.sides if any(map(_is_drawn, story.of(side.side)))]
    if not story.searches or not sides:
        return ""
    runs = [run for run in story.runs if _is_drawn(run)]
    shares = [run.late_share for run in runs if run.late_share] + [story.settings.allowed_share]
    bottom_share = min(shares) * _NONE_LATE
    rates = _window([run.rate_qps for run in runs if run.rate_qps], [side.bracket for side in sides])
    heights = _window([*shares, bottom_share], [])
    width = NARROW if narrow else WIDE
    left, right, top, each, gap, bottom = 52, 12, 30, 190 if narrow else 210, 44, 30
    height = top + len(sides) * each + (len(sides) - 1) * gap + bottom
    with mpl.rc_context(SETTINGS):
        figure = blank(width, height)
        for number, side in enumerate(sides):
            y = height - top - (number + 1) * each - number * gap
            axes = figure.add_axes((left / width, y / height, (width - left - right) / width, each / height))
            _frame(axes, rates, heights)
            _rate_axis(axes, rates, across=True)
            _share_axis(axes, heights, bottom_share, none_late=any(run.late_share == 0 for run in runs))
            _draw_band(axes, side.bracket, rates)
            taken = _draw_allowed(axes, story, side)
            _draw_knee(axes, side, rates, heights)
            _headline(axes, side, narrow=narrow)
            drawn = [run for run in story.of(side.side) if _is_drawn(run)]
            _draw_runs(axes, drawn, [(run.rate_qps or 0.0, run.late_share or bottom_share) for run in drawn], taken)
        return as_svg(figure, f"search-{'narrow' if narrow else 'wide'}")


def history(story: TuningStory, *, narrow: bool) -> str:
    """The rate by run, with the bracket as it was known; nothing where runs have no rate."""
    drawn = [(run, _rate_of(story, run)) for run in story.runs]
    rated = [(run, rate) for run, rate in drawn if rate]
    if not rated:
        return ""
    width = NARROW if narrow else WIDE
    left, right, top, bottom = 66, 12, 30, 34
    height = 280 if narrow else 320
    window = (0.5, len(story.runs) + 0.5)
    rates = _window([rate for _, rate in rated], [run.bracket for run in story.runs])
    with mpl.rc_context(SETTINGS):
        figure = blank(width, height)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        )
        _frame(axes, window, rates, logarithmic=False)
        _rate_axis(axes, rates, across=False)
        _run_axis(axes, window)
        for side, group in groupby(story.runs, key=lambda run: run.side):
            _draw_side(axes, side, list(group), rates)
        for told in story.sides:
            answer = told.answer
            own = story.of(told.side)
            if answer is not None and answer.rate_qps is not None and story.searches and own:
                span = (own[0].number - 0.5, own[-1].number + 0.5)
                axes.hlines([answer.rate_qps], *span, color=MAIN, linewidth=1.2, linestyle=(0, (5, 3)), zorder=3)
        _draw_runs(axes, [run for run, _ in rated], [(run.number, rate) for run, rate in rated], [], numbered=False)
        return as_svg(figure, f"history-{'narrow' if narrow else 'wide'}")


def _is_drawn(run: TunedRun) -> bool:
    return run.rate_qps is not None and run.late_share is not None


def _rate_of(story: TuningStory, run: TunedRun) -> float | None:
    """What was asked for where that is searched, else what was measured."""
    return run.rate_qps if story.searches else run.achieved_qps


def _window(values: Sequence[float], brackets: Sequence[Bracket]) -> tuple[float, float]:
    """From the least to the greatest and a little more, by their ratio."""
    ends = [end for one in brackets for end in (one.low_qps, one.high_qps) if end]
    low, high = min([*values, *ends]), max([*values, *ends])
    margin = max((high / low) ** _MARGIN, 1.02)
    return low / margin, high * margin


def _frame(axes: Axes, across: tuple[float, float], up: tuple[float, float], *, logarithmic: bool = True) -> None:
    axes.set_axis_off()
    if logarithmic:
        axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*across)
    axes.set_ylim(*up)


def _ticks(window: tuple[float, float], most: int) -> list[float]:
    low, high = window
    if high / low < _NEAR:
        found = MaxNLocator(nbins=most, steps=[1, 2, 5, 10], min_n_ticks=2).tick_values(low, high)
        return [float(tick) for tick in found if low <= tick <= high]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def _rate_axis(axes: Axes, window: tuple[float, float], *, across: bool) -> None:
    """Grid and labels of rates, on one of the axes; an `Axis` of matplotlib's costs ten times as much."""
    for tick in _ticks(window, 4 if axes.bbox.width < NARROW else 8):
        place: dict[str, Any] = {"textcoords": "offset points", "color": MUTED, "fontsize": 10}
        if across:
            axes.axvline(tick, color=FAINT, linewidth=0.6, zorder=0)
            axes.annotate(
                f"{tick:.6g} qps", (tick, 0), xytext=(0, -6), xycoords=("data", "axes fraction"), ha="center", va="top",
                **place,
            )  # fmt: skip
        else:
            axes.axhline(tick, color=FAINT, linewidth=0.6, zorder=0)
            axes.annotate(
                f"{tick:.6g} qps", (0, tick), xytext=(-6, 0), xycoords=("axes fraction", "data"), ha="right",
                va="center", **place,
            )  # fmt: skip
    axes.axhline(axes.get_ylim()[0], color=MUTED, linewidth=0.8, zorder=1)


def _share_axis(axes: Axes, window: tuple[float, float], bottom_share: float, *, none_late: bool) -> None:
    ticks = [tick for tick in _ticks((bottom_share * 1.5, window[1]), 5) if tick <= 1]
    axes.hlines(ticks, *axes.get_xlim(), color=FAINT, linewidth=0.6, zorder=0)
    labels = [(tick, f"{100 * tick:.3g} %") for tick in ticks] + ([(bottom_share, "none")] if none_late else [])
    for at, words in labels:
        axes.annotate(
            words, (0, at), xytext=(-6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=MUTED, fontsize=10, ha="right", va="center",
        )  # fmt: skip


def _run_axis(axes: Axes, window: tuple[float, float]) -> None:
    last = math.floor(window[1])
    every = max(1, math.ceil(last / (9 if axes.bbox.width < NARROW else 24)))
    for number in range(1, last + 1, every):
        axes.annotate(
            f"run {number}" if number == 1 else f"{number}", (number, 0), xytext=(0, -6),
            xycoords=("data", "axes fraction"), textcoords="offset points", color=MUTED, fontsize=10, ha="center",
            va="top",
        )  # fmt: skip


def _draw_band(axes: Axes, found: Bracket, rates: tuple[float, float]) -> None:
    if found.low_qps is None and found.high_qps is None:
        return
    axes.axvspan(found.low_qps or rates[0], found.high_qps or rates[1], color=MAIN, alpha=_BAND, linewidth=0, zorder=0)
    for end in filter(None, (found.low_qps, found.high_qps)):
        axes.axvline(end, color=MAIN, linewidth=0.8, zorder=1, dashes=(3, 2))


def _draw_allowed(axes: Axes, story: TuningStory, side: TunedSide) -> list[_Box]:
    """The share that may be late, and the lesser one with which LoadGen is sure of it; the boxes of their labels."""
    share = story.settings.allowed_share
    axes.axhline(share, color=BAD, linewidth=1.0, zorder=1, dashes=(6, 3))
    boxes = [_line_label(axes, share, f"{100 * share:.3g} % may be late", above=True)]
    if side.knee is not None and side.knee.share < _SURELY * share:
        axes.axhline(side.knee.share, color=BAD, linewidth=0.8, zorder=1, dashes=(1, 3))
        words = f"{100 * side.knee.share:.2g} % passes for sure"
        boxes.append(_line_label(axes, side.knee.share, words, above=False))
    return boxes


def _line_label(axes: Axes, share: float, words: str, *, above: bool) -> _Box:
    """Words at the right end of a level line, and their box."""
    axes.annotate(
        words, (1, share), xytext=(-4, 3 if above else -3), xycoords=("axes fraction", "data"),
        textcoords="offset points", color=BAD, fontsize=10, ha="right", va="bottom" if above else "top", zorder=3,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip
    x, y = axes.bbox.x1 - 4, float(axes.transData.transform((1, share))[1])
    low, high = (y + 3, y + 3 + _LINE_PIXELS) if above else (y - 3 - _LINE_PIXELS, y - 3)
    return (x - GLYPH_PIXELS * len(words), low, x, high)


def _draw_knee(axes: Axes, side: TunedSide, rates: tuple[float, float], heights: tuple[float, float]) -> None:
    """The fitted line, where runs tell of it."""
    knee = side.knee
    if knee is None:
        return
    ends = [knee.rate_qps * math.exp(math.log(factor) / knee.slope) for factor in (1 / FAR, FAR / 2)]
    points = [max(ends[0], rates[0]), min(ends[1], rates[1])]
    if points[0] >= points[1]:
        return
    shares = [knee.share_at(rate) for rate in points]
    axes.plot(points, shares, color=SECOND, linewidth=1.4, zorder=2, clip_on=True)
    axes.set_ylim(*heights)


def _headline(axes: Axes, side: TunedSide, *, narrow: bool) -> None:
    """Whose panel it is, and its answer."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    axes.annotate(SIDES[side.side], (0, 1), xytext=(0, 7), color=INK, weight="bold", ha="left", **place)
    answer = side.answer
    if answer is not None and answer.rate_qps is not None:
        axes.axvline(answer.rate_qps, color=MAIN, linewidth=1.4, zorder=1, dashes=(5, 3))
        words = f"{answer.rate_qps:.5g} qps" if narrow else f"answer: {answer.rate_qps:.5g} qps"
        axes.annotate(words, (1, 1), xytext=(0, 7), color=MAIN, weight="bold", ha="right", **place)


def _draw_side(axes: Axes, side: Side, runs: Sequence[TunedRun], rates: tuple[float, float]) -> None:
    """The bracket after each run, until the next one has ended, and where the side begins."""
    begin = runs[0].number - 0.5
    if begin > 1:
        axes.axvline(begin, color=MUTED, linewidth=0.8, zorder=1)
    words = SIDES[side]
    room = len(runs) * axes.bbox.width / (axes.get_xlim()[1] - axes.get_xlim()[0])
    if room < (GLYPH_PIXELS + 1) * len(words):
        words = words.split()[0]
    axes.annotate(
        words, (begin, 1), xytext=(4, 7), xycoords=("data", "axes fraction"), textcoords="offset points", color=INK,
        weight="bold", ha="left", va="bottom",
    )  # fmt: skip
    last = runs[-1].number
    for run in runs:
        found = run.bracket
        if found.low_qps is None and found.high_qps is None:
            continue
        ends = (run.number, min(run.number + 1, last + 0.5))
        axes.fill_between(
            ends, found.low_qps or rates[0], found.high_qps or rates[1], color=MAIN, alpha=_BAND, linewidth=0, zorder=0
        )
        known = [end for end in (found.low_qps, found.high_qps) if end]
        axes.hlines(known, *ends, color=MAIN, linewidth=0.8, zorder=1)


def _draw_runs(
    axes: Axes,
    runs: Sequence[TunedRun],
    points: Sequence[tuple[float, float]],
    taken: list[_Box],
    *,
    numbered: bool = True,
) -> None:
    """A mark for each run, with a ring at full length, and its number where there is room for it."""
    places = [tuple(map(float, axes.transData.transform(point))) for point in points]
    by_fate: dict[Fate, list[tuple[TunedRun, tuple[float, float]]]] = {}
    for run, point in zip(runs, points, strict=True):
        by_fate.setdefault(run.fate, []).append((run, point))
    for fate, found in by_fate.items():
        _draw_marks(axes, [point for _, point in found], _MARKS[fate])
        _draw_marks(axes, [point for run, point in found if run.is_full], {**_RING, "markeredgecolor": _EDGES[fate]})
    if not numbered:
        return
    sizes = [_RING_PIXELS if run.is_full else _MARK_PIXELS for run in runs]
    taken += [(x - size, y - size, x + size, y + size) for (x, y), size in zip(places, sizes, strict=True)]
    inside = axes.bbox
    for run, (x, y), size in zip(runs, places, sizes, strict=True):
        words = f"{run.number}"
        wide = GLYPH_PIXELS * len(words) + 2
        for box in _spots(x, y, size, wide):
            if box[0] < inside.x0 or box[2] > inside.x1 or box[1] < inside.y0 or box[3] > inside.y1:
                continue
            if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                continue
            axes.annotate(
                words, (box[0] + wide / 2, (box[1] + box[3]) / 2), xycoords="figure pixels", color=INK, fontsize=10,
                ha="center", va="center", zorder=6,
            )  # fmt: skip
            taken.append(box)
            break


def _draw_marks(axes: Axes, points: Sequence[tuple[float, float]], look: dict[str, Any]) -> None:
    """All marks of a look at once, whose shape is then in the page once."""
    if points:
        axes.plot(*zip(*points, strict=True), linestyle="none", zorder=4, clip_on=False, **look)


def _spots(x: float, y: float, size: float, wide: float) -> Iterator[_Box]:
    """Where a number may stand: to the right of its mark, to the left, above, below."""
    half = _LINE_PIXELS / 2
    yield (x + size, y - half, x + size + wide, y + half)
    yield (x - size - wide, y - half, x - size, y + half)
    yield (x - wide / 2, y + size, x + wide / 2, y + size + _LINE_PIXELS)
    yield (x - wide / 2, y - size - _LINE_PIXELS, x + wide / 2, y - size)
