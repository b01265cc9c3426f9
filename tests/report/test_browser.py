"""The page in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from heteromig.report.making import Format, report
from tests.report.browser import Page
from tests.report.conftest import ASKED

RUNS = ("valid", "invalid", "aborted", "failed", "unplanned", "killed", "hostile")
WORDS = {
    "valid": ("VALID (exit 0): main is VALID, and every background", "SIMULATED", "100 % covered", "1 dlrm", "2 bert"),
    "invalid": ("INVALID (exit 4):", "left its timed section before main did", "SIMULATED", "not proven"),
    "aborted": ("ABORTED (exit 143): SIGTERM was received", "main has no result", "signal 15 received"),
    "failed": ("FAILED (exit 5):", "died", "no such luck"),
    "unplanned": ("FAILED (exit 2):", "Nothing was planned"),
    "killed": ("INCONCLUSIVE (exit 9):", "the controller ended in main-running", "in the middle of a line"),
    "hostile": ("FAILED (exit 5):", "<img src=http://localhost:9/y onerror=alert(1)>"),
}
ALWAYS = ("Timeline", "Guards", "Plan and commands", "What watching cost", "How to verify", "heteromig verify")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", RUNS)
def test_page_reads_well(
    page: Page, served: tuple[Path, str], request: pytest.FixtureRequest, name: str, width: int
) -> None:
    home, url = served
    run_dir: Path = request.getfixturevalue(name)
    (home / f"{name}.html").write_text(report(run_dir, Format.HTML), encoding="utf-8")
    ASKED.clear()
    page.open(f"{url}/{name}.html", width)
    text = page.value("document.body.innerText")
    for words in (*WORDS[name], *ALWAYS):
        assert words in text, words
    assert page.too_wide() == []
    assert page.value("document.title").endswith(run_dir.name)
    assert page.complaints == []
    assert [f"/{name}.html"] == ASKED
    assert [one for one in page.requests if not one.startswith("data:")] == [f"{url}/{name}.html"]


@pytest.mark.parametrize("width", [1280, 400])
def test_exactly_one_of_the_two_timelines_is_shown_and_its_text_is_of_readable_size(
    page: Page, served: tuple[Path, str], valid: Path, width: int
) -> None:
    home, url = served
    (home / "sizes.html").write_text(report(valid, Format.HTML), encoding="utf-8")
    page.open(f"{url}/sizes.html", width)
    shown = page.value(
        "[...document.querySelectorAll('.plot')].filter(one => one.offsetParent).map(one => one.className)"
    )
    kind = "plot wide" if width > 860 else "plot narrow"
    assert shown.count(kind) == 3
    assert {one for one in shown if " " in one} == {kind}
    assert page.smallest_text_of_plots() >= 8.5


def test_labels_of_lanes_do_not_lie_on_each_other(page: Page, served: tuple[Path, str], valid: Path) -> None:
    home, url = served
    (home / "labels.html").write_text(report(valid, Format.HTML), encoding="utf-8")
    for width in (1280, 400):
        page.open(f"{url}/labels.html", width)
        assert page.overlapping_labels() == []


def test_colours_can_be_told_from_the_background_in_light_and_dark(
    page: Page, served: tuple[Path, str], valid: Path
) -> None:
    home, url = served
    (home / "colours.html").write_text(report(valid, Format.HTML), encoding="utf-8")
    luminance = """
    (name => {
      const probe = document.body.appendChild(document.createElement('i'));
      probe.style.color = `var(--${name})`;
      const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(one => {
        const share = one / 255;
        return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      probe.remove();
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    })
    """
    papers = []
    for scheme in ("light", "dark"):
        page.open(f"{url}/colours.html", 1280, prefers_color_scheme=scheme)
        paper = page.value(f"{luminance}('paper')")
        papers.append(paper)
        for name in ("ink", "muted", "main", "bad", "warn", "good"):
            colour = page.value(f"{luminance}('{name}')")
            contrast = (max(colour, paper) + 0.05) / (min(colour, paper) + 0.05)
            assert contrast >= 4.5, (scheme, name)  # WCAG 2.1, 1.4.3
    assert papers[0] > 0.9
    assert papers[1] < 0.1


def test_page_has_headings_landmarks_and_words_for_every_plot(
    page: Page, served: tuple[Path, str], valid: Path
) -> None:
    home, url = served
    (home / "structure.html").write_text(report(valid, Format.HTML), encoding="utf-8")
    page.open(f"{url}/structure.html", 1280)
    levels = page.value("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.value("['header', 'main', 'footer'].map(one => document.querySelectorAll('body > ' + one).length)") == [
        1,
        1,
        1,
    ]
    assert page.value(
        "[...document.querySelectorAll('.plot')].every(one => one.getAttribute('aria-label').length > 20)"
    )
    assert page.value("[...document.querySelectorAll('figure.instrument')].every(one => one.querySelector('table'))")
    assert page.value("document.querySelectorAll('svg [id]').length") == page.value(
        "new Set([...document.querySelectorAll('svg [id]')].map(one => one.id)).size"
    )
    assert page.value("document.querySelectorAll('script, link[rel=stylesheet], iframe, object, embed').length") == 0
