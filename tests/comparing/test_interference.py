"""What a matrix comes to, from hand-made runs: costs, the worst neighbour, and holes that stay holes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from heteromig.campaign.matrix import BackgroundSet, CellRun, Ending, MatrixSettings, RunCell, Status, next_run
from heteromig.campaign.probes import Side
from heteromig.comparing.interference import Interference, Origin, Stop, interference
from heteromig.comparing.measured import Measured
from heteromig.core.degradation import Judgement
from heteromig.core.record import Tool
from heteromig.core.spec import Goal, Isolation
from heteromig.core.verdict import Verdict

ORIGIN = Origin(
    campaign_id="20260101T000000Z-matrix",
    tool=Tool("heteromig", "1"),
    harness="loadgen",
    slices="sim:a100-sxm-80gb/7x1g.10gb",
    simulated=True,
    isolation=Isolation.SIMULATED,
    began_at="2026-01-01T00:00:00Z",
)
LOUD, QUIET = BackgroundSet("loud", ("bert",)), BackgroundSet("quiet", ("dlrm",))
ASKED = MatrixSettings(
    mains=("resnet50",),
    background_sets=(LOUD, QUIET, BackgroundSet("both", ("bert", "dlrm"))),
    scenarios=("offline",),
    isolated_s=10.0,
    beside_s=20.0,
    repetitions=3,
)
VALID = Verdict(status="valid", exit_code=0, reasons=())
NOISE = (1.0, 1.002, 0.999, 1.001, 0.998, 1.0, 1.001)
SLOWER = {"loud": 0.7, "quiet": 0.95, "both": 0.6}


def measured(run: CellRun, side: Side, figures: Mapping[str, float]) -> Measured:
    return Measured(
        run_dir=Path("matrix") / run.run_id,
        run_id=run.run_id,
        goal=Goal.BASELINE if side is Side.ISOLATED else Goal.RUN,
        simulated=True,
        benchmark=run.cell.main,
        scenario=run.cell.scenario,
        verdict=VALID,
        figures={**figures, "power": 100.0 if side is Side.ISOLATED else 250.0, "power-capped": 0.0},
        missing={},
        settings=(("benchmark", run.cell.main), ("GPU product", "A100")),
        place=(("host", "here"),),
        backgrounds=() if side is Side.ISOLATED else run.cell.backgrounds.benchmarks,
        host_busy=False,
    )


def played(
    settings: MatrixSettings,
    slower: Mapping[str, float],
    *,
    noise: Sequence[float] = NOISE,
    failing: Sequence[str] = (),
    at_most: int = 1000,
) -> tuple[list[CellRun], dict[str, Measured]]:
    """All runs that the planner asks for: alone 1000 samples/s in 10 ms, beside a set so many times that."""
    runs: list[CellRun] = []
    read: dict[str, Measured] = {}
    while isinstance(step := next_run(settings, runs), RunCell) and len(runs) < at_most:
        name = step.cell.backgrounds.name
        beside = step.side is Side.BESIDE
        ending = Ending.FAILED if beside and name in failing else Ending.MEASURED
        reason = "Background 1 (bert) exited with status 3" if ending is Ending.FAILED else ""
        run = CellRun(step.cell, step.position, ending, f"run-{len(runs):03}", took_s=12.0, reason=reason)
        runs.append(run)
        if ending is Ending.MEASURED:
            share = noise[step.position] * (slower[name] if beside else 1.0)
            rate, latency = 1000 * share, 10 / share
            figures = (
                {"qps": rate} if step.cell.scenario == "offline" else {"qps": rate, "p90": latency, "p99": latency}
            )
            read[run.run_id] = measured(run, step.side, figures)
    return runs, read


def matrix(
    settings: MatrixSettings = ASKED,
    slower: Mapping[str, float] = SLOWER,
    *,
    noise: Sequence[float] = NOISE,
    failing: Sequence[str] = (),
    at_most: int = 1000,
    stop: Stop | None = None,
) -> Interference:
    runs, read = played(settings, slower, noise=noise, failing=failing, at_most=at_most)
    return interference(settings, runs, read, ORIGIN, stop)


def test_each_cell_says_what_its_neighbours_cost_and_between_what() -> None:
    found = matrix()
    assert (found.status, found.exit_code) == ("answered", 0)
    assert found.sentence == "3 of 3 cells are measured: 3 worse beside its neighbours."
    loud, quiet, both = found.cells
    for cell, cost in ((loud, 0.3), (quiet, 0.05), (both, 0.4)):
        assert cell.status is Status.COMPLETE
        assert cell.judgement is Judgement.WORSE
        assert cell.cost is not None
        assert cell.cost.share == pytest.approx(cost, abs=0.01)
        assert cell.cost.low is not None
        assert cell.cost.high is not None
        assert cell.cost.low < cell.cost.share < cell.cost.high
        assert [run.side for run in cell.runs] == [Side.ISOLATED, Side.BESIDE] * 3 + [Side.ISOLATED]
        assert cell.throughput is not None
        assert cell.throughput.first == pytest.approx(1000, rel=0.01)
        assert cell.latency is None, "Offline has none"
        power = cell.change("power")
        assert power is not None
        assert (power.first, power.second) == (100.0, 250.0)
    assert "throughput: 29.9 % slower" in loud.sentence
    assert ("GPU product", "A100") in found.conditions
    assert (found.runs_done, found.runs_left, found.left_s) == (21, 0, 0.0)
    assert found.took_s == 21 * 12.0
    assert msgspec.json.decode(msgspec.json.encode(found), type=Interference) == found


def test_a_latency_that_is_worse_where_it_is_not_judged_is_remarked() -> None:
    """A program may answer all it is asked, and later."""
    runs, read = played(ASKED, dict.fromkeys(SLOWER, 1.0))
    later = {
        name: replace(one, figures={**one.figures, "p99": 5.0 if one.is_baseline else 20.0})
        for name, one in read.items()
    }
    found = interference(ASKED, runs, later, ORIGIN)
    assert Judgement.WORSE not in {cell.judgement for cell in found.cells}
    remarks = [one for one in found.remarks if "is not judged by it, and still: latency p99: 300.0 % longer" in one]
    assert len(remarks) == len(found.cells)
    assert not any("still" in one for one in matrix().remarks)


def test_the_streams_are_judged_by_latency() -> None:
    found = matrix(replace(ASKED, scenarios=("singlestream",)))
    loud = found.cells[0]
    assert loud.primary == "p90"
    assert loud.latency is not None
    assert loud.latency.metric.name == "p90"
    assert loud.change("p99") is not None
    assert loud.cost is not None
    assert loud.cost.share == pytest.approx(1 / 0.7 - 1, abs=0.02), "longer is worse"
    assert "longer" in found.worst[0].sentence


def test_the_worst_neighbour_is_named_where_its_interval_is_apart() -> None:
    (worst,) = matrix().worst
    assert worst.benchmark == "bert"
    assert worst.sentence.startswith("resnet50 offline: the worst neighbour is bert, 29.9 % slower")


def test_where_intervals_overlap_the_worst_neighbour_cannot_be_told() -> None:
    (worst,) = matrix(slower={**SLOWER, "quiet": 0.701}).worst
    assert worst.benchmark is None
    assert "cannot be told: it was bert, " in worst.sentence
    assert worst.sentence.endswith("its interval overlaps that of dlrm.")


def test_one_repetition_has_no_interval_and_so_no_worst_neighbour() -> None:
    found = matrix(replace(ASKED, repetitions=1))
    assert found.cells[0].cost is not None
    assert found.cells[0].cost.low is None
    assert found.worst[0].benchmark is None
    assert found.worst[0].sentence.endswith("and with one repetition there is no interval.")


def test_neighbours_that_cost_nothing_have_no_worst_one() -> None:
    found = matrix(slower=dict.fromkeys(SLOWER, 1.0), noise=(1.0, 1.0001, 0.9999, 1.0, 1.0, 1.0001, 1.0))
    assert found.exit_code == 0
    assert "3 no difference" in found.sentence
    assert found.worst[0].benchmark is None
    assert "no neighbour is known to cost anything" in found.worst[0].sentence


def test_noise_that_hides_everything_is_inconclusive() -> None:
    found = matrix(slower=dict.fromkeys(SLOWER, 0.99), noise=(1.0, 1.3, 0.8, 0.7, 1.2, 1.25, 0.9))
    assert (found.status, found.exit_code) == ("inconclusive", 9)
    assert found.sentence.endswith("3 hidden by noise.")


def test_a_failed_cell_has_its_reason_and_no_figures() -> None:
    found = matrix(failing=["loud"])
    loud, *others = found.cells
    assert (loud.status, loud.changes, loud.cost) == (Status.FAILED, (), None)
    assert loud.reason == "failed 2 times: Background 1 (bert) exited with status 3"
    assert [(run.side, run.attempt, run.value is None) for run in loud.runs] == [
        (Side.ISOLATED, 1, False),
        (Side.BESIDE, 1, True),
        (Side.BESIDE, 2, True),
    ]
    assert {one.status for one in others} == {Status.COMPLETE}
    assert (found.status, found.exit_code) == ("inconclusive", 9)
    assert "1 failed" in found.sentence
    assert found.worst[0].benchmark is None
    assert "bert was not measured" in found.worst[0].sentence


def test_an_interrupted_matrix_says_what_is_left_and_shows_nothing_half_measured() -> None:
    found = matrix(at_most=10, stop=Stop(130, "Interrupted between two runs."))
    assert [cell.status for cell in found.cells] == [Status.COMPLETE, Status.PENDING, Status.PENDING]
    assert found.cells[1].reason == "3 of 7 runs are there"
    assert found.cells[1].cost is None
    assert found.worst[0].sentence.endswith("is told once all of them are measured.")
    assert (found.status, found.exit_code) == ("stopped", 130)
    assert found.sentence.startswith("Interrupted between two runs; 1 of 3 cells are measured: ")
    assert (found.runs_done, found.runs_left) == (10, 11)
    assert matrix(at_most=10).exit_code is None


def test_runs_that_cannot_be_compared_make_a_hole() -> None:
    runs, read = played(ASKED, SLOWER)
    second = runs[7].run_id
    read[second] = replace(read[second], settings=(("benchmark", "resnet50"), ("GPU product", "H100")))
    found = interference(ASKED, runs, read, ORIGIN)
    assert [cell.status for cell in found.cells] == [Status.COMPLETE, Status.FAILED, Status.COMPLETE]
    assert found.cells[1].cost is None
    assert "differ in more than their neighbours, GPU product: H100 or A100 against A100" in found.cells[1].reason
    assert ("GPU product", "A100") not in found.conditions


def test_a_figure_that_one_run_lacks_makes_a_hole() -> None:
    runs, read = played(ASKED, SLOWER)
    read[runs[1].run_id] = replace(read[runs[1].run_id], figures={"power": 250.0})
    found = interference(ASKED, runs, read, ORIGIN)
    assert found.cells[0].status is Status.FAILED
    assert found.cells[0].reason == f"qps is not known: {runs[1].run_id} does not have it"


def test_a_figure_that_is_better_neither_way_has_no_cost_and_no_worst_neighbour() -> None:
    runs, read = played(ASKED, SLOWER)
    own = {
        run_id: replace(one, figures={"steps": one.figures["qps"]}, missing={"qps": "x"})
        for run_id, one in read.items()
    }
    found = interference(ASKED, runs, own, ORIGIN)
    assert [(cell.primary, cell.judgement, cell.cost) for cell in found.cells] == [("steps", Judgement.LESS, None)] * 3
    assert [cell.own is None for cell in found.cells] == [False] * 3
    assert (found.cells[0].latency, found.worst) == (None, ())
    assert found.sentence.endswith("3 different beside them.")
