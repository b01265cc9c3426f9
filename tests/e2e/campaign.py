"""Runs one after the other with one crew: `python -m tests.e2e.campaign RUNS_DIR [BACKGROUND_DURATION]`.

It starts a run for each line that it reads, says a line of JSON about it, and ends its crew at the end of the input.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.spec import Drain
from heteromig.runner.config import BackgroundConfig, Config, MainConfig, TimingConfig, resolve
from heteromig.runner.crew import Crew
from heteromig.runner.session import execute
from heteromig.views.console import choose_reporter
from tests.e2e import quick
from tests.e2e.product import BOARD


class Told(Struct, frozen=True):
    """What it says of one run."""

    run_dir: str
    exit_code: int


def main(runs_dir: str, background_duration: str) -> None:
    spec = resolve(
        Config(
            slices=BOARD,
            harness=quick.QuickHarness.name,
            runs_dir=runs_dir,
            drain=Drain.KILL,
            main=MainConfig(duration="300ms"),
            background=BackgroundConfig(benchmarks="dlrm,rnnt", duration=background_duration),
            timing=TimingConfig(start_time_buffer=0, clean_stop="5s", grace="5s"),
        )
    )
    spec = msgspec.structs.replace(spec, keeps_backgrounds=True)
    crew = Crew(Path(runs_dir).absolute())
    try:
        for _ in sys.stdin:
            outcome = execute(spec, choose_reporter(live=False, quiet=True), crew=crew)
            assert outcome.record.verdict is not None
            told = Told(str(outcome.run_dir), outcome.record.verdict.exit_code)
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
            sys.stdout.flush()
    finally:
        crew.dismiss(spec.timing)


if __name__ == "__main__":
    main(*sys.argv[1:])
