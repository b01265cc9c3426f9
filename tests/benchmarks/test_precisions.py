"""A runtime that computes wrongly in one precision, or in calls of one size, as some do on small slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from heteromig.benchmarks import build, engines
from heteromig.benchmarks.build import EngineRequest
from heteromig.benchmarks.catalog import BENCHMARKS
from heteromig.benchmarks.onnxruntime_cpu import OnnxRuntimeCpu
from heteromig.core.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from heteromig.benchmarks.catalog import BenchmarkSpec
    from heteromig.benchmarks.inference import Answer

SIZES = (2, 4)


class Faulty(OnnxRuntimeCpu):
    """ONNX Runtime, whose answers are swapped for calls of `wrong_size` in `wrong_precisions`."""

    def __init__(self, wrong_size: int, *wrong_precisions: str) -> None:
        self._wrong_size = wrong_size
        self._wrong_precisions = wrong_precisions
        self._precision = ""

    def precisions(self, accuracy: str) -> tuple[str, ...]:
        del accuracy
        return ("int8", "fp32")

    def batches(self, spec: BenchmarkSpec) -> tuple[int, ...]:
        del spec
        return SIZES

    def build(self, model: bytes, precision: str, scratch: Path, engine: Path) -> None:
        self._precision = precision
        super().build(model, precision, scratch, engine)

    def load(self, engine: Path, samples: Mapping[str, NDArray[Any]], batches: tuple[int, ...]) -> Answer:
        right = super().load(engine, samples, batches)
        wrong = self._precision in self._wrong_precisions

        def answer(indices: list[int]) -> NDArray[Any]:
            rows = right(indices)
            return np.flip(rows, axis=0) if wrong and len(indices) == self._wrong_size else rows

        return answer


def fill(folder: Path, engine: Faulty, monkeypatch: pytest.MonkeyPatch) -> str:
    """The precision of the engine that is kept. The larger size is worth it, so that both are in use."""
    monkeypatch.setattr(build, "choose_batch", lambda *_: SIZES[-1])
    build._fill(folder, EngineRequest(BENCHMARKS["resnet50"], "offline", "99", "1g.10gb"), engine)
    manifest = msgspec.json.decode((folder / engines.MANIFEST).read_bytes(), type=engines.Manifest)
    assert manifest.accuracy_percent >= 99
    return manifest.precision


def test_the_fastest_precision_is_kept_where_it_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fill(tmp_path, Faulty(4), monkeypatch) == "int8"


@pytest.mark.parametrize("size", SIZES)
def test_one_that_is_wrong_in_calls_of_one_size_is_not(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fill(tmp_path, Faulty(size, "int8"), monkeypatch) == "fp32"
    assert "this runtime computes int8 wrongly on this slice. Building fp32 instead." in capsys.readouterr().out


def test_none_is_kept_where_all_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PreflightError, match="does not compute what its model does: top-1 agreement of the fp32"):
        fill(tmp_path, Faulty(4, "int8", "fp32"), monkeypatch)
