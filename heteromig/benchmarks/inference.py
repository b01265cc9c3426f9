"""What an engine is to the rest of the program: two functions, whatever runs behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

Answer = Callable[[list[int]], NDArray[Any]]
"""From the indices of some samples to their answers: one contiguous row per index, in the same order."""


class Engine(Protocol):
    """A runtime on a device. `device` and `version` are recorded with each run."""

    device: str
    name: str
    version: str

    def build(self, model: bytes, accuracy: str, scratch: Path, engine: Path) -> None:
        """Write an engine for an ONNX model at an accuracy level."""
        ...

    def load(self, engine: Path, samples: Mapping[str, NDArray[Any]]) -> Answer:
        """Read an engine and keep the sample set at hand."""
        ...
