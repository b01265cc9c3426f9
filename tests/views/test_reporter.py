from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from heteromig.core.guards import Finding, Status
from heteromig.core.machine import Run
from heteromig.core.phases import Phase
from heteromig.core.units import MonotonicNs
from heteromig.views.console import choose_reporter, is_terminal, wants_live
from heteromig.views.outlet import Outlet
from heteromig.views.reporter import Reporter, Unfailing
from heteromig.views.silent import Silent
from tests.views.stories import Story
from tests.views.terminals import terminal

FINDING = Finding("slices_idle", Status.VIOLATED, passed=False, evidence="busy")


class Broken(Silent):
    """A view with a mistake in it."""

    wants_ticks = True

    def __init__(self) -> None:
        self.ended = False

    def tick(self, run: Run, now_ns: MonotonicNs, last_lines: Mapping[int, str]) -> None:  # noqa: ARG002 - a view's mistake
        raise ZeroDivisionError

    def end(self, at_ns: MonotonicNs) -> None:  # noqa: ARG002 - as above
        self.ended = True


def tell_everything(reporter: Reporter) -> None:
    story = Story()
    reporter.begin("runs/x", story.now_ns)
    reporter.transition(story.run, Phase.DISCOVERING, Phase.BUILDING, story.now_ns)
    reporter.rejection(story.run, FINDING, story.now_ns)
    reporter.preparation(story.run, story.now_ns)
    reporter.tick(story.run, story.now_ns, {})
    reporter.tick(story.run, story.now_ns, {})
    reporter.end(story.now_ns)


def test_a_mistake_in_a_view_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    broken = Broken()
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        reporter = Unfailing(broken, Outlet(stream))
        wanted = [reporter.wants_ticks]
        tell_everything(reporter)
        wanted.append(reporter.wants_ticks)
    assert wanted == [True, False]
    assert isinstance(reporter.failure, ZeroDivisionError)
    assert broken.ended
    assert (tmp_path / "log").read_text().count("the display failed (ZeroDivisionError()); the run goes on") == 1


@pytest.mark.parametrize(
    ("live", "environ", "isatty", "expected"),
    [
        (None, {"TERM": "xterm"}, True, True),
        (None, {}, True, True),
        (None, {"TERM": "xterm"}, False, False),
        (False, {"TERM": "xterm"}, True, False),
        (None, {"TERM": "dumb"}, True, False),
        (None, {"TERM": "xterm", "CI": "true"}, True, False),
        (None, {"TERM": "xterm", "CI": "1"}, True, False),
        (None, {"TERM": "xterm", "CI": "false"}, True, True),
        (None, {"TERM": "xterm", "CI": ""}, True, True),
        (None, {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (None, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (True, {"TERM": "xterm", "CI": "1", "NO_COLOR": "1"}, True, True),
        (True, {"TERM": "dumb"}, True, False),
        (True, {"TERM": "xterm"}, False, False),
    ],
)
def test_who_gets_the_live_table(
    live: bool | None,  # noqa: FBT001 - a column of the table above
    environ: dict[str, str],
    isatty: bool,  # noqa: FBT001 - as above
    expected: bool,  # noqa: FBT001 - as above
) -> None:
    assert wants_live(live=live, environ=environ, stderr_isatty=isatty) is expected


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    tell_everything(choose_reporter(live=True, quiet=True, environ={}, stderr_isatty=True))
    assert capfd.readouterr() == ("", "")


def test_plain_lines_go_to_standard_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert not is_terminal()
        reporter = choose_reporter(live=None, quiet=False)
        assert not reporter.wants_ticks
        tell_everything(reporter)
    assert "discovering -> building" in (tmp_path / "log").read_text()


def test_the_live_table_goes_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal() as tty:
        monkeypatch.setattr(sys, "stderr", tty.stream)
        assert is_terminal()
        reporter = choose_reporter(live=None, quiet=False, environ={"TERM": "xterm"})
        assert reporter.wants_ticks
        tell_everything(reporter)
        assert "looking for slices" in tty.read("\x1b[?25h")


@pytest.mark.parametrize("closed", [True, False])
def test_a_run_without_standard_error_is_told_to_nobody(
    closed: bool,  # noqa: FBT001 - two ways to have none
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = (tmp_path / "log").open("w")
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    assert not is_terminal()
    tell_everything(choose_reporter(live=None, quiet=False))
    assert (tmp_path / "log").read_text() == ""
