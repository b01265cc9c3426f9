"""Every figure of the page of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import MaxNLocator

from heteromig.report.downsampling import thinned
from heteromig.report.drawing import (
    BAD,
    BUILD,
    FAINT,
    GLYPH_PIXELS,
    INK,
    MAIN,
    MAIN_FAINT,
    MAIN_SOFT,
    MUTED,
    NARROW,
    OTHER,
    OTHER_FAINT,
    OTHER_SOFT,
    PAPER,
    SECOND,
    SETTINGS,
    THIRD,
    VARIABLES,
    WIDE,
    as_svg,
    blank,
    cropped,
)
from heteromig.report.story import Instrument, Kind, Lane, Story
from heteromig.report.words import seconds_words, slack_with_uncertainty

_SMALL = 420
"""How wide a figure of readings is."""

_FILLS = {
    Kind.BUILD: (BUILD, BUILD),
    Kind.START: (MAIN_FAINT, OTHER_FAINT),
    Kind.ANNOUNCED: (MAIN_SOFT, OTHER_SOFT),
    Kind.TIMED: (MAIN_SOFT, OTHER_SOFT),
    Kind.BUSY: (MAIN, OTHER),
    Kind.STOP: (MAIN_FAINT, OTHER_FAINT),
}
"""How an interval is filled, on main's slice and on others."""
_HATCHES = {Kind.ANNOUNCED: "////"}
_SERIES_COLOURS = (MAIN, SECOND, THIRD)


def timeline(story: Story, *, narrow: bool) -> str:
    """The whole run, a lane for each slice."""
    window = (0.0, max(story.length_s, 0.001))
    return _lanes(story, window, "timeline", narrow=narrow)


def close_ups(story: Story, *, narrow: bool) -> Iterator[tuple[str, str]]:
    """(`begin` or `end`, figure): the surroundings of main's first and last moment, with the slack of each background.

    Nothing where main has no timed section, or no neighbours.
    """
    section = story.section
    if section is None or not story.backgrounds:
        return
    timed = list(_ends(story))
    for name, at_s, others in (
        ("begin", section.begin_s, [one.begin_s for one in timed]),
        ("end", section.end_s, [one.end_s for one in timed]),
    ):
        window = _window(at_s, others, section.end_s - section.begin_s, begin=name == "begin")
        yield name, _lanes(story, (max(window[0], 0.0), min(window[1], story.length_s)), name, narrow=narrow)


def _window(at_s: float, others: Sequence[float], length_s: float, *, begin: bool) -> tuple[float, float]:
    """From the farthest end of a background outside main to a little inside, or to the farthest that lies inside."""
    away_s = max([abs(at_s - other) for other in others] + [0.002 * length_s, 0.01])
    inside = [abs(at_s - other) + 0.1 * away_s for other in others if (other > at_s) == begin]
    inside_s = max([min(0.35 * away_s, length_s), *inside])
    outside_s = 1.15 * away_s
    return (at_s - outside_s, at_s + inside_s) if begin else (at_s - inside_s, at_s + outside_s)


class _Timed:
    """The timed section of a background, in seconds since the run began."""

    def __init__(self, lane: Lane) -> None:
        timed = [one for one in lane.intervals if one.kind in {Kind.ANNOUNCED, Kind.TIMED, Kind.BUSY}]
        exact = [one for one in timed if one.kind is not Kind.ANNOUNCED] or timed
        self.begin_s = exact[0].begin_s
        self.end_s = exact[-1].end_s


def _ends(story: Story) -> Iterator[_Timed]:
    for lane in story.lanes:
        if not lane.is_main and lane.worker is not None and _has_section(lane):
            yield _Timed(lane)


def _has_section(lane: Lane) -> bool:
    return any(one.kind in {Kind.ANNOUNCED, Kind.TIMED, Kind.BUSY} for one in lane.intervals)


def _lanes(story: Story, window: tuple[float, float], name: str, *, narrow: bool) -> str:
    width = NARROW if narrow else WIDE
    slack = name in {"begin", "end"}
    pitch = 40 if narrow else 34
    top, bottom = (26, 40) if narrow else (28, 42)
    height = top + pitch * len(story.lanes) + bottom
    left, right = (8, 8) if narrow else (168, 188 if slack else 16)
    with mpl.rc_context(SETTINGS):
        figure = blank(width, height)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, pitch * len(story.lanes) / height)
        )
        axes.set_axis_off()
        axes.set_xlim(*window)
        axes.set_ylim(len(story.lanes), 0)
        _draw_phases(axes, story, window, labels=not narrow or not slack, pixels=width - left - right)
        if story.section is not None:
            axes.axvspan(story.section.begin_s, story.section.end_s, color=MAIN, alpha=0.08, linewidth=0, zorder=0)
            for at_s in (story.section.begin_s, story.section.end_s):
                axes.axvline(at_s, color=MAIN, linewidth=1.0, zorder=3, dashes=(3, 2))
        bars = (0.44, 0.86) if narrow else (0.2, 0.8)
        _draw_bars(axes, story, window, bars)
        _draw_gaps(axes, story, window, bars)
        axes.hlines(range(1, len(story.lanes) + 1), *window, color=FAINT, linewidth=0.6, zorder=0)
        for row, lane in enumerate(story.lanes):
            middle = row + sum(bars) / 2
            _draw_deaths(axes, story, lane, middle, window)
            _draw_open_end(axes, lane, middle, window)
            if slack:
                _draw_slack(axes, story, lane, middle, window, begin=name == "begin")
            _label_lane(axes, lane, row, name if slack else "", narrow=narrow)
        _draw_run_marks(axes, story, window)
        _time_axis(axes, window)
        return as_svg(figure, f"{name}-{'narrow' if narrow else 'wide'}")


def _draw_phases(axes: Axes, story: Story, window: tuple[float, float], *, labels: bool, pixels: int) -> None:
    """A thin line where each phase begins, and its name above where there is room for it."""
    per_s = pixels / (window[1] - window[0])
    _phase_lines(axes, story, window)
    for stay in story.stays:
        begin_s, end_s = max(stay.begin_s, window[0]), min(stay.end_s, window[1])
        if end_s <= begin_s:
            continue
        room = (end_s - begin_s) * per_s
        if labels and room > GLYPH_PIXELS * len(stay.name) + 6:
            axes.text(
                begin_s, -0.12, f" {stay.name}", color=MUTED, fontsize=10, va="bottom", ha="left", parse_math=False
            )


def _phase_lines(axes: Axes, story: Story, window: tuple[float, float]) -> None:
    begins = [stay.begin_s for stay in story.stays if window[0] < stay.begin_s < window[1]]
    axes.vlines(begins, 0, 1, transform=axes.get_xaxis_transform(), color=FAINT, linewidth=0.8, zorder=0)


def _draw_bars(axes: Axes, story: Story, window: tuple[float, float], bars: tuple[float, float]) -> None:
    """All intervals of all lanes in as few artists as there are hatches: artists are what a figure costs."""
    boxes: dict[str | None, list[tuple[list[tuple[float, float]], str]]] = {}
    for row, lane in enumerate(story.lanes):
        for interval in lane.intervals:
            begin_s, end_s = max(interval.begin_s, window[0]), min(interval.end_s, window[1])
            if end_s <= begin_s:
                continue
            inset = 0.16 * (bars[1] - bars[0]) if interval.kind in {Kind.BUILD, Kind.START, Kind.STOP} else 0.0
            top, bottom = row + bars[0] + inset, row + bars[1] - inset
            box = [(begin_s, top), (end_s, top), (end_s, bottom), (begin_s, bottom)]
            fill = _FILLS[interval.kind][0 if lane.is_main else 1]
            boxes.setdefault(_HATCHES.get(interval.kind), []).append((box, fill))
    for hatch, found in boxes.items():
        axes.add_collection(
            PolyCollection(
                [box for box, _ in found],
                facecolors=[fill for _, fill in found],
                edgecolors=PAPER,
                linewidths=0.5,
                hatch=hatch,
                zorder=2,
            ),
            autolim=False,
        )


def _draw_gaps(axes: Axes, story: Story, window: tuple[float, float], bars: tuple[float, float]) -> None:
    """Where a background stalled: hatched in red, with its length where there is room for it."""
    found = [
        (row, max(gap.begin_s, window[0]), min(gap.end_s, window[1]), gap.end_s - gap.begin_s)
        for row, lane in enumerate(story.lanes)
        for gap in lane.gaps
    ]
    found = [one for one in found if one[1] < one[2]]
    if not found:
        return
    top, bottom = bars
    axes.add_collection(
        PolyCollection(
            [
                [(begin, row + top), (end, row + top), (end, row + bottom), (begin, row + bottom)]
                for row, begin, end, _ in found
            ],
            facecolors=PAPER,
            edgecolors=BAD,
            linewidths=0.9,
            hatch="////",
            zorder=4,
        ),
        autolim=False,
    )
    pixels_per_s = axes.bbox.width / (window[1] - window[0])
    for row, begin_s, end_s, length_s in found:
        words = f"gap {length_s:.1f} s"
        if (end_s - begin_s) * pixels_per_s > GLYPH_PIXELS * len(words) + 8:
            axes.text(
                (begin_s + end_s) / 2, row + (top + bottom) / 2, words, color=BAD, fontsize=10, weight="bold",
                ha="center", va="center", zorder=5, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
                parse_math=False,
            )  # fmt: skip


def _draw_open_end(axes: Axes, lane: Lane, middle: float, window: tuple[float, float]) -> None:
    """An arrowhead where a run ends and its background goes on."""
    if lane.worker is None or not lane.worker.went_on or not lane.intervals:
        return
    at_s = lane.intervals[-1].end_s
    if window[0] <= at_s <= window[1]:
        axes.plot(
            [at_s], [middle], marker=9, markersize=11, color=OTHER, markeredgecolor=PAPER, markeredgewidth=0.8,
            zorder=6, clip_on=False,
        )  # fmt: skip


def _draw_deaths(axes: Axes, story: Story, lane: Lane, middle: float, window: tuple[float, float]) -> None:
    if lane.worker is None:
        return
    here = {lane.worker.index, *(one.worker for one in lane.intervals)}
    for mark in story.marks:
        if mark.bad and mark.worker in here and window[0] <= mark.at_s <= window[1]:
            axes.plot(
                [mark.at_s], [middle], marker="X", markersize=9, color=BAD, markeredgecolor=PAPER,
                markeredgewidth=0.8, zorder=6, clip_on=False,
            )  # fmt: skip


def _draw_slack(
    axes: Axes, story: Story, lane: Lane, middle: float, window: tuple[float, float], *, begin: bool
) -> None:
    """An arrow between an end of main and that of a background, red where it is the wrong way round."""
    section = story.section
    if section is None or lane.overlap is None or not _has_section(lane):
        return
    timed = _Timed(lane)
    main_s, other_s = (section.begin_s, timed.begin_s) if begin else (section.end_s, timed.end_s)
    slack_s = lane.overlap.slack_before_s if begin else lane.overlap.slack_after_s
    if slack_s is None or main_s == other_s:
        return
    axes.annotate(
        "",
        xy=(main_s, middle),
        xytext=(min(max(other_s, window[0]), window[1]), middle),
        arrowprops={
            "arrowstyle": "<->", "color": PAPER if slack_s > 0 else BAD, "lw": 1.2, "shrinkA": 1, "shrinkB": 1,
        },
        zorder=5,
    )  # fmt: skip


def _label_lane(axes: Axes, lane: Lane, row: int, close_up: str, *, narrow: bool) -> None:
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False, "parse_math": False}
    colour = MAIN if lane.is_main else INK
    weight = "bold" if lane.is_main else "normal"
    slack, slack_colour = _slack_label(lane, close_up)
    below = f"{lane.profile} {lane.name}"
    if narrow:
        behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
        axes.text(
            0.0, row + 0.22, cropped(lane.label, 22), color=colour, weight=weight, va="center", zorder=7, bbox=behind,
            **place,
        )  # fmt: skip
        axes.text(
            1.0, row + 0.22, slack if close_up else below, color=slack_colour if close_up else MUTED, fontsize=10,
            ha="right", va="center", zorder=7, bbox=behind, **place,
        )  # fmt: skip
        return
    axes.text(
        -0.012, row + 0.36, cropped(lane.label, 23), color=colour, weight=weight, ha="right", va="center", **place
    )
    axes.text(-0.012, row + 0.72, cropped(below, 27), color=MUTED, fontsize=10, ha="right", va="center", **place)
    if close_up:
        axes.text(1.015, row + 0.5, slack, color=slack_colour, fontsize=11, ha="left", va="center", **place)


def _slack_label(lane: Lane, close_up: str) -> tuple[str, str]:
    if lane.is_main:
        return "main", MAIN
    if lane.overlap is None or not close_up:
        return "", MUTED
    slack_s = lane.overlap.slack_before_s if close_up == "begin" else lane.overlap.slack_after_s
    wrong = slack_s is not None and slack_s < (lane.overlap.uncertainty_s or 0.0)
    return slack_with_uncertainty(slack_s, lane.overlap.uncertainty_s), BAD if wrong or slack_s is None else INK


def _draw_run_marks(axes: Axes, story: Story, window: tuple[float, float]) -> None:
    for mark in story.marks:
        if mark.worker is None and mark.bad and window[0] <= mark.at_s <= window[1]:
            axes.axvline(mark.at_s, color=BAD, linewidth=1.2, zorder=4)


def instrument(story: Story, one: Instrument, name: str) -> str:
    """All that was read of one slice or one GPU, on one axis of time; nothing where there is nothing to draw."""
    charts = [chart for chart in one.charts if chart.drawn]
    if not charts:
        return ""
    each, gap, top, bottom, left, right = 84, 24, 24, 34, 56, 10
    height = top + len(charts) * each + (len(charts) - 1) * gap + bottom
    window = (0.0, max(story.length_s, 0.001))
    with mpl.rc_context(SETTINGS):
        figure = blank(_SMALL, height)
        for number, chart in enumerate(charts):
            y = height - top - (number + 1) * each - number * gap
            axes = figure.add_axes((left / _SMALL, y / height, (_SMALL - left - right) / _SMALL, each / height))
            axes.set_axis_off()
            axes.set_xlim(*window)
            colours = _SERIES_COLOURS if one.is_main else (OTHER, SECOND, THIRD)
            _draw_main_phase(axes, story, window)
            for colour, series in zip(colours, chart.drawn, strict=False):
                times_s, values = thinned(series.times_s, series.values, window, _SMALL - left - right)
                axes.plot(times_s, values, color=colour, linewidth=1.3, solid_joinstyle="round")
            _legend(axes, f"{chart.name}, {chart.unit}", [series.name for series in chart.drawn], colours)
            _value_axis(axes, window)
            if number + 1 == len(charts):
                _time_axis(axes, window)
        return as_svg(figure, name)


def _draw_main_phase(axes: Axes, story: Story, window: tuple[float, float]) -> None:
    _phase_lines(axes, story, window)
    if story.section is not None:
        axes.axvspan(story.section.begin_s, story.section.end_s, color=MAIN, alpha=0.08, linewidth=0, zorder=0)


def _legend(axes: Axes, title: str, names: Sequence[str], colours: Sequence[str]) -> None:
    """The title, and where there are several series their names in their colours, in one line above the axes."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 10}
    axes.annotate(title, (0, 1), xytext=(0, 5), color=MUTED, ha="left", va="bottom", parse_math=False, **place)
    if len(names) > 1:
        offset = 0.0
        for name, colour in reversed(list(zip(names, colours, strict=False))):
            axes.annotate(
                name, (1, 1), xytext=(-offset, 5), color=colour, weight="bold", ha="right", va="bottom",
                parse_math=False, **place,
            )  # fmt: skip
            offset += 6.6 * len(name) + 10


def _value_axis(axes: Axes, window: tuple[float, float]) -> None:
    """From 0, so that heights can be compared. Grid and labels are drawn here: an `Axis` costs ten times as much."""
    low, high = axes.get_ylim()
    low, high = min(0.0, low), high if high > 0 else 1.0
    axes.set_ylim(low, high)
    ticks = [tick for tick in MaxNLocator(nbins=3, min_n_ticks=2).tick_values(low, high) if low <= tick <= high]
    axes.hlines(ticks, *window, color=FAINT, linewidth=0.6, zorder=0)
    for tick in ticks:
        axes.annotate(
            f"{tick:,.10g}", (0, tick), xytext=(-5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=MUTED, fontsize=10, ha="right", va="center",
        )  # fmt: skip


def _time_axis(axes: Axes, window: tuple[float, float]) -> None:
    low, high = axes.get_ylim()
    axes.hlines([max(low, high) if axes.yaxis_inverted() else low], *window, color=MUTED, linewidth=0.6, zorder=1)
    locator = MaxNLocator(nbins=6, steps=[1, 2, 3, 5, 6, 10], min_n_ticks=2)
    span_s = window[1] - window[0]
    for tick in locator.tick_values(*window):
        if window[0] <= tick <= window[1]:
            axes.annotate(
                seconds_words(tick, span_s), (tick, 0), xytext=(0, -5), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=MUTED, fontsize=10, ha="center", va="top",
            )  # fmt: skip


def legend_rows() -> Iterator[tuple[Kind, str, str]]:
    """What fills mean: the kind, and the style sheet's names of its colours, on main's slice and on others."""
    for kind, (main, other) in _FILLS.items():
        yield kind, VARIABLES[main], VARIABLES[other]
