from __future__ import annotations

from msgspec.structs import replace

from heteromig.views.campaign_bar import CampaignProgress, campaign_line
from heteromig.views.frame import Moments, render
from tests.views.stories import Story

PROGRESS = CampaignProgress(
    campaign="matrix", number=3, of=8, what="resnet50 offline alone", took_s=20.0, left_s=60.0, after_s=50.0
)


def text_of(progress: CampaignProgress, elapsed_s: float, width: int = 100) -> str:
    return "".join(piece for piece, _ in campaign_line(progress, elapsed_s, width))


def test_the_time_left_falls_until_the_run_takes_longer_than_expected() -> None:
    assert text_of(PROGRESS, 0.0) == f"matrix 3 of 8 {'━' * 5}{'╌' * 15}  1:00 min left  resnet50 offline alone"
    assert "55.0 s left" in text_of(PROGRESS, 5.0)
    assert "50.0 s left" in text_of(PROGRESS, 100.0)
    assert text_of(replace(PROGRESS, left_s=0.0, after_s=0.0), 5.0).count("━") == 20
    assert "╌" * 20 in text_of(replace(PROGRESS, took_s=0.0, left_s=0.0, after_s=0.0), 0.0)


def test_where_nobody_knows_how_many_runs_there_will_be_both_figures_are_bounds() -> None:
    text = text_of(replace(PROGRESS, at_least=True), 0.0)
    assert text.startswith("matrix 3 of at least 8 ━")
    assert "  at least 1:00 min left  " in text


def test_it_is_the_first_line_of_the_picture_and_as_wide_as_that() -> None:
    story = Story().discover()
    moments = Moments(run_id="a-run", begun_ns=story.now_ns, entered_ns=story.now_ns, campaign=PROGRESS)
    frame = render(story.run, moments, story.now_ns, {}, width=50, height=24)
    lines = ["".join(piece for piece, _ in line) for line in frame.lines]
    assert lines[0] == f"matrix 3 of 8 {'━' * 5}{'╌' * 15}  1:00 min left…"
    assert "a-run" in lines[1]
