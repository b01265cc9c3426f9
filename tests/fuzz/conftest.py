from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import quick as _quick  # noqa: F401 - so that `verify` in this process knows that harness
from tests.fuzz.recording import record
from tests.fuzz.trying import TRIED


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a real run, valid and sealed, of which tests make copies or put everything back."""
    return record(tmp_path_factory.mktemp("recorded"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs were really tried."""
    if TRIED:
        terminalreporter.section("inputs that were tried, each twice")
        for name, count in sorted(TRIED.items()):
            terminalreporter.write_line(f"{name:<28} {count:>9}")
        terminalreporter.write_line(f"{'all':<28} {sum(TRIED.values()):>9}")
