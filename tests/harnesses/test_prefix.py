"""The program in front of main's command."""

from __future__ import annotations

from pathlib import Path

import pytest

from heteromig.core.errors import UsageError
from heteromig.harnesses import harness_of
from heteromig.harnesses.prefix import require_prefix
from heteromig.runner.config import Config, MainConfig, resolve


def test_a_program_that_is_there_is_taken(tmp_path: Path) -> None:
    require_prefix((), None)
    require_prefix(("env", "A=1"), None)
    require_prefix(("/usr/bin/env",), None)
    program = tmp_path / "wrap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    require_prefix(("./wrap",), tmp_path)


@pytest.mark.parametrize(
    ("name", "has_cwd", "words"),
    [
        ("nosuchprogram", False, "which is no program on the PATH: install it"),
        ("nosuchprogram", True, "on the PATH or in the tree"),
        ("./wrap", True, "on the PATH or in the tree"),
        ("./wrap", False, "main runs in a directory of its own: say the whole path"),
    ],
)
def test_one_that_cannot_be_started_is_refused(tmp_path: Path, name: str, has_cwd: bool, words: str) -> None:  # noqa: FBT001 - pytest passes by name
    with pytest.raises(UsageError, match=words):
        require_prefix((name,), tmp_path if has_cwd else None)


def test_the_embedded_harness_looks_before_anything_starts() -> None:
    spec = resolve(Config(slices="sim:a30", harness="loadgen", main=MainConfig(cmd_prefix="nosuchprogram -x")))
    with pytest.raises(UsageError, match="nosuchprogram"):
        harness_of(spec).preflight(spec)
