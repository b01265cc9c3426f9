from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heteromig.benchmarks.accuracy import agreement_percent, judge, members
from heteromig.benchmarks.catalog import Metric
from heteromig.core.errors import EvidenceError

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = np.arange(2000, dtype=np.int32).reshape(1000, 2)


def write_log(path: Path, answers: NDArray[Any]) -> Path:
    log = path / "mlperf_log_accuracy.json"
    entries = [
        {"seq_id": index, "qsl_idx": index, "data": row.tobytes().hex().upper(), "token_count": 0}
        for index, row in enumerate(answers)
    ]
    log.write_text(json.dumps(entries))
    return log


def test_a_group_is_an_input_and_those_after_it() -> None:
    assert members(4, 1).tolist() == [[0], [1], [2], [3]]
    assert members(4, 3).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 1]]
    assert members(2, 5).tolist() == [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]


@pytest.mark.parametrize("metric", [Metric.TOP1, Metric.ELEMENT])
def test_each_input_of_a_group_counts(tmp_path: Path, metric: Metric) -> None:
    answers = REFERENCE[members(1000, 4)]
    assert judge(write_log(tmp_path, answers), REFERENCE, metric, "99", 4).value_percent == 100
    answers[7, 2] = -1
    verdict = judge(write_log(tmp_path, answers), REFERENCE, metric, "99", 4)
    assert verdict.value_percent == pytest.approx(100 * (1 - 1 / 4000))
    assert verdict.samples == 1000
    with pytest.raises(EvidenceError, match="has 32 bytes for sample 0"):
        judge(write_log(tmp_path, answers), REFERENCE, metric, "99", 3)


def test_identical_answers_are_100_percent(tmp_path: Path) -> None:
    verdict = judge(write_log(tmp_path, REFERENCE), REFERENCE, Metric.TOP1, "99.9")
    assert (verdict.value_percent, verdict.passed, verdict.samples) == (100.0, True, 1000)


@pytest.mark.parametrize(("wrong", "passed"), [(1, True), (2, False)])
def test_the_target_itself_passes_and_less_does_not(tmp_path: Path, wrong: int, *, passed: bool) -> None:
    answers = REFERENCE.copy()
    answers[:wrong, 1] = -1
    verdict = judge(write_log(tmp_path, answers), REFERENCE, Metric.TOP1, "99.9")
    assert verdict.passed is passed
    assert verdict.value_percent == pytest.approx(100 - wrong / 10)


def test_elements_count_one_by_one() -> None:
    answers = REFERENCE.copy()
    answers[:10, 1] = -1
    assert agreement_percent(answers, REFERENCE, Metric.ELEMENT) == pytest.approx(99.5)
    assert agreement_percent(answers, REFERENCE, Metric.TOP1) == pytest.approx(99.0)


def test_relative_error_is_taken_off() -> None:
    reference = np.full((10, 4), 0.5, dtype=np.float32)
    assert agreement_percent(reference * np.float32(1.02), reference, Metric.RELATIVE_ERROR) == pytest.approx(98.0)


def test_not_a_number_does_not_pass(tmp_path: Path) -> None:
    reference = np.full((10, 4), 0.5, dtype=np.float32)
    verdict = judge(write_log(tmp_path, reference * np.nan), reference, Metric.RELATIVE_ERROR, "99")
    assert verdict.passed is False


def test_a_log_without_every_sample_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="lacks 1 of 1000 samples"):
        judge(write_log(tmp_path, REFERENCE[:-1]), REFERENCE, Metric.TOP1, "99")


def test_a_log_with_other_answers_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="has 4 bytes for sample 0"):
        judge(write_log(tmp_path, REFERENCE[:, :1].copy()), REFERENCE, Metric.TOP1, "99")


def test_a_cut_log_is_no_evidence(tmp_path: Path) -> None:
    log = write_log(tmp_path, REFERENCE)
    log.write_text(log.read_text()[:-40])
    with pytest.raises(EvidenceError, match="cannot be read"):
        judge(log, REFERENCE, Metric.TOP1, "99")
