"""heteromig with one more harness, `quick`, whose workers are `null_worker`s: `python -m tests.e2e.quick run ...`.

The environment says what is special: QUICK_MAIN, QUICK_BACKGROUND and QUICK_BUILD name a habit, QUICK_SLICE a slice
that backgrounds are told to use instead of their own, QUICK_PROGRAM a program for backgrounds instead of Python.
QUICK_OBSTACLE puts a file where the directory of a background has to be. QUICK_BUILD says that engines are missing.
QUICK_JUDGING names a file for which the judging of main waits.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from heteromig.cli.main import main
from heteromig.core.overlap import MainResult
from heteromig.core.phases import Role
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import RunSpec
from heteromig.harnesses import HARNESSES
from heteromig.harnesses.judging import judge_performance
from heteromig.harnesses.loadgen import LoadgenHarness
from heteromig.logs.detail import read_detail
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.workers.command import Command


class QuickHarness(LoadgenHarness):
    """The benchmarks of the embedded harness, without their engines."""

    name = "quick"
    start_time_buffer_ms = 0

    def missing_engines(self, needs: tuple[EngineNeed, ...], spec: RunSpec) -> tuple[tuple[EngineNeed, str], ...]:
        del spec
        return tuple((need, "It is to be built.") for need in needs) if "QUICK_BUILD" in os.environ else ()

    def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:
        del spec
        path = run_dir / main.directory / DETAIL_LOG
        judging = os.environ.get("QUICK_JUDGING")
        while judging is not None and not Path(judging).exists():
            time.sleep(0.01)
        return judge_performance(path, read_detail(path), main)

    def command(self, assignment: Assignment, spec: RunSpec, run_dir: Path) -> Command:
        real = super().command(assignment, spec, run_dir)
        habit = os.environ.get(f"QUICK_{assignment.role.value.upper()}", "good")
        log_dir = str(run_dir / assignment.directory)
        env = dict(real.env)
        program = sys.executable
        if assignment.role is Role.BACKGROUND:
            env["CUDA_VISIBLE_DEVICES"] = os.environ.get("QUICK_SLICE", assignment.slice_uuid)
            program = os.environ.get("QUICK_PROGRAM", program)
            if "QUICK_OBSTACLE" in os.environ and run_dir.exists():
                (run_dir / assignment.directory).write_text("in the way")
        return Command(
            argv=(program, "-m", "tests.e2e.null_worker", log_dir, str(assignment.duration_ms), habit),
            env=env,
            cwd=real.cwd,
            clean_stop_signal=signal.SIGTERM,
        )


HARNESSES["quick"] = lambda _: QuickHarness()

if __name__ == "__main__":
    main()
