"""Markdown, the trace, and the page as text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from heteromig.core.clocks import ClockCheck
from heteromig.core.degradation import Better, Change, Degradation, Estimate, Judgement, Metric
from heteromig.core.overlap import Silence, Watch
from heteromig.report.making import Format, report
from heteromig.report.markdown import markdown
from heteromig.report.run_page import render
from heteromig.report.story import Gap, Story
from heteromig.report.telling import tell
from heteromig.report.trace import trace
from heteromig.views.text import markdown_text
from heteromig.views.verdict_text import clock_words
from tests.e2e.product import REPOSITORY
from tests.report.elements import Elements

DEGRADATION = Degradation(
    change=Change(
        metric=Metric("qps", "throughput", "samples/s", Better.MORE, "slower", "faster"),
        first=1000.0,
        second=930.0,
        estimate=Estimate(-0.07, -0.08, -0.06, 3),
        judgement=Judgement.WORSE,
        words="7.0 % slower",
    ),
    baselines=("20260101T000000Z-resnet50-offline-baseline",),
    sentence="Against main alone, 7.0 % slower (95 % interval from 8.0 % slower to 6.0 % slower, n = 3).",
    remarks=("The host was <busy> meanwhile.",),
)

# --- Markdown ---------------------------------------------------------------------------------------------------------


def test_markdown_says_the_verdict_the_result_the_overlap_and_how_to_verify(invalid: Path) -> None:
    text = report(invalid, Format.MD)
    lines = text.splitlines()
    assert lines[0].startswith("**INVALID (exit 4):** Background ")
    assert "**SIMULATED: no GPU was involved, and this is not a measurement of a GPU.**" in lines
    assert any(line.startswith("Main: resnet50 offline, performance") for line in lines)
    assert any(line.startswith("Overlap NOT proven: at worst coverage") for line in lines)
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert {line.count("|") for line in table} == {8}
    assert lines[-1] == f"    heteromig verify {invalid.name}"


def test_markdown_of_programs_means_nothing(hostile: Path) -> None:
    text = report(hostile, Format.MD)
    assert "<script" not in text
    assert "<img" not in text
    assert "\\`tick\\`" in text
    assert "\\| " in text
    assert " @everyone" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("`x` *y* _z_ ~w~ $v$", r"\`x\` \*y\* \_z\_ \~w\~ \$v\$"),
        ("![x](y)", r"!\[x\](y)"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("a\\|b", r"a\\\|b"),
        ("one\n# two", "one # two"),
    ],
)
def test_special_characters_are_escaped(text: str, expected: str) -> None:
    assert markdown_text(text) == expected


def test_markdown_names_violated_device_guards_and_the_cost_of_neighbours_where_they_are_known(valid: Path) -> None:
    story = tell(valid)
    assert "guard violated" not in markdown(story)
    guard = next(one for one in story.device_guards if one.guard == "only_own_processes")
    status = type(guard.status)("violated")
    worse = replace(guard, status=status, evidence="process 1 (<b>) was there as well")
    text = markdown(replace(story, device_guards=(worse,), degradation=DEGRADATION))
    assert "- Device guard violated: only own processes on " in text
    assert "process 1 (&lt;b&gt;) was there as well" in text
    assert "Cost of the neighbours: Against main alone, 7.0 % slower (95 % interval" in text
    assert "- The host was &lt;busy&gt; meanwhile." in text


# --- the trace --------------------------------------------------------------------------------------------------------

_ALWAYS = {"ph", "name", "pid", "tid", "ts"}
_MORE: dict[str, set[str]] = {
    "X": {"dur", "cat", "args"},
    "i": {"s"},
    "C": {"args"},
    "M": {"args"},
}
_METADATA = {"process_name": "name", "process_sort_index": "sort_index"}
_METADATA |= {"thread_name": "name", "thread_sort_index": "sort_index"}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@pytest.mark.parametrize("name", ["valid", "invalid", "aborted", "failed", "unplanned", "killed", "hostile"])
def test_trace_conforms_to_the_format(request: pytest.FixtureRequest, name: str) -> None:
    loaded = json.loads(report(request.getfixturevalue(name), Format.TRACE))
    assert loaded["displayTimeUnit"] in {"ms", "ns"}
    events = loaded["traceEvents"]
    named: dict[str, set[tuple[int, int]]] = {"process_name": set(), "thread_name": set()}
    for event in events:
        kind = event["ph"]
        assert event.keys() == _ALWAYS | _MORE[kind], event
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is type(event["tid"]) is int
        assert _number(event["ts"])
        assert event["ts"] >= 0
        if kind == "X":
            assert _number(event["dur"])
            assert event["dur"] >= 0
        elif kind == "i":
            assert event["s"] in {"g", "p", "t"}
        elif kind == "C":
            assert event["args"]
            assert all(map(_number, event["args"].values()))
        else:
            assert event["args"].keys() == {_METADATA[event["name"]]}
            named.get(event["name"], set()).add((event["pid"], event["tid"]))
    processes = {pid for pid, _ in named["process_name"]}
    assert {event["pid"] for event in events} == processes
    threads = {(event["pid"], event["tid"]) for event in events if event["ph"] in {"X", "i"}}
    assert threads <= named["thread_name"]


def test_trace_has_a_process_for_each_gpu_and_a_thread_for_each_slice(valid: Path) -> None:
    story = tell(valid)
    events = json.loads(report(valid, Format.TRACE))["traceEvents"]
    processes = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert processes == [f"run {valid.name}", f"Simulated A30 {story.boards[0].uuid}"]
    threads = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert len(threads) == 1 + len(story.lanes)
    intervals = [event for event in events if event["ph"] == "X" and event["cat"] != "phase"]
    assert len(intervals) == sum(len(lane.intervals) for lane in story.lanes)
    busy = next(event for event in intervals if event["args"]["worker"] == 0 and event["cat"] == "busy")
    told = next(one for one in story.lanes[0].intervals if one.kind.value == "busy")
    assert busy["ts"] / 1e6 == pytest.approx(told.begin_s)
    assert busy["dur"] / 1e6 == pytest.approx(told.end_s - told.begin_s)
    counters = [event for event in events if event["ph"] == "C"]
    series = [one for each in story.instruments for chart in each.charts for one in chart.series]
    assert len(counters) == sum(len(one.values) for one in series) > 0


# --- the page ---------------------------------------------------------------------------------------------------------


def test_page_holds_no_script_and_no_address_whatever_programs_print(hostile: Path, valid: Path) -> None:
    found, harmless = Elements(), Elements()
    found.feed(report(hostile, Format.HTML))
    harmless.feed(report(valid, Format.HTML))
    assert found.tags <= harmless.tags | {"pattern", "use"}  # hatches, which are matplotlib's
    assert not found.tags & {"script", "img", "iframe", "object", "embed", "form", "base", "audio", "video", "b"}
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"href", "src", "action", "xlink:href"}:
            assert value.startswith(("#", "data:,")), (tag, name, value)
        if name == "style":
            assert "url(" not in value.replace("url(#", "")
            assert "expression" not in value
    policy = next(value for tag, name, value in found.attributes if tag == "meta" and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_page_is_the_same_each_time_it_is_made(valid: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import tests.e2e.quick; from pathlib import Path; "
    program += "from heteromig.report.making import *; sys.stdout.write(report(Path(sys.argv[1]), Format.HTML))"
    made = [
        subprocess.run([sys.executable, "-c", program, str(valid)], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(made[0]) > 50_000


def test_page_shows_the_cost_of_neighbours_first_where_it_is_known(valid: Path) -> None:
    story = tell(valid)
    assert "not known" in render(story)
    page = render(replace(story, degradation=DEGRADATION))
    assert '<dd class="value">7.0 % slower</dd>' in page
    assert "95 % interval from 8.0 % slower to 6.0 % slower, n = 3" in page
    assert "The host was &lt;busy&gt; meanwhile." in page
    assert "Baseline: 20260101T000000Z-resnet50-offline-baseline." in page
    assert page.index("7.0 % slower") < page.index("Timeline</h2>")


@pytest.mark.parametrize("name", ["$\\frac$", "naïve 模型", "a<b&c>", "#1f5fd1", "x" * 300, "%s {0} {{ 7*7 }}"])
def test_names_that_mean_something_to_plots_or_templates_are_shown_as_they_are(valid: Path, name: str) -> None:
    story = tell(valid)
    workers = tuple(replace(one, benchmark=name) for one in story.workers)
    lanes = tuple(
        replace(lane, worker=None if lane.worker is None else replace(lane.worker, benchmark=name))
        for lane in story.lanes
    )
    page = render(replace(story, workers=workers, lanes=lanes))
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f">0 {shown}" in page or len(name) > 20
    assert f'<td data-head="Benchmark">{shown}</td>' in page


def test_a_reading_that_a_board_lacks_is_told_with_its_reason_and_never_drawn(valid: Path) -> None:
    story = tell(valid)
    board = next(one for one in story.instruments if one.is_gpu)
    assert all(not series.values for chart in board.charts for series in chart.series)
    page = render(story)
    assert "n/a: the simulator measures no such thing" in page
    assert "Nothing to draw: none of its readings is available" in page
    assert page.count('class="plot"') == sum(not one.is_gpu for one in story.instruments)


# --- gaps and the clock -----------------------------------------------------------------------------------------------


def _with_gap(story: Story) -> Story:
    """The same with a second of nothing in the first background."""
    assert story.section is not None
    begin_s = story.section.begin_s + 0.2
    seen = tuple(
        replace(one, covered=False, gaps=(Silence(0, 500_000_000, Watch.HEARTBEAT),)) if one.worker == 1 else one
        for one in story.backgrounds
    )
    lanes = tuple(
        replace(lane, gaps=(Gap(begin_s, begin_s + 0.5, "heartbeat"),)) if lane.label.startswith("1 ") else lane
        for lane in story.lanes
    )
    return replace(story, backgrounds=seen, lanes=lanes)


def test_gaps_are_told_and_drawn_everywhere(valid: Path) -> None:
    story = tell(valid)
    assert "none longer than 5 s by heartbeat" in markdown(story)
    assert ">gap 0.5 s<" not in render(story)
    stalled = _with_gap(story)
    assert "| 1 dlrm | NO, it stalled |" in markdown(stalled)
    assert "| 1 of 0.500 s in all |" in markdown(stalled)
    page = render(stalled)
    assert ">gap 0.5 s<" in page
    assert "gap: it stalled" in page
    assert '<td data-head="Gaps" class="bad">1 of 0.500 s in all</td>' in page
    events = json.loads(trace(stalled))["traceEvents"]
    gaps = [event for event in events if event["name"] == "gap dlrm"]
    assert sum(event["dur"] for event in gaps) == pytest.approx(500_000)
    assert {event["args"]["seen_by"] for event in gaps} == {"heartbeat"}


def test_gaps_that_nobody_could_have_seen_are_told_as_such(valid: Path) -> None:
    story = tell(valid)
    blind = replace(story, backgrounds=tuple(replace(one, gaps=None, gaps_seen_by=()) for one in story.backgrounds))
    assert markdown(blind).count("not observed (no heartbeat, no device activity)") == 2
    assert "not observed (no heartbeat, no device activity)" in render(blind)


def test_clock_check_is_a_line(valid: Path) -> None:
    story = tell(valid)
    assert "readings of the wall clock beside the monotonic one: drift +0.000 s, and it was never set" in story.clock
    assert f"Clock: {story.clock}" in markdown(story)
    assert f"Clock: {story.clock}." in render(story)


@pytest.mark.parametrize(
    ("corrected", "words"),
    [(True, "and it was set by -2.500 s, all stamps were corrected"), (False, "not all stamps could be corrected")],
)
def test_clock_that_was_set_is_told(corrected: bool, words: str) -> None:  # noqa: FBT001 - a parameter of the table
    check = ClockCheck(12, -2.5, largest_step_s=-2.5, stepped_at_utc_ns=1, corrected=corrected)
    assert clock_words(check).endswith(words)
