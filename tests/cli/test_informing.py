from __future__ import annotations

import sys

import pytest

from heteromig.cli.informing import tell
from tests.views.terminals import terminal

LINE = "3: isolated, 300 qps for 10.0 s: the first rate; see runs/20260401T120000Z-resnet50-server-tune"


def test_a_line_is_broken_between_words_on_a_terminal_and_paths_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(columns=40) as tty:
        monkeypatch.setattr(sys, "stderr", tty.stream)
        tell(LINE + "\n\nEND")
        text = tty.read("END")
    first, *others = text.replace("\r\n", "\n").split("\n")
    assert first == "3: isolated, 300 qps for 10.0 s: the"
    assert "   runs/20260401T120000Z-resnet50-server-tune" in others
    assert others[-3:] == ["", "END", ""]


def test_elsewhere_a_line_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell(LINE)
    assert capsys.readouterr().err == LINE + "\n"


def test_who_wants_it_quiet_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tell(LINE, quiet=True)
    assert capsys.readouterr().err == ""
