"""Real LoadGen runs in child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NULL_SUT = Path(__file__).with_name("null_sut.py")


def argv(outdir: Path, scenario: str, mode: str, duration_s: float) -> tuple[str, ...]:
    return (sys.executable, str(NULL_SUT), str(outdir), scenario, mode, str(duration_s))


def run_loadgen(
    outdir: Path,
    scenario: str,
    mode: str = "PerformanceOnly",
    duration_s: float = 0.3,
    timezone: str = "UTC",
    *,
    cwd: Path | None = None,
) -> bytes:
    """Run to the end, and return what was printed. Its audit.config is `cwd / "no-audit.config"`."""
    outdir.mkdir(parents=True)
    ended = subprocess.run(
        argv(outdir, scenario, mode, duration_s),
        env={**os.environ, "TZ": timezone},
        cwd=cwd,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return ended.stdout
