"""heteromig with one more harness, `soak`, whose workers do as they are told: `python -m tests.soak.product run ...`.

SOAK_PLAN is the JSON of a `FaultPlan`, and SOAK_TRUTH the directory in which workers leave what they know.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import msgspec

from heteromig.cli.main import main
from heteromig.core.plan import Assignment
from heteromig.core.spec import RunSpec
from heteromig.harnesses import HARNESSES
from heteromig.workers.command import Command
from tests.e2e.quick import QuickHarness
from tests.soak.planning import Behaviour, FaultPlan


class SoakHarness(QuickHarness):
    """The quick one with other workers."""

    name = "soak"

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        usual = super().command(assignment, spec, run_dir)
        plan = msgspec.json.decode(os.environ["SOAK_PLAN"], type=FaultPlan)
        behaviour = plan.behaviours.get(assignment.index, Behaviour())
        return Command(
            argv=(
                sys.executable, "-m", "tests.soak.worker", str(run_dir / assignment.directory),
                str(assignment.duration_ms), os.environ["SOAK_TRUTH"], str(assignment.index), behaviour.what,
                str(behaviour.after_s),
            ),
            env=usual.env,
            cwd=usual.cwd,
            clean_stop_signal=signal.SIGTERM,
        )  # fmt: skip


HARNESSES["soak"] = lambda _: SoakHarness()

if __name__ == "__main__":
    main()
