"""Real runs by the command line, for the programs that need what they leave: LoadGen on all seven slices, or others."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.commands import HETEROMIG
from tests.bench.launching import MeasuringFailedError

TIMEOUT_S = 120.0


def run(runs_dir: Path) -> float:
    """Run it in `runs_dir`, which keeps the engines for the next one; seconds from its start to its end."""
    options = (
        "--slices", "sim:a100-sxm-80gb",
        "--runs-dir", str(runs_dir),
        "--main-benchmark-duration", "2s",
        "--background-benchmarks", "datacenter",
        "--start-time-buffer", "500ms",
        "--no-live",
    )  # fmt: skip
    return run_with(options, cwd=runs_dir)


def run_with(options: Sequence[str], *, cwd: Path, environ: Mapping[str, str] | None = None) -> float:
    """Run `heteromig run` with options of one's own, which must end with 0; seconds from its start to its end."""
    before_s = time.monotonic()
    finished = subprocess.run(
        (HETEROMIG, "run", "--no-report", *options),
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    took_s = time.monotonic() - before_s
    if finished.returncode != 0:
        raise MeasuringFailedError(f"the run in {cwd} ended with {finished.returncode}: {finished.stderr.decode()}")
    return took_s
