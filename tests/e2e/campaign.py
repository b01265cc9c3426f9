"""Runs one after the other with one crew: `python -m tests.e2e.campaign RUNS_DIR BACKGROUND_DURATION [CONFIG]`.

It starts a run for each line that it reads, says a line of JSON about it, and dismisses its crew at the end of the
input. A configuration, which is a file, takes the place of the usual one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.spec import Drain
from heteromig.runner.config import BackgroundConfig, Config, MainConfig, TimingConfig, read_config, resolve
from heteromig.runner.crew import Crew
from heteromig.runner.session import execute
from heteromig.views.console import choose_reporter
from tests.e2e import quick
from tests.e2e.product import BOARD


class Told(Struct, frozen=True):
    """What it says of one run."""

    run_dir: str
    exit_code: int


def main(runs_dir: str, background_duration: str, config: str | None = None) -> None:
    usual = Config(
        slices=BOARD,
        harness=quick.QuickHarness.name,
        runs_dir=runs_dir,
        drain=Drain.KILL,
        main=MainConfig(duration="300ms"),
        background=BackgroundConfig(benchmarks="dlrm,rnnt", duration=background_duration),
        timing=TimingConfig(start_time_buffer=0, clean_stop="5s", grace="5s"),
    )
    spec = resolve(usual if config is None else read_config(Path(config)))
    spec = msgspec.structs.replace(spec, keeps_backgrounds=True, drain=Drain.KILL)
    crew = Crew(Path(runs_dir).absolute())
    try:
        for _ in sys.stdin:
            outcome = execute(spec, choose_reporter(live=False, quiet=True), crew=crew)
            assert outcome.record.verdict is not None
            told = Told(str(outcome.run_dir), outcome.record.verdict.exit_code)
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
            sys.stdout.flush()
    finally:
        assert crew.dismiss(spec.timing) is None


if __name__ == "__main__":
    main(*sys.argv[1:])
