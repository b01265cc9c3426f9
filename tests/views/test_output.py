from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from heteromig.core.verdict import Verdict
from heteromig.views.console import print_slices, print_summary, print_verification
from heteromig.views.output import show, width_of
from tests.views.records import RUN_DIR, make_record
from tests.views.stories import make_inventory
from tests.views.terminals import terminal
from tests.views.test_verification import Found

RESULT = Text("plain ").append("green [red]", "green").append(" " + "x" * 300)


def test_a_file_gets_plain_text_unwrapped() -> None:
    stream = io.StringIO()
    show(RESULT, stream)
    assert stream.getvalue() == f"plain green [red] {'x' * 300}\n"
    assert width_of(stream) == 100


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with terminal(columns=77) as tty:
        assert width_of(tty.stream) == 77
        show(Text("green", "green"), tty.stream)
        assert tty.read("\n") == "\x1b[32mgreen\x1b[0m\r\n"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal() as tty:
        show(Text("green", "green"), tty.stream)
        assert tty.read("\n") == "green\r\n"


def test_a_reader_that_has_gone_changes_no_exit_code() -> None:
    program = (
        "import sys; from rich.text import Text; from heteromig.views.output import show; sys.stdin.read(); "
        "show(Text('x' * 100_000), sys.stdout); show(Text('more'), sys.stdout); sys.exit(4)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdin is not None
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == b""
        assert child.wait(60) == 4


def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("w") as stream:
        with pytest.raises(OSError, match="No space"):
            show(Text("x"), stream)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that closing it succeeds


def test_results_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(make_record(), RUN_DIR)
    assert capsys.readouterr().out.startswith("VALID (exit 0)")
    print_slices(make_inventory(), None)
    assert "1g.10gb" in capsys.readouterr().out
    print_verification(Found(Verdict("valid", 0, ())), RUN_DIR)
    output = capsys.readouterr()
    assert "Verified" in output.out
    assert output.err == ""
