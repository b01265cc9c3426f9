"""Accuracy as an accuracy script sees it: LoadGen's own log against the reference answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from heteromig.benchmarks.catalog import Metric
from heteromig.core.errors import EvidenceError


class AccuracyVerdict(Struct, frozen=True):
    """`accuracy.json`: `value_percent` of the metric against `target_percent`, over `samples` samples."""

    metric: str
    value_percent: float
    target_percent: float
    passed: bool
    samples: int


class _LoggedResponse(Struct, frozen=True):
    qsl_idx: int
    data: str


def members(count: int, group: int) -> NDArray[np.int64]:
    """Which inputs each sample holds, (count, group): the one of its own index and those after it, in a circle.

    So there are as many samples as inputs, and none has to be stored more than once.
    """
    return np.add.outer(np.arange(count), np.arange(group)) % count


def judge(log: Path, reference: NDArray[Any], metric: Metric, accuracy: str, group: int = 1) -> AccuracyVerdict:
    """Compare what LoadGen logged with `reference`, one row per input of the set; samples hold `group` of them.

    Raises:
        EvidenceError: the log is cut short, or does not hold one whole answer for every sample.
    """
    try:
        logged = msgspec.json.decode(log.read_bytes(), type=list[_LoggedResponse])
    except (OSError, msgspec.DecodeError) as error:
        raise EvidenceError(f"LoadGen's accuracy log {log} cannot be read: {error}. Run again.") from error
    answers = np.empty((len(reference), group, *reference.shape[1:]), dtype=reference.dtype)
    seen = np.zeros(len(reference), dtype=bool)
    row_bytes = answers[0].nbytes
    for response in logged:
        data = bytes.fromhex(response.data)
        if response.qsl_idx >= len(reference) or len(data) != row_bytes:
            raise EvidenceError(
                f"{log} has {len(data)} bytes for sample {response.qsl_idx}; the reference has {len(reference)} "
                f"samples of {row_bytes} bytes. Build the engine again."
            )
        answers[response.qsl_idx] = np.frombuffer(data, reference.dtype).reshape(answers.shape[1:])
        seen[response.qsl_idx] = True
    if not seen.all():
        raise EvidenceError(f"{log} lacks {int((~seen).sum())} of {len(reference)} samples. Run again.")
    value_percent = agreement_percent(answers, reference, metric, group)
    target_percent = float(accuracy)
    return AccuracyVerdict(
        metric=metric.value,
        value_percent=value_percent,
        target_percent=target_percent,
        passed=value_percent >= target_percent,
        samples=len(reference),
    )


def agreement_percent(answers: NDArray[Any], reference: NDArray[Any], metric: Metric, group: int = 1) -> float:
    """The metric in percent, 100 for identical answers; never more, and less than 0 where the error exceeds them.

    Answers are one row a sample, the reference one row an input: each answer to an input counts.
    """
    reference = reference[members(len(reference), group).reshape(-1)]
    answers = answers.reshape(reference.shape)
    if metric is Metric.RELATIVE_ERROR:
        error = np.linalg.norm(answers.astype(np.float64) - reference) / np.linalg.norm(reference.astype(np.float64))
        return float(100.0 * (1.0 - error))
    same = answers == reference
    if metric is Metric.TOP1:
        same = same.reshape(len(reference), -1).all(axis=1)
    return float(100.0 * same.mean())
