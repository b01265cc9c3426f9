"""One real run by the command line, with LoadGen and all seven slices, for the programs that need what it leaves."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.bench.commands import HETEROMIG
from tests.bench.launching import MeasuringFailedError

TIMEOUT_S = 120.0


def run(runs_dir: Path) -> float:
    """Run it in `runs_dir`, which keeps the engines for the next one; seconds from its start to its end."""
    argv = (
        HETEROMIG, "run",
        "--slices", "sim:a100-sxm-80gb",
        "--runs-dir", str(runs_dir),
        "--main-benchmark-duration", "2s",
        "--background-benchmarks", "datacenter",
        "--start-time-buffer", "500ms",
        "--no-live",
    )  # fmt: skip
    before_s = time.monotonic()
    finished = subprocess.run(
        argv, cwd=runs_dir, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT_S
    )
    took_s = time.monotonic() - before_s
    if finished.returncode != 0:
        raise MeasuringFailedError(
            f"the run in {runs_dir} ended with {finished.returncode}: {finished.stderr.decode()}"
        )
    return took_s
