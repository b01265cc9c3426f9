"""The wall clock of a whole run that is neither building, starting, buffering nor main."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from tests.bench import real
from tests.bench.launching import scratch
from tests.bench.table import Row, judge_median, spread

BUDGET_S = 2.0
RUNS = 2
WORK = (Phase.BUILDING, Phase.BACKGROUND_STARTING, Phase.BUFFERING, Phase.MAIN_RUNNING)
REST = (Phase.DISCOVERING, Phase.DRAINING, Phase.VALIDATING)


def measure() -> list[Row]:
    """Real runs of `heteromig run`, from the start of the interpreter to its end; the first one builds engines."""
    outside: list[float] = []
    rest: dict[Phase, list[float]] = {phase: [] for phase in REST}
    program: list[float] = []
    with scratch() as name:
        for _ in range(RUNS):
            took_s = real.run(Path(name))
            phases = phases_s(Path(name) / "latest")
            outside.append(took_s - sum(phases[phase] for phase in WORK))
            program.append(took_s - sum(phases.values()))
            for phase in REST:
                rest[phase].append(phases[phase])
    return [
        Row(
            what="wall clock outside build + start + buffer + main (real LoadGen, 7 slices)",
            measured=spread(outside, "s"),
            budget=f"<= {BUDGET_S:g} s",
            verdict=judge_median(outside, BUDGET_S),
        ),
        *(
            Row(what=f"  of which {phase.value}", measured=spread(rest[phase], "s"), budget="", verdict="")
            for phase in REST
        ),
        Row(
            what="  of which starting and ending the program, sealing the files",
            measured=spread(program, "s"),
            budget="",
            verdict="",
        ),
    ]


def phases_s(run_dir: Path) -> dict[Phase, float]:
    """How long the run was in each phase, by `run.json`."""
    record = msgspec.json.decode((run_dir / "run.json").read_bytes(), type=RunRecord)
    return {
        Phase(phase.name): (_time(phase.left_at) - _time(phase.entered_at)).total_seconds()
        for phase in record.phases
        if phase.left_at is not None
    }


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
