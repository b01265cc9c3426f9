"""From the last background's evidence on disk to main's process, with nothing to wait for in between."""

from __future__ import annotations

import random
import statistics
import sys
from contextlib import closing
from pathlib import Path

from tests.bench import original
from tests.bench.launching import Launched, new_mark, read_exit, scratch
from tests.bench.standin import Behaviour, Scenario, child_argv
from tests.bench.table import Row, judge_median, ratio, spread

BUDGET_S = 0.3
RUNS = 5
BANNER_LINES = 60
BACKGROUNDS = 6


def measure() -> list[Row]:
    """Runs of heteromig, then one of the original's way: its half minute is 60 times its half second."""
    chance = random.Random(1)  # noqa: S311 - so that ticks and begins do not march in step
    ours = [heteromig_s(_loads(chance)) for _ in range(RUNS)]
    theirs = original_s(_loads(chance))
    return [
        Row(
            what=f"last background timed on disk -> main's process ({BANNER_LINES} banner lines each)",
            measured=spread(ours, "s"),
            budget=f"<= {BUDGET_S} s",
            verdict=judge_median(ours, BUDGET_S),
        ),
        Row(
            what="  the same children, 0.5 s a line and 10 polls a second",
            measured=spread([theirs], "s"),
            budget="",
            verdict=ratio(theirs, statistics.median(ours)),
        ),
    ]


def _loads(chance: random.Random) -> tuple[float, ...]:
    return tuple(0.3 + chance.random() / 2 for _ in range(BACKGROUNDS + 1))


def heteromig_s(loads_s: tuple[float, ...]) -> float:
    """One run; its controller is a process of its own, and buffers for 0 s."""
    with scratch() as runs_dir:
        scenario = Scenario(runs_dir=runs_dir, mark=new_mark(), main_duration_s=0.2, loads_s=loads_s)
        with closing(Launched(scenario)) as run:
            run.expect(0)
            begun_ns = max(int(path.read_text()) for path in run.run_dir.glob("workers/*-background-*/begun"))
            return (read_exit(run.main_dir).started_utc_ns - begun_ns) / 1e9


def original_s(loads_s: tuple[float, ...]) -> float:
    """The same children under the original's way of reading."""
    with scratch() as name:
        directories = [Path(name) / str(number) for number in range(BACKGROUNDS)]
        backgrounds = []
        for directory, load_s in zip(directories, loads_s, strict=False):
            directory.mkdir()
            backgrounds.append(
                child_argv(Behaviour(log_dir=str(directory), duration_s=600, banner_lines=BANNER_LINES, load_s=load_s))
            )
        return original.start_main(backgrounds, directories, (sys.executable, "-I", "-S", "-c", "pass"))
