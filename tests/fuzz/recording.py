"""A real run, valid and sealed, whose files are what parsers are given."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import FLAGS
from tests.e2e.product import RunCommand


def record(home: Path) -> Path:
    """Make it in `home`; its directory."""
    flags = ("--harness", "quick", "--main-benchmark-duration", "700ms")
    command = RunCommand(home, ("run", *FLAGS, *flags), environ={}, module="tests.e2e.quick")
    try:
        command.expect(0)
    finally:
        command.close()
    return command.run_dir
