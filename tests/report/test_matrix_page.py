"""The page of a matrix: its heat map, that nothing in it means more than text, and how it reads in a browser."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from heteromig.campaign.matrix import BackgroundSet
from heteromig.comparing.interference import Interference, Stop
from heteromig.report.matrix_page import render
from tests.comparing.test_interference import ASKED, SLOWER, matrix
from tests.report.browser import A4_PIXELS, Page
from tests.report.conftest import ASKED as ASKED_FOR
from tests.report.elements import Elements
from tests.report.tunings import EVIL

NAMES = ("bert", "dlrm", "rnnt", "3d-unet", "ssd-resnet34")
NOISY = (1.0, 1.3, 0.8, 0.7, 1.2, 1.25, 0.9)
LARGEST_BYTES = 400_000


def _many() -> Interference:
    """28 cells, of which some have failed and some are still to come."""
    settings = replace(
        ASKED,
        mains=("resnet50", "bert"),
        scenarios=("offline", "singlestream"),
        background_sets=(BackgroundSet("everything", NAMES), BackgroundSet("two", NAMES[:2])),
        one_at_a_time=True,
    )
    alone = {f"only {name}": share for name, share in zip(NAMES, (0.7, 0.95, 1.0, 1.05, 0.99), strict=True)}
    return matrix(settings, {"everything": 0.6, "two": 0.75, **alone}, failing=["only rnnt"], at_most=150)


def _hostile() -> Interference:
    """Every text that another program or a configuration may have chosen tries to be more than one."""
    found = matrix(failing=["loud"], stop=Stop(5, f"{EVIL} stop"))
    cells = tuple(
        replace(
            cell,
            main=f"{EVIL} main",
            scenario=f"{EVIL} scenario",
            backgrounds=BackgroundSet(f"{EVIL} set {number}", (f"{EVIL} neighbour",)),
            reason=f"{EVIL} cell" * 20 if cell.reason else "",
            runs=tuple(
                replace(run, reason=f"{EVIL} run", run_dir=f"{EVIL}/../{place}") for place, run in enumerate(cell.runs)
            ),
        )
        for number, cell in enumerate(found.cells)
    )
    return replace(
        found,
        cells=cells,
        origin=replace(found.origin, campaign_id=f"{EVIL} id", slices=f"{EVIL} slices", harness=f"{EVIL} harness"),
        worst=tuple(replace(one, sentence=f"{EVIL} worst") for one in found.worst),
        conditions=((f"{EVIL} condition", f"{EVIL} value"),),
        remarks=(f"{EVIL} remark",),
    )


MATRICES: dict[str, Callable[[], Interference]] = {
    "answered": matrix,
    "streams": lambda: matrix(replace(ASKED, scenarios=("singlestream",))),
    "hidden": lambda: matrix(slower=dict.fromkeys(SLOWER, 0.99), noise=NOISY),
    "once": lambda: matrix(replace(ASKED, repetitions=1)),
    "interrupted": lambda: matrix(at_most=10, stop=Stop(130, "SIGINT was received.")),
    "unbegun": lambda: matrix(at_most=0),
    "many": _many,
    "hostile": _hostile,
}


def test_each_cell_of_the_heat_map_has_its_number_its_interval_and_its_look(tmp_path: Path) -> None:
    cells = _heat(render(matrix(), tmp_path))
    assert [kind for kind, _, _ in cells] == ["known"] * 3
    depths = [int(found[1]) for _, style, _ in cells if (found := re.search(r"var\(--bad\) (\d+)%", style))]
    assert depths == [30, 5, 40], "as deep as the throughput that was lost"
    assert all(re.fullmatch(r"-\d+\.\d % -\d+\.\d to -\d+\.\d %", words) for _, _, words in cells)
    for kind, style, words in _heat(render(matrix(slower=dict.fromkeys(SLOWER, 0.99), noise=NOISY), tmp_path)):
        assert (kind, style) == ("unsure", "")
        assert words.endswith("cannot be told")
    for kind, style, words in _heat(render(matrix(replace(ASKED, repetitions=1)), tmp_path)):
        assert kind in {"known", "unsure"}
        assert "no interval" in words, (style, words)


def test_what_failed_or_is_still_to_come_has_no_number_in_the_heat_map(tmp_path: Path) -> None:
    cells = _heat(render(matrix(failing=["loud"]), tmp_path))
    assert cells[0] == ("failed", "", "failed failed 2 times: Background 1 (bert) exited with status 3")
    assert [kind for kind, _, _ in cells[1:]] == ["known", "known"]
    cells = _heat(render(matrix(at_most=10), tmp_path))
    assert [kind for kind, _, _ in cells] == ["known", "pending", "pending"]
    assert cells[1][2] == "pending 3 of 7 runs are there"


def test_a_gain_has_the_other_colour(tmp_path: Path) -> None:
    first, *_ = _heat(render(matrix(slower={**SLOWER, "loud": 1.2}), tmp_path))
    assert "var(--good) 20%" in first[1]
    assert first[2].startswith("+")


def test_latency_has_a_map_of_its_own_where_there_is_any(tmp_path: Path) -> None:
    assert "Latency</h3>" not in render(matrix(), tmp_path)
    page = render(_many(), tmp_path)
    below = page[page.index("Latency</h3>") :]
    below = below[: below.index("</table>")]
    assert '<th scope="row">resnet50 singlestream <span class="detail">p90</span></th>' in below
    assert '<th scope="row">resnet50 offline' not in below, "it has no latency"


def test_runs_are_led_to_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "run-000").mkdir()
    (tmp_path / "run-000" / "report.html").touch()
    (tmp_path / "run-001").mkdir()
    found = Elements()
    found.feed(render(matrix(), tmp_path))
    led = [value for tag, name, value in found.attributes if (tag, name) == ("a", "href")]
    assert led == ["./run-000/report.html", "./run-000/", "./run-001/"]


def _heat(page: str) -> list[tuple[str, str, str]]:
    """Class, style and words of each cell of the first heat map."""
    table = page[page.index('<div class="table heat">') :]
    table = table[: table.index("</table>")]
    found = re.findall(r'<td data-head="[^"]*" class="([^"]*)"(?: style="([^"]*)")?>(.*?)</td>', table)
    return [(kind, style, html.unescape(re.sub("<[^>]+>", "", words))) for kind, style, words in found]


# --- nothing in it means more than text -------------------------------------------------------------------------------


def test_page_holds_no_script_and_leads_nowhere(tmp_path: Path) -> None:
    page = render(_hostile(), tmp_path)
    found, harmless = Elements(), Elements()
    found.feed(page)
    harmless.feed(render(_many(), tmp_path))
    assert found.tags <= harmless.tags
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"href", "src", "action", "xlink:href"}:
            assert value.startswith("data:,"), (tag, name, value)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    text = html.unescape(page)
    for word in ("main", "set 0", "neighbour", "run", "worst", "remark", "condition", "value", "id", "slices", "stop"):
        assert f"<img src=http://localhost:9/z> @you {word}" in text, word


def test_page_is_the_same_each_time_and_not_large(tmp_path: Path) -> None:
    for make in MATRICES.values():
        first = render(make(), tmp_path)
        assert first == render(make(), tmp_path)
        assert len(first.encode()) < LARGEST_BYTES


# --- in a browser -----------------------------------------------------------------------------------------------------

WORDS = {
    "answered": ("ANSWERED (exit 0)", "the worst neighbour is bert", "39.9 % slower", "A B A B A B A"),
    "streams": ("ANSWERED (exit 0)", "Latency", "p90", "longer"),
    "hidden": ("INCONCLUSIVE (exit 9)", "cannot be told", "its interval has 0 in it", "nothing known"),
    "once": ("no interval", "they take two repetitions at least"),
    "interrupted": ("STOPPED (exit 130)", "--resume", "11 runs are left", "still to come", "Not measured"),
    "unbegun": ("NOT ENDED", "0 of 3", "21 runs are left"),
    "many": ("NOT ENDED", "20 of 28", "failed 2 times: Background 1 (bert) exited with status 3", "better"),
    "hostile": ("<img src=http://localhost:9/z>", "STOPPED (exit 5)"),
}
ALWAYS = (
    "SIMULATED",
    "What neighbours cost",
    "In full",
    "Every run",
    "What was asked",
    "heteromig verify",
    "matrix.csv",
)


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", MATRICES)
def test_page_reads_well(page: Page, served: tuple[Path, str], tmp_path: Path, name: str, width: int) -> None:
    home, url = served
    (home / f"matrix-{name}.html").write_text(render(MATRICES[name](), tmp_path), encoding="utf-8")
    ASKED_FOR.clear()
    page.open(f"{url}/matrix-{name}.html", width)
    text = page.value("document.body.innerText")
    for words in (*WORDS[name], *ALWAYS):
        assert words in text, words
    assert page.too_wide() == []
    assert page.tables_without_heads() == []
    assert page.complaints == []
    assert [f"/matrix-{name}.html"] == ASKED_FOR
    assert [one for one in page.requests if not one.startswith("data:")] == [f"{url}/matrix-{name}.html"]
    levels = page.value("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])")
    assert (levels.count(1), levels[0], max(levels)) == (1, 1, 3)


@pytest.mark.parametrize("name", ["answered", "many", "hostile"])
def test_page_can_be_printed(page: Page, served: tuple[Path, str], tmp_path: Path, name: str) -> None:
    home, url = served
    (home / f"printed-matrix-{name}.html").write_text(render(MATRICES[name](), tmp_path), encoding="utf-8")
    page.open(f"{url}/printed-matrix-{name}.html", A4_PIXELS)
    assert page.too_wide_for_paper() == []


def test_cells_without_a_finding_look_different_without_any_colour(
    page: Page, served: tuple[Path, str], tmp_path: Path
) -> None:
    home, url = served
    looks = set()
    for name in ("answered", "hidden", "interrupted", "hostile"):
        (home / f"looks-{name}.html").write_text(render(MATRICES[name](), tmp_path), encoding="utf-8")
        page.open(f"{url}/looks-{name}.html", 1280)
        looks |= set(map(tuple, page.value(_LOOKS)))
    assert looks == {
        ("known", "solid", False),
        ("unsure", "dashed", False),
        ("pending", "solid", True),
        ("failed", "solid", True),
    }


def test_words_can_be_read_on_every_colour_in_light_and_dark(
    page: Page, served: tuple[Path, str], tmp_path: Path
) -> None:
    home, url = served
    (home / "heat.html").write_text(render(_many(), tmp_path), encoding="utf-8")
    for scheme in ("light", "dark"):
        page.open(f"{url}/heat.html", 1280, prefers_color_scheme=scheme)
        contrasts = page.value(_CONTRASTS)
        assert len(contrasts) == 28
        assert min(contrasts) >= 4.5, scheme  # WCAG 2.1, 1.4.3
        assert max(contrasts) > 1.5 * min(contrasts), "colours differ"


_LOOKS = """
[...document.querySelectorAll('.heat td')].map(cell => {
  const style = getComputedStyle(cell);
  return [cell.className, style.borderTopStyle, style.backgroundImage.includes('gradient')];
})
"""
_CONTRASTS = """
[...document.querySelectorAll('.heat td.known')].map(cell => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const luminance = colour => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(one => {
      const share = one / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(cell);
  const [low, high] = [luminance(style.backgroundColor), luminance(style.color)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
})
"""
