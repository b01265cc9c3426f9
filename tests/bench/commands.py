"""How long commands take that a person waits for, next to an interpreter that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.launching import ROOT, MeasuringFailedError
from tests.bench.table import Row, judge_median, ratio, spread

RUNS = 9
HELP_BUDGET_S = 0.4
SLICES_BUDGET_S = 0.6

HETEROMIG = str(Path(sys.executable).with_name("heteromig"))
"""The program that pip installed beside this interpreter."""


def measure() -> list[Row]:
    """In turn, so that all have the same neighbours; one round before, which fills the caches, does not count."""
    commands = {
        "heteromig --help": (HETEROMIG, "--help"),
        "heteromig slices --slices sim:a100-sxm-80gb": (HETEROMIG, "slices", "--slices", "sim:a100-sxm-80gb"),
        "python -c pass": (sys.executable, "-c", "pass"),
    }
    took_s: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(1 + RUNS):
        for name, argv in commands.items():
            seconds = _time(argv)
            if number:
                took_s[name].append(seconds)
    help_name, slices_name, python_name = commands
    slower = ratio(statistics.median(took_s[help_name]), statistics.median(took_s[python_name]))
    return [
        _row(help_name, took_s[help_name], HELP_BUDGET_S),
        _row(slices_name, took_s[slices_name], SLICES_BUDGET_S),
        Row(
            what=f"  {python_name}",
            measured=spread(took_s[python_name], "s"),
            budget="",
            verdict=f"--help takes {slower}",
        ),
    ]


def _row(name: str, took_s: list[float], budget_s: float) -> Row:
    return Row(
        what=name, measured=spread(took_s, "s"), budget=f"<= {budget_s} s", verdict=judge_median(took_s, budget_s)
    )


def _time(argv: Sequence[str]) -> float:
    before_s = time.perf_counter()
    finished = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took_s = time.perf_counter() - before_s
    if finished.returncode != 0:
        raise MeasuringFailedError(f"{' '.join(argv)} ended with {finished.returncode}: {finished.stderr.decode()}")
    return took_s
