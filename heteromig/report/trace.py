"""The timeline as Chrome trace events, for Perfetto and chrome://tracing.

Format: "Trace Event Format", Google, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: the
object form; `X` are complete events, `i` instants, `C` counters, `M` metadata; `ts` and `dur` are microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from heteromig.report.story import Story

_RUN = 0
"""The process that stands for the run itself; GPUs are numbered from 1."""
_PHASES = 0
"""Its only thread. The threads of GPUs are their slices, from 1."""
_US_PER_S = 1e6

TraceEvent = dict[str, Any]


def trace(story: Story) -> str:
    """One JSON object; every sample is in it, not only what a figure shows."""
    everything = {
        "displayTimeUnit": "ms",
        "otherData": {
            "run": story.run_id,
            "verdict": story.headline.status,
            "sentence": story.headline.sentence,
            "simulated": story.simulated,
            "isolation": story.isolation,
            "started_at": story.started_at,
        },
        "traceEvents": list(_events(story)),
    }
    return msgspec.json.encode(everything).decode() + "\n"


def _events(story: Story) -> Iterator[TraceEvent]:
    gpus = {uuid: number for number, uuid in enumerate(dict.fromkeys(lane.gpu_uuid for lane in story.lanes), start=1)}
    names = {board.uuid: board.name for board in story.boards}
    yield from _named("process", _RUN, 0, f"run {story.run_id}", 0)
    yield from _named("thread", _RUN, _PHASES, "phases", 0)
    for uuid, number in gpus.items():
        yield from _named("process", number, 0, f"{names.get(uuid, 'GPU')} {uuid}", number)
    places: dict[str, tuple[int, int]] = {}
    for number, lane in enumerate(story.lanes, start=1):
        places[lane.slice_uuid] = (gpus[lane.gpu_uuid], number)
        yield from _named("thread", gpus[lane.gpu_uuid], number, f"{lane.label}, {lane.profile} {lane.name}", number)
    for stay in story.stays:
        yield _complete(stay.name, "phase", (_RUN, _PHASES), (stay.begin_s, stay.end_s), {})
    yield from _slices(story, places)
    yield from _markers(story, places)
    yield from _counters(story, gpus)


def _slices(story: Story, places: Mapping[str, tuple[int, int]]) -> Iterator[TraceEvent]:
    workers = {one.index: one for one in story.workers}
    for lane in story.lanes:
        for interval in lane.intervals:
            worker = workers[interval.worker]
            yield _complete(
                f"{interval.kind.value} {worker.benchmark}",
                interval.kind.value,
                places[lane.slice_uuid],
                (interval.begin_s, interval.end_s),
                {"worker": worker.index, "role": worker.role.value, "slice": lane.slice_uuid},
            )
            for gap in lane.gaps:  # in pieces that lie within one interval: only what is nested is drawn
                begin_s, end_s = max(gap.begin_s, interval.begin_s), min(gap.end_s, interval.end_s)
                if begin_s < end_s and lane.worker is not None and interval.worker == lane.worker.index:
                    args = {"worker": worker.index, "seen_by": gap.seen_by}
                    yield _complete(f"gap {worker.benchmark}", "gap", places[lane.slice_uuid], (begin_s, end_s), args)


def _markers(story: Story, places: Mapping[str, tuple[int, int]]) -> Iterator[TraceEvent]:
    workers = {one.index: one for one in story.workers}
    for mark in story.marks:
        worker = workers.get(mark.worker) if mark.worker is not None else None
        place = places.get(worker.slice_uuid) if worker is not None else None
        name = mark.what if worker is None else f"{worker.benchmark}: {mark.what}"
        yield _instant(name, place or (_RUN, _PHASES), mark.at_s, "g" if place is None else "t")
    if story.section is not None:
        for name, at_s in (("main's first query", story.section.begin_s), ("main's end", story.section.end_s)):
            yield _instant(name, (_RUN, _PHASES), at_s, "g")


def _counters(story: Story, gpus: Mapping[str, int]) -> Iterator[TraceEvent]:
    for one in story.instruments:
        for chart in one.charts:
            for series in chart.drawn:
                name = f"{one.title}: {series.name} ({series.unit})"
                for at_s, value in zip(series.times_s, series.values, strict=True):
                    yield {
                        "ph": "C",
                        "name": name,
                        "pid": gpus[one.gpu_uuid],
                        "tid": 0,
                        "ts": _us(at_s),
                        "args": {series.name: value},
                    }


def _named(what: str, pid: int, tid: int, name: str, order: int) -> Iterator[TraceEvent]:
    common = {"ph": "M", "pid": pid, "tid": tid, "ts": 0}
    yield {**common, "name": f"{what}_name", "args": {"name": name}}
    yield {**common, "name": f"{what}_sort_index", "args": {"sort_index": order}}


def _complete(
    name: str, category: str, place: tuple[int, int], times_s: tuple[float, float], args: TraceEvent
) -> TraceEvent:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": place[0],
        "tid": place[1],
        "ts": _us(times_s[0]),
        "dur": _us(times_s[1] - times_s[0]),
        "args": args,
    }


def _instant(name: str, place: tuple[int, int], at_s: float, scope: str) -> TraceEvent:
    return {"ph": "i", "name": name, "pid": place[0], "tid": place[1], "ts": _us(at_s), "s": scope}


def _us(seconds: float) -> float:
    return round(seconds * _US_PER_S, 3)
