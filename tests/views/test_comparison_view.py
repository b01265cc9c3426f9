"""A comparison for people: in 80 columns, and as Markdown; nothing that programs call their figures is interpreted."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from heteromig.core.degradation import (
    Change,
    ComparedRun,
    Comparison,
    Difference,
    Estimate,
    Gate,
    GateOutcome,
    GateResult,
    Judgement,
)
from heteromig.results.metrics import HEAT, POWER, QPS, TEMPERATURE, metric_of
from heteromig.views.comparison_view import comparison, comparison_markdown
from heteromig.views.text import cells

ALONE = ComparedRun("runs/s/1-baseline", "1-baseline", "baseline", "valid", ())
BESIDE = ComparedRun("runs/s/2", "2", "run", "valid", ("dlrm", "bert", "dlrm"))
FOUND = Comparison(
    schema_version=1,
    simulated=False,
    benchmark="resnet50",
    scenario="server",
    primary="p99",
    paired=True,
    confidence=0.95,
    first=(ALONE, replace(ALONE, run_dir="runs/s/3-baseline")),
    second=(BESIDE,),
    changes=(
        Change(QPS, 1234567.8, 1183950.5, Estimate(-0.041, -0.05, -0.032, 3), Judgement.WORSE, "4.1 % slower"),
        Change(metric_of("p99"), 2.5, 3.0, Estimate(0.2, -0.1, 0.5, 3), Judgement.INCONCLUSIVE, "inconclusive"),
        Change(TEMPERATURE, 50.0, 58.0, Estimate(8.0, 7.0, 9.0, 3), Judgement.MORE, "8.0 °C higher"),
        Change(HEAT, 0.0, 0.0, Estimate(0.0, None, None, 1), Judgement.NO_DIFFERENCE, "no difference"),
        Change(POWER, None, None, None, Judgement.UNKNOWN, "not permitted"),
        Change(metric_of("energy"), None, None, None, Judgement.UNKNOWN, "not permitted"),
    ),
    gates=(
        GateResult(Gate("qps:-2%", "qps", -0.02, below=True), GateOutcome.EXCEEDED, "qps:-2% failed: it did."),
        GateResult(Gate("p99:+9%", "p99", 0.09, below=False), GateOutcome.KEPT, "p99:+9% is kept: it was."),
    ),
    differences=(Difference("driver", "570.1", "580.2"),),
    remarks=("They were measured on different hosts: one, other.",),
    status="gate failed",
    exit_code=8,
    sentence="qps:-2% failed: it did.",
)


def shown(found: Comparison = FOUND, width: int = 80) -> str:
    memory = io.StringIO()
    Console(file=memory, highlight=False).print(comparison(found, width), soft_wrap=True)
    return memory.getvalue()


def test_all_of_it_in_80_columns() -> None:
    text = shown()
    assert max(map(cells, text.splitlines())) <= 80
    assert (
        text
        == """\
GATE FAILED (exit 8): qps:-2% failed: it did.

Main         resnet50 server
A            2 baselines
             runs/s/1-baseline
             runs/s/3-baseline
B            a run beside 3 backgrounds (2 x dlrm, bert)
             runs/s/2

  METRIC                 A        B  CHANGE         95 % INTERVAL
  qps samples/s    1234568  1183950  4.1 % slower   -5.0 to -3.2 %
  p99 ms               2.5        3  inconclusive   -10.0 to +50.0 %
  temperature °C        50       58  8.0 °C higher  +7.0 to +9.0 °C
  heat-slowdown %        0        0  no difference  -

Gates        p99:+9% is kept: it was.
Differing    driver: 570.1 against 580.2
Noted        They were measured on different hosts: one, other.
             Power, energy, clock and temperature are those of the whole GPU,
             neighbours included.
Not there    power, energy: not permitted
"""
    )


def test_simulated_sides_say_so_first() -> None:
    assert shown(replace(FOUND, simulated=True)).splitlines()[1].startswith("SIMULATED: no GPU was involved")
    assert "> SIMULATED: no GPU was involved" in comparison_markdown(replace(FOUND, simulated=True))


def test_nothing_to_show_is_shown() -> None:
    text = shown(replace(FOUND, changes=(), gates=(), differences=(), remarks=()))
    assert "METRIC" in text


def test_many_runs_are_counted() -> None:
    text = shown(replace(FOUND, second=(BESIDE,) * 9))
    assert "9 runs beside 3 backgrounds" in text
    assert text.count("runs/s/2") == 3
    assert "... and 6 more" in text


def test_markdown() -> None:
    assert (
        comparison_markdown(FOUND)
        == """\
**Gate failed** (exit 8): qps:-2% failed: it did.

resnet50 server; A: 2 baselines; B: a run beside 3 backgrounds (2 x dlrm, bert)

| metric | A | B | change | 95 % interval |
|---|---:|---:|---|---|
| qps samples/s | 1234568 | 1183950 | 4.1 % slower | -5.0 to -3.2 % |
| p99 ms | 2.5 | 3 | inconclusive | -10.0 to +50.0 % |
| temperature °C | 50 | 58 | 8.0 °C higher | +7.0 to +9.0 °C |
| heat-slowdown % | 0 | 0 | no difference | - |

- Gates: p99:+9% is kept: it was.
- Differing: driver: 570.1 against 580.2
- Noted: They were measured on different hosts: one, other.
- Power, energy, clock and temperature are those of the whole GPU, neighbours included.
- Not there: power, energy: not permitted"""
    )


@pytest.mark.parametrize("name", ["\x1b[31mred", "a|b", "<img src=x>", "*bold*", "`code`", "[link](http://x)"])
def test_what_a_program_calls_its_figure_changes_nothing(name: str) -> None:
    odd = Change(metric_of(name), 1.0, 1.0, Estimate(0.0, None, None, 1), Judgement.NO_DIFFERENCE, "no difference")
    found = replace(FOUND, changes=(odd,))
    assert "\x1b" not in shown(found)
    (row,) = [line for line in comparison_markdown(found).splitlines() if "no difference" in line]
    assert "\x1b" not in row
    assert row.replace("\\|", "").count("|") == 6
    assert "<" not in row
    assert not row.startswith("| *")
