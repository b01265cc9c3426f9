"""What an engine is to the rest of the program: a few functions, whatever runs behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from heteromig.benchmarks.catalog import BenchmarkSpec
from heteromig.benchmarks.runtimes import Device

Answer = Callable[[list[int]], NDArray[Any]]
"""From the indices of some samples to their answers: one contiguous row per index, in the same order.

A row holds the answers to all inputs of that sample.
"""


class Engine(Protocol):
    """A runtime on a device. `name` and `version` are the runtime's."""

    name: str
    version: str
    device: Device

    group: int
    """How many inputs of the sample set one LoadGen sample holds; see `accuracy.members`."""

    @property
    def compute_capability(self) -> str | None:
        """Of the GPU, such as `9.0`: an engine is for one; None on a CPU."""
        ...

    @property
    def clock_s(self) -> Callable[[], float]:
        """What the engine's rate is counted by, in seconds."""
        ...

    def gpu_facts(self) -> Mapping[str, Any] | None:
        """What is recorded with each run about the GPU; None on a CPU."""
        ...

    def batches(self, spec: BenchmarkSpec) -> tuple[int, ...]:
        """How many samples one call may take, in ascending order from the least; a build chooses among them."""
        ...

    def build(self, model: bytes, accuracy: str, scratch: Path, engine: Path) -> None:
        """Write an engine for an ONNX model at an accuracy level; `scratch` is an empty folder."""
        ...

    def load(self, engine: Path, samples: Mapping[str, NDArray[Any]], batches: tuple[int, ...]) -> Answer:
        """Read an engine, keep the sample set at hand, and be ready for calls with up to the last of `batches`.

        The others, in ascending order, are what it should be quick with.
        """
        ...
