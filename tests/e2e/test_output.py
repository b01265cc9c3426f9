"""Where a run's words go: standard output that is closed, gone or full changes neither the run nor its exit code."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from heteromig.runner.verification import verify_run
from tests.e2e.product import BOARD, REPOSITORY

QUICK = (
    *(sys.executable, "-m", "tests.e2e.quick", "run", "--harness", "quick", "--runs-dir", "runs", "--slices", BOARD),
    *("--background-benchmarks", "dlrm", "--start-time-buffer", "0", "--main-benchmark-duration", "300ms", "--json"),
)


def _shell(tmp_path: Path, redirection: str) -> subprocess.CompletedProcess[str]:
    """Run it with redirections that only a shell can do."""
    return subprocess.run(
        ("bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", *QUICK),
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_closed_gone_and_full_outputs(tmp_path: Path) -> None:
    gone = _shell(tmp_path, "| true")
    assert gone.returncode == 0, gone.stderr
    closed = _shell(tmp_path, "<&- >&- 2>&-")
    assert closed.returncode == 0, closed.stderr
    full = _shell(tmp_path, ">/dev/full")
    assert full.returncode == 1, full.stderr
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    runs = list((tmp_path / "runs").glob("2*"))
    assert len(runs) == 3
    assert [verify_run(run).verdict.status for run in runs] == ["valid"] * 3


def test_quiet_prints_nothing_but_the_result(tmp_path: Path) -> None:
    quiet = _shell(tmp_path, "--quiet")
    assert quiet.returncode == 0
    assert quiet.stderr == ""
    assert quiet.stdout.startswith("{")


def test_live_table_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            QUICK[:-1],
            cwd=tmp_path,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "TERM": "xterm", "COLUMNS": "160"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:  # a terminal without a program on its other side
        pass
    os.close(ours)
    assert process.wait() == 0
    assert b"Traceback" not in seen
    assert b"dlrm" in seen
    assert b"\x1b[?25l" in seen  # the cursor was hidden
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")  # and is there again
    assert b"VALID" in seen
