from __future__ import annotations

import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from heteromig.workers import guardian, worker
from heteromig.workers.sweep import become_subreaper
from tests.workers.trees import Trees, marked, until

MARKER = "HETEROMIG_TEST_MARKER"


@pytest.fixture(scope="package", autouse=True)
def _subreaper() -> Iterator[None]:
    become_subreaper()
    yield
    guardian.prctl(guardian.PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture(autouse=True)
def _measured_guardian(monkeypatch: pytest.MonkeyPatch) -> None:
    coverage = sys.modules.get("coverage")
    if coverage is not None and coverage.Coverage.current() is not None:
        # Without -S, so that coverage can start itself in the guardian.
        monkeypatch.setattr(worker, "INTERPRETER_OPTIONS", ("-I",))


@pytest.fixture
def marker(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An environment entry of all processes of this test; the test fails when one of them outlives it."""
    entry = f"{MARKER}={uuid.uuid4()}"
    monkeypatch.setenv(MARKER, entry.partition("=")[2])
    yield entry
    left = marked(entry)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"these processes outlived the test: {left}"
    with contextlib.suppress(ChildProcessError):
        until(lambda: os.waitpid(-1, os.WNOHANG) == (0, 0), "only live children are left")


@pytest.fixture
def trees(marker: str, tmp_path: Path) -> Iterator[Trees]:
    factory = Trees(marker, tmp_path)
    yield factory
    factory.close()
