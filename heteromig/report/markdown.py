"""The short form for a pull request: the verdict, main's result, the overlap, what was violated, how to verify."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from heteromig.core.guards import Status
from heteromig.report import tables
from heteromig.report.story import Story
from heteromig.report.tables import Table
from heteromig.report.words import slack_with_uncertainty
from heteromig.views.text import markdown_text, short_uuid
from heteromig.views.verdict_text import share_words

_COLUMNS = (0, 1, 2, 3, 4, 5, 6)
"""Of the overlap: what fits into a comment."""


def markdown(story: Story) -> str:
    """GitHub's Markdown, in which nothing that a benchmark printed means anything."""
    return "\n".join(_lines(story)).rstrip("\n") + "\n"


def _lines(story: Story) -> Iterator[str]:
    head = story.headline
    code = "" if head.exit_code is None else f" (exit {head.exit_code})"
    yield f"**{markdown_text(head.status.upper())}{code}:** {markdown_text(head.sentence)}"
    yield ""
    for reason in head.reasons:
        yield f"- {markdown_text(reason.sentence)} (exit {reason.exit_code})"
    if head.reasons:
        yield ""
    for words in (*story.banners, *story.remarks):
        yield f"**{markdown_text(words)}**"
        yield ""
    if story.result is not None:
        yield f"Main: {markdown_text(story.result.title)}"
        yield ""
        yield f"Result: {markdown_text(story.result.words)}"
        yield ""
    yield from _cost(story)
    yield from _overlap(story)
    violated = [one for one in story.device_guards if one.status is Status.VIOLATED]
    for one in violated:
        guard = one.guard.replace("_", " ")
        where = markdown_text(short_uuid(one.scope))
        yield f"- Device guard violated: {guard} on {where}: {markdown_text(one.evidence)}"
    if violated:
        yield ""
    yield f"Run {markdown_text(story.run_id)}, {markdown_text(story.tool)}. Verify it from its files, on any machine:"
    yield ""
    yield f"    heteromig verify {shlex.quote(story.run_id)}"


def _cost(story: Story) -> Iterator[str]:
    if story.degradation is not None:
        yield f"Cost of the neighbours: {markdown_text(story.degradation.sentence)}"
        yield ""
        for remark in story.degradation.remarks:
            yield f"- {markdown_text(remark)}"
        if story.degradation.remarks:
            yield ""


def _overlap(story: Story) -> Iterator[str]:
    if story.backgrounds:
        proven = {True: "proven", False: "NOT proven", None: "not judged"}[story.overlap_proven]
        before = slack_with_uncertainty(story.slack_before_s, None)
        after = slack_with_uncertainty(story.slack_after_s, None)
        worst = f"coverage {share_words(story.coverage)}, slack {before} before and {after} after main"
        yield f"Overlap {proven}: at worst {markdown_text(worst)}"
        yield ""
        yield from _table(tables.overlap_table(story))
        yield ""
    if story.clock:
        yield f"Clock: {markdown_text(story.clock)}"
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(markdown_text(table.heads[column]) for column in _COLUMNS) + " |"
    yield "|" + "|".join("--:" if column in table.numeric else "---" for column in _COLUMNS) + "|"
    for row in table.rows:
        yield "| " + " | ".join(markdown_text(row[column].text) for column in _COLUMNS) + " |"
