from __future__ import annotations

import threading
import time

from heteromig.views.campaign_bar import CampaignProgress
from heteromig.views.live import LiveTable
from heteromig.views.outlet import Outlet
from tests.views.stories import Story
from tests.views.terminals import Terminal, terminal

HIDE_CURSOR = "\x1b[?25l"
SHOW_CURSOR = "\x1b[?25h"


ERASE_LINE_ABOVE = "\x1b[1A\x1b[2K"


def table_on(tty: Terminal, story: Story, campaign: CampaignProgress | None = None) -> LiveTable:
    table = LiveTable(Outlet(tty.stream), campaign)
    table.begin("runs/20260401T120000Z-resnet50", story.now_ns)
    return table


def buffering() -> Story:
    return Story().discover().build(engines=0, of=0).start()


def test_a_tick_draws_and_the_end_leaves_the_last_picture() -> None:
    with terminal() as tty:
        story = buffering()
        table = table_on(tty, story)
        assert table.wants_ticks
        table.transition(story.run, story.run.phase, story.run.phase, story.entered_ns)
        table.tick(story.run, story.now_ns, {1: "first line"})
        text = tty.read("0006beef")
        assert HIDE_CURSOR in text
        assert "20260401T120000Z-resnet50" in text
        assert "buffering: 3.0 s left" in text
        assert "first line" in text
        story.wait(1.0)
        table.tick(story.run, story.now_ns, {})
        text = tty.read("0006beef")
        assert "buffering: 2.0 s left" in text
        assert "first line" in text, "the last line of a worker stays when the worker is gone"
        story.wait(1.0)
        table.end(story.now_ns)
        text = tty.read(SHOW_CURSOR)
        assert "buffering: 1.0 s left" in text


def test_the_picture_of_one_run_of_many_makes_way_for_the_line_about_it() -> None:
    progress = CampaignProgress("tune", number=2, of=5, what="alone", took_s=1.0, left_s=9.0, after_s=5.0)
    with terminal() as tty:
        story = buffering()
        table = table_on(tty, story, progress)
        table.transition(story.run, story.run.phase, story.run.phase, story.entered_ns)
        table.end(story.now_ns)
        text = tty.read(SHOW_CURSOR)
        _, name, last_picture = text.rpartition("tune 2 of 5")
        assert name
        picture, erase, _ = last_picture.partition(ERASE_LINE_ABOVE)
        assert "0006beef" in picture
        assert erase
        # The cursor is below the last line, and goes to where the first was.
        assert last_picture.count(ERASE_LINE_ABOVE) == picture.count("\n")


def test_nothing_is_drawn_between_ticks() -> None:
    with terminal() as tty:
        story = buffering()
        table = table_on(tty, story)
        story.buffer()
        table.transition(story.run, story.run.phase, story.run.phase, story.now_ns)
        table.rejection(story.run, story.run.transitions[-1].findings[0], story.now_ns)
        tty.stream.write("MARK")
        tty.stream.flush()
        assert tty.read("MARK") == "MARK"


def test_the_end_of_a_run_that_never_ticked_shows_it_once() -> None:
    with terminal() as tty:
        story = buffering()
        table = table_on(tty, story)
        table.transition(story.run, story.run.phase, story.run.phase, story.entered_ns)
        table.end(story.now_ns)
        assert "0006beef" in tty.read(SHOW_CURSOR)


def test_a_worker_cannot_reach_the_terminal() -> None:
    with terminal() as tty:
        story = buffering()
        table = table_on(tty, story)
        table.tick(story.run, story.now_ns, {1: "\x1b[2J\x1b]0;title\x07[red]text[/red]\x1b[?1049h"})
        text = tty.read("0006beef")
        assert "[red]text[/red]" in text
        for harm in ("\x1b[2J", "\x1b]0", "\x07", "\x1b[?1049h"):
            assert harm not in text


def test_a_terminal_that_is_stopped_holds_nothing_up_and_catches_up() -> None:
    with terminal(columns=200, lines=100) as tty:
        story = buffering()
        table = table_on(tty, story)
        longest_s = 0.0
        for tick in range(60):  # far more than a pseudo-terminal holds
            story.wait(0.01)
            began = time.monotonic()
            table.tick(story.run, story.now_ns, {1: f"line {tick}"})
            longest_s = max(longest_s, time.monotonic() - began)
        assert longest_s < 5
        story.buffer()
        text = ""
        while "main resnet50 is starting" not in text:
            table.tick(story.run, story.now_ns, {})
            text = tty.read("beef")
        ending = threading.Thread(
            target=table.end, args=(story.now_ns,)
        )  # which waits a moment for whoever reads the rest
        ending.start()
        assert tty.read(SHOW_CURSOR)
        ending.join()


def test_a_resized_terminal_is_drawn_anew() -> None:
    with terminal(columns=160, lines=40) as tty:
        story = buffering()
        table = table_on(tty, story)
        table.tick(story.run, story.now_ns, {})
        assert "LAST LINE" in tty.read("0006beef")
        tty.resize(80, 24)
        table.tick(story.run, story.now_ns, {})
        text = tty.read("0006beef")
        assert "\x1b[2J" in text
        assert "LAST LINE" not in text
        table.end(story.now_ns)


def test_a_terminal_that_has_hung_up_ends_the_ticks_and_nothing_else() -> None:
    with terminal() as tty:
        story = buffering()
        table = table_on(tty, story)
        table.tick(story.run, story.now_ns, {})
        tty.hang_up()
        table.tick(story.run, story.now_ns, {})
        assert not table.wants_ticks
        table.tick(story.run, story.now_ns, {})
        table.end(story.now_ns)
