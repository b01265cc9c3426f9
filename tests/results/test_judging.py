"""What a change is called, and when a limit is exceeded, kept, or beyond what the runs can tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.degradation import Estimate, GateOutcome, Judgement
from heteromig.core.errors import UsageError
from heteromig.results.judging import gateable, judge, judge_gate, parse_gate
from heteromig.results.metrics import POWER, QPS, TEMPERATURE, metric_of
from heteromig.results.wording import percent, sentence, worded
from tests.core.histories import examples

P99 = metric_of("p99")
ONE_RUN = "no interval with one run"
KNOWN = ("qps", "p50", "p99", "p99.9")


def change(middle: float, low: float | None = None, high: float | None = None, noise: float | None = None) -> Estimate:
    return Estimate(middle, low, high, 1 if low is None else 3, noise)


@pytest.mark.parametrize(
    ("estimate", "of_throughput", "of_latency", "of_power"),
    [
        (change(-0.041, -0.05, -0.032), Judgement.WORSE, Judgement.BETTER, Judgement.LESS),
        (change(0.041, 0.032, 0.05), Judgement.BETTER, Judgement.WORSE, Judgement.MORE),
        (change(0.001, -0.004, 0.0049), *[Judgement.NO_DIFFERENCE] * 3),
        (change(0.001, -0.004, 0.0051), *[Judgement.INCONCLUSIVE] * 3),
        (change(-0.04, -0.1, 0.02), *[Judgement.INCONCLUSIVE] * 3),
        (change(0.0), *[Judgement.NO_DIFFERENCE] * 3),
        (change(-0.04), Judgement.WORSE, Judgement.BETTER, Judgement.LESS),
        (change(-0.04, noise=0.05), *[Judgement.INCONCLUSIVE] * 3),
        (change(-0.04, noise=0.01), Judgement.WORSE, Judgement.BETTER, Judgement.LESS),
        (change(0.001, noise=0.002), *[Judgement.NO_DIFFERENCE] * 3),
    ],
)
def test_judgement(estimate: Estimate, of_throughput: Judgement, of_latency: Judgement, of_power: Judgement) -> None:
    assert [judge(metric, estimate) for metric in (QPS, P99, POWER)] == [of_throughput, of_latency, of_power]


def test_temperatures_differ_by_degrees() -> None:
    assert judge(TEMPERATURE, change(0.9, 0.8, 1.0)) is Judgement.NO_DIFFERENCE
    assert judge(TEMPERATURE, change(3.0, 2.5, 3.5)) is Judgement.MORE
    assert judge(TEMPERATURE, change(3.0, noise=4.0)) is Judgement.INCONCLUSIVE
    assert worded(TEMPERATURE, change(3.0), Judgement.MORE) == "3.0 °C higher"


@given(st.floats(-0.9, 5), st.floats(0, 1))
@examples(200)
def test_noise_hides_a_change_and_its_inverse_alike(relative: float, noise: float) -> None:
    there = judge(QPS, change(relative, noise=noise))
    back = judge(QPS, change(1 / (1 + relative) - 1, noise=noise))
    if abs(abs(relative) - noise) > 1e-6 and abs(relative) > 0.02:
        assert (there is Judgement.INCONCLUSIVE) == (back is Judgement.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("text", "estimate", "outcome"),
    [
        ("qps:-2%", change(-0.041, -0.05, -0.032), GateOutcome.EXCEEDED),
        ("qps:-2%", change(-0.021, -0.03, -0.012), GateOutcome.UNDECIDED),
        ("qps:-2%", change(-0.001, -0.015, 0.012), GateOutcome.KEPT),
        ("qps:-2%", change(0.5, 0.4, 0.6), GateOutcome.KEPT),
        ("qps:-2%", change(-0.021), GateOutcome.EXCEEDED),
        ("qps:-2%", change(-0.02), GateOutcome.KEPT),
        ("qps:-2%", change(-0.021, noise=0.03), GateOutcome.UNDECIDED),
        ("qps:-2%", change(-0.021, noise=0.01), GateOutcome.EXCEEDED),
        ("p99:+10%", change(0.3, 0.2, 0.4), GateOutcome.EXCEEDED),
        ("p99:+10%", change(0.1, 0.05, 0.2), GateOutcome.UNDECIDED),
        ("p99:+10%", change(-0.3, -0.4, -0.2), GateOutcome.KEPT),
        ("p99: + 10.5 %", change(0.104), GateOutcome.KEPT),
    ],
)
def test_gate(text: str, estimate: Estimate, outcome: GateOutcome) -> None:
    result = judge_gate(parse_gate(text, KNOWN), estimate)
    assert result.outcome is outcome
    assert result.sentence.startswith(text)


def test_a_gate_that_fails_says_by_how_much() -> None:
    result = judge_gate(parse_gate("qps:-2%", KNOWN), change(-0.041, -0.05, -0.032))
    assert result.sentence == (
        "qps:-2% failed: qps changed by -4.1 % (-5.0 % to -3.2 %), 2.10 points beyond the limit."
    )


def test_a_gate_without_a_figure_is_undecided_and_says_why() -> None:
    result = judge_gate(parse_gate("power:+5%", gateable(KNOWN)), None, "the simulator measures no such thing")
    assert result.outcome is GateOutcome.UNDECIDED
    assert result.sentence == ("power:+5% cannot be decided: power is n/a, the simulator measures no such thing.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qps", "is no limit: write a metric, a sign and a percentage"),
        ("qps:2%", "is no limit"),
        ("qps:-2", "is no limit"),
        ("qps:-nan%", "is no limit"),
        ("qps:-1e9%", "is no limit"),
        ("", "is no limit"),
        ("p999:+1%", "no metric 'p999'; did you mean 'p99.9'?"),
        ("p95:+1%", "there is no p95 in these runs' scenario or logs. These runs have qps, p50, p99, p99.9"),
        ("thoughput:-1%", "there is no metric 'thoughput'. These runs have"),
        ("temperature:+5%", "is no percentage"),
    ],
)
def test_gates_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_gate(text, gateable(KNOWN))
    assert words in str(refusal.value)


def test_a_metric_may_be_written_in_any_case() -> None:
    assert parse_gate("QPS:-2%", KNOWN).metric == "qps"
    assert parse_gate("mytime:-2%", ("MyTime",)).metric == "MyTime"


@pytest.mark.parametrize(
    ("share", "text"), [(-0.041, "-4.1 %"), (0.0003, "+0.03 %"), (0.0, "0 %"), (-0.00001, "0 %"), (1.5, "+150.0 %")]
)
def test_percentages(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (
            change(-0.041, -0.05, -0.032),
            "throughput: 4.1 % slower (95 % interval from 5.0 % slower to 3.2 % slower, n = 3)",
        ),
        (
            change(0.001, -0.03, 0.032),
            "throughput: inconclusive (95 % interval from 3.0 % slower to 3.2 % faster, n = 3)",
        ),
        (change(-0.041), "throughput: 4.1 % slower (no interval with one run on each side)"),
        (change(0.0), "throughput: no difference (measured the same; no interval with one run on each side)"),
        (
            change(-0.041, noise=0.05),
            f"throughput: inconclusive (measured 4.1 % slower; {ONE_RUN}, and its two baselines lay 5.0 % apart)",
        ),
    ],
)
def test_sentences(estimate: Estimate, words: str) -> None:
    assert sentence(QPS, estimate, judge(QPS, estimate)) == words
