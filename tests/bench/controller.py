"""`python -m tests.bench.controller JSON`: a whole run by heteromig's own loop, with stand-ins as its harness."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from heteromig.core.errors import HeteromigError
from heteromig.harnesses import HARNESSES
from heteromig.runner import loop
from heteromig.runner.config import BackgroundConfig, Config, MainConfig, TimingConfig, resolve
from heteromig.runner.session import execute
from heteromig.views.console import choose_reporter
from tests.bench.standin import Scenario, StandIn
from tests.bench.wide import WIDE, WideSamplerLink, add_board

WRITTEN = "written.json"
"""Beside the run directory: how long the journal was after each write, and when that was on the monotonic clock."""


class Written:
    """A follower of the journal that remembers when it grew."""

    def __init__(self) -> None:
        self.at: list[tuple[int, int]] = []

    def grown(self, path: Path, size_bytes: int) -> None:  # noqa: ARG002 - there is one journal
        self.at.append((size_bytes, time.monotonic_ns()))


def main(scenario: Scenario) -> int:
    HARNESSES["standin"] = lambda _: StandIn(scenario)
    if WIDE in scenario.slices:
        add_board()
        loop.SamplerLink = WideSamplerLink  # type: ignore[attr-defined]  # only here does one know another board
    spec = resolve(
        Config(
            slices=scenario.slices,
            harness="standin",
            runs_dir=scenario.runs_dir,
            main=MainConfig(benchmark="standin-a", duration=round(scenario.main_duration_s * 1000)),
            background=BackgroundConfig(benchmarks="all"),
            timing=TimingConfig(start_time_buffer=0, background_start_timeout="60s", grace="1s"),
        )
    )
    written = Written()
    try:
        outcome = execute(
            spec, choose_reporter(live=None, quiet=False), followers=(written,) if scenario.stamped else ()
        )
    except HeteromigError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if scenario.stamped:
        (outcome.run_dir.parent / WRITTEN).write_bytes(msgspec.json.encode(written.at))
    verdict = outcome.record.verdict
    return 1 if verdict is None else verdict.exit_code


if __name__ == "__main__":
    sys.exit(main(msgspec.json.decode(sys.argv[1], type=Scenario)))
