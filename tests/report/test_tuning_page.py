"""The page of a tuning: what it says, that nothing in it means more than text, and how it reads in a browser."""

from __future__ import annotations

import html
import re
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from heteromig.campaign.probes import Side
from heteromig.campaigns.directory import read_campaign, write_campaign
from heteromig.campaigns.wording import answers_of
from heteromig.core.errors import EvidenceError, UsageError
from heteromig.report.making import Format, make_pages, page_of, report
from heteromig.report.tuning_story import Fate, tell_tuning
from tests.report.browser import A4_PIXELS, Page
from tests.report.conftest import ASKED
from tests.report.elements import Elements
from tests.report.tunings import TUNINGS

LARGEST_BYTES = 400_000
"""A page of seventeen runs is 150 kB; a run more is four."""


@pytest.fixture(scope="session")
def tunings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("tunings")
    made = {}
    for name, make in TUNINGS.items():
        (home / name).mkdir()
        made[name] = make(home / name)
    return made


# --- what it says -----------------------------------------------------------------------------------------------------


def test_runs_are_told_with_the_bracket_as_it_was_and_lead_to_their_directories(tunings: dict[str, Path]) -> None:
    story = tell_tuning(tunings["answered"])
    alone, beside = story.sides
    assert alone.answer is not None
    assert beside.answer is not None
    assert 390 < (alone.answer.rate_qps or 0) < 400
    assert 320 < (beside.answer.rate_qps or 0) < 330
    first, second = story.runs[:2]
    assert (first.bracket.low_qps, first.bracket.high_qps) == (300.0, None)
    assert (second.bracket.low_qps, second.bracket.high_qps) == (375.0, None)
    assert story.of(alone.side)[-1].bracket == alone.answer.bracket
    assert {run.fate for run in story.runs} == {Fate.PASSED, Fate.FAILED, Fate.ENDED}
    assert all(run.directory == f"./{run.run_dir}/" for run in story.runs)
    assert [run.page for run in story.runs[:2]] == [f"./{first.run_dir}/report.html", ""]
    assert story.next is None
    assert not story.can_go_on


def test_a_side_counts_the_runs_that_say_something(tunings: dict[str, Path]) -> None:
    for home in tunings.values():
        story = tell_tuning(home)
        for side in story.sides:
            assert side.runs == sum(run.fate is not Fate.NOTHING for run in story.of(side.side))
            assert side.answer is None or side.runs == side.answer.runs


def test_a_run_that_came_to_nothing_is_told_as_such_and_what_is_next_too(tunings: dict[str, Path]) -> None:
    story = tell_tuning(tunings["stopped"])
    assert [run.fate for run in story.runs[-3:]] == [Fate.NOTHING] * 3
    assert story.can_go_on
    story = tell_tuning(tunings["interrupted"])
    assert story.runs[-1].fate is Fate.NOTHING
    assert story.runs[-1].outcome == "exit 130"
    assert story.next is not None
    assert story.next.step.rate_qps == story.runs[-1].rate_qps, "it is done again"
    assert story.exit_code == 130
    assert tell_tuning(tunings["going_on"]).exit_code is None


def test_an_index_with_numbers_that_cannot_be_is_refused_in_a_sentence(tmp_path: Path) -> None:
    TUNINGS["answered"](tmp_path)
    campaign = read_campaign(tmp_path)
    first = campaign.entries[0]
    assert first.probe is not None
    for wrong in (
        replace(first, step=replace(first.step, rate_qps=-1.0)),
        replace(first, probe=replace(first.probe, rate_qps=None)),
        replace(first, probe=replace(first.probe, achieved_qps=0.0)),
        replace(first, probe=replace(first.probe, misses=first.probe.queries + 1)),
    ):
        write_campaign(tmp_path, replace(campaign, entries=(wrong, *campaign.entries[1:])))
        with pytest.raises(EvidenceError, match="was altered"):
            report(tmp_path, Format.HTML)


def test_nothing_but_the_page_is_a_page(tunings: dict[str, Path]) -> None:
    assert page_of(tunings["answered"]).name == "tune.html"
    with pytest.raises(UsageError, match="has no trace"):
        report(tunings["answered"], Format.TRACE)
    assert report(tunings["answered"], Format.MD).startswith("ANSWERED (exit 0): resnet50 server: ")
    assert report(tunings["going_on"], Format.MD).startswith("NOT ENDED: It still goes on, or its controller was")


def test_page_is_the_same_each_time_it_is_made_and_not_large(tunings: dict[str, Path]) -> None:
    for directory in tunings.values():
        first = report(directory, Format.HTML)
        assert first == report(directory, Format.HTML)
        assert len(first.encode()) < LARGEST_BYTES


def test_a_page_that_is_made_again_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    TUNINGS["hostile"](tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    outside = set(tmp_path.parent.iterdir())
    assert make_pages(tmp_path) == tmp_path / "tune.html"
    make_pages(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*before, tmp_path / "tune.html"}
    assert set(tmp_path.parent.iterdir()) == outside


# --- nothing in it means more than text -------------------------------------------------------------------------------


def test_page_holds_no_script_and_leads_to_nothing_but_its_runs(tunings: dict[str, Path]) -> None:
    page = report(tunings["hostile"], Format.HTML)
    found, harmless = Elements(), Elements()
    found.feed(page)
    harmless.feed(report(tunings["stopped"], Format.HTML))
    assert found.tags <= harmless.tags | {"use"}
    assert not found.tags & {"script", "img", "iframe", "object", "embed", "form", "base", "b"}
    led = set()
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"href", "src", "action", "xlink:href"}:
            if tag == "a":
                led.add(value)
            else:
                assert value.startswith(("#", "data:,")), (tag, name, value)
        if name == "style":
            assert "url(" not in value.replace("url(#", "")
    assert "./javascript%3Aalert%281%29/" in led
    assert "./a%22%20onclick%3D%22b/" in led
    assert all(re.fullmatch(r"\./[\w%-]+/(report\.html)?", one) for one in led)
    assert not any(".." in one for one in led)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    text = html.unescape(page)
    for word in ("main", "slices", "harness", "background", "why", "reason", "sentence"):
        assert f"<img src=http://localhost:9/z> @you {word}" in text, word


def test_markdown_of_others_means_nothing(tunings: dict[str, Path]) -> None:
    text = report(tunings["hostile"], Format.MD)
    assert "<img" not in text
    assert "\\`y\\`" in text
    assert " @you" not in text
    assert "\x1b" not in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in table} == {8, 9}, "seven columns of sides, eight of runs"


# --- in a browser -----------------------------------------------------------------------------------------------------

WORDS = {
    "answered": ("ANSWERED (exit 0)", "% lower rate", "3 of 3 runs at full length passed"),
    "not_possible": ("INCONCLUSIVE (exit 9)", "the lowest latency measured is", "How to go on"),
    "inconclusive": ("INCONCLUSIVE (exit 9)", "no answer", "not known", "it is another tuning"),
    "stopped": ("STOPPED (exit 5)", "3 came to nothing", "Background 3 (dlrm) exited with status 3", "--resume"),
    "interrupted": ("STOPPED (exit 130)", "--resume", "The next run is alone", "are left", "says nothing"),
    "going_on": ("NOT ENDED: It still goes on", "at least", "--resume"),
    "unbegun": ("NOT ENDED", "No run says anything that can be drawn", "The next run is alone, 300 qps"),
    "offline": ("ANSWERED (exit 0)", "25.0\N{NO-BREAK SPACE}% lower rate", "its rate, confirmed", "From run to run"),
    "singlestream": ("ANSWERED (exit 0)", "25.0\N{NO-BREAK SPACE}% higher latency", "2 ms"),
    "hostile": ("<img src=http://localhost:9/z>", "STOPPED (exit 5)"),
}
ALWAYS = ("SIMULATED", "How it was found", "Every run", "What was asked", "heteromig verify", "heteromig 0.")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", TUNINGS)
def test_page_reads_well(page: Page, served: tuple[Path, str], tunings: dict[str, Path], name: str, width: int) -> None:
    home, url = served
    (home / f"{name}.html").write_text(report(tunings[name], Format.HTML), encoding="utf-8")
    ASKED.clear()
    page.open(f"{url}/{name}.html", width)
    text = page.value("document.body.innerText")
    for words in (*WORDS[name], *ALWAYS):
        assert words in text, words
    assert page.too_wide() == []
    assert page.overlapping_labels() == []
    assert page.complaints == []
    assert page.value("document.title").endswith(f": {name}")
    assert [f"/{name}.html"] == ASKED
    assert [one for one in page.requests if not one.startswith("data:")] == [f"{url}/{name}.html"]
    if name not in {"unbegun", "singlestream"}:
        assert page.smallest_text_of_plots() >= 8.5
        kinds = page.value(
            "[...document.querySelectorAll('.plot')].filter(one => one.offsetParent).map(one => one.className)"
        )
        assert set(kinds) == {"plot wide" if width > 860 else "plot narrow"}


def test_page_has_headings_heads_and_words_for_every_plot(
    page: Page, served: tuple[Path, str], tunings: dict[str, Path]
) -> None:
    home, url = served
    (home / "structure.html").write_text(report(tunings["answered"], Format.HTML), encoding="utf-8")
    page.open(f"{url}/structure.html", 1280)
    levels = page.value("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])")
    assert levels.count(1) == 1
    assert max(levels) == 3
    assert page.tables_without_heads() == []
    assert page.value("document.querySelectorAll('.plot').length") == 4
    assert page.value(
        "[...document.querySelectorAll('.plot')].every(one => one.getAttribute('aria-label').length > 40)"
    )
    assert page.value("document.querySelectorAll('svg [id]').length") == page.value(
        "new Set([...document.querySelectorAll('svg [id]')].map(one => one.id)).size"
    )
    assert page.value("document.querySelectorAll('script, link[rel=stylesheet], iframe, object, embed').length") == 0
    runs = len(read_campaign(tunings["answered"]).entries)
    assert page.value("document.querySelectorAll('tbody th a').length") == (runs + 1) // 2, "every other run has a page"


def test_the_cost_is_that_of_the_answers(tunings: dict[str, Path]) -> None:
    alone, beside = (one.rate_qps or 0.0 for one in answers_of(read_campaign(tunings["answered"])))
    cost = f"{1 - beside / alone:.1%}".replace("%", "\N{NO-BREAK SPACE}% lower rate")
    assert cost in html.unescape(report(tunings["answered"], Format.HTML))


def test_one_side_is_known_while_the_other_goes_on(tunings: dict[str, Path], tmp_path: Path) -> None:
    whole = read_campaign(tunings["answered"])
    alone = sum(entry.step.side is Side.ISOLATED for entry in whole.entries)
    campaign = replace(whole, entries=whole.entries[: alone + 1]).continued()
    write_campaign(tmp_path, campaign)
    (answer,) = answers_of(campaign)
    story = tell_tuning(tmp_path)
    assert [one.answer for one in story.sides] == [answer, None]
    assert [one.why for one in story.sides] == [answer.why, "It is not known yet."]
    assert f"{answer.rate_qps:.5g} qps" in report(tmp_path, Format.MD)


def test_every_setting_is_in_the_page(tunings: dict[str, Path]) -> None:
    text = html.unescape(report(tunings["answered"], Format.HTML))
    asked = msgspec.to_builtins(read_campaign(tunings["answered"]).asked)
    assert all(f'"{name}":' in text for part in asked.values() for name in part)


@pytest.mark.parametrize("name", ["answered", "inconclusive", "stopped"])
def test_page_can_be_printed(page: Page, served: tuple[Path, str], tunings: dict[str, Path], name: str) -> None:
    home, url = served
    (home / f"printed-{name}.html").write_text(report(tunings[name], Format.HTML), encoding="utf-8")
    page.open(f"{url}/printed-{name}.html", A4_PIXELS)
    assert page.too_wide_for_paper() == []
