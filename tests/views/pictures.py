"""Renderables as the lines of text that a terminal of a given width shows."""

from __future__ import annotations

import io
from collections.abc import Mapping

from rich.console import Console, RenderableType

from heteromig.views.frame import Frame, Moments, render
from tests.views.stories import Story


def picture(story: Story, last_lines: Mapping[int, str] | None = None, *, width: int = 100, height: int = 40) -> Frame:
    moments = Moments(run_id="20260401T120000Z-resnet50", begun_ns=story.begun_ns, entered_ns=story.entered_ns)
    return render(story.run, moments, story.now_ns, last_lines or {}, width=width, height=height)


def shown(renderable: RenderableType, *, width: int) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width)
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().splitlines()]


def lines_of(
    story: Story, last_lines: Mapping[int, str] | None = None, *, width: int = 100, height: int = 40
) -> list[str]:
    return shown(picture(story, last_lines, width=width, height=height), width=width)


def row_of(lines: list[str], slice_prefix: str) -> str:
    return next(line for line in lines if line.strip().startswith(slice_prefix))
