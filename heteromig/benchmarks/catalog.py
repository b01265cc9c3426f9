"""What the embedded benchmarks are called and what each of them supports.

Light on purpose (standard library and msgspec): the controller reads it to plan a run without loading a runtime.
Scenarios, accuracy levels and latency limits follow the MLPerf Inference datacenter and edge rules for these models;
the graphs behind the names are small stand-ins of the same kind of architecture, so that the figures are no MLPerf
results.
"""

from __future__ import annotations

import difflib
from enum import Enum

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.core.spec import BenchmarkInfo

OFFLINE = "offline"
SERVER = "server"
SINGLE_STREAM = "singlestream"
MULTI_STREAM = "multistream"
LOADGEN_NAMES = {OFFLINE: "Offline", SERVER: "Server", SINGLE_STREAM: "SingleStream", MULTI_STREAM: "MultiStream"}
"""What LoadGen calls the scenarios, in its settings and its logs."""
ACCURACIES = ("99", "99.9")
"""Percent of the unoptimised fp32 graph's accuracy that an engine must reach.

99.9 is fp32 everywhere; 99 is int8 on a CPU and fp16 on a GPU.
"""
SERVER_PERCENTILE = 0.99
SERVER_MIN_QUERIES = 1000
"""LoadGen judges the 99th percentile by early stopping, which needs 662 queries when none is late and more when some
are."""

OUTCOME = "outcome.json"
"""What a run that came to its end leaves in its log directory: how many samples it did not compute."""


class Metric(Enum):
    """How an engine's answers are compared with those of the unoptimised graph; the value is its public name."""

    TOP1 = "top-1 agreement"
    """Share of samples whose whole answer is identical."""
    ELEMENT = "element agreement"
    """Share of single decisions (voxels, tokens) that are identical."""
    RELATIVE_ERROR = "1 - relative error"
    """One less the relative L2 error over all samples, in percent like the others."""


class BenchmarkSpec(Struct, frozen=True):
    """One embedded benchmark.

    `sample_count` samples make up the whole set and all of it fits in memory. `batch` is how many of them one Offline
    chunk or one Server batch takes at most on a CPU: large enough to hide the cost of a call, small enough that a chunk
    lasts 5 to 20 ms on one core, which is how long a clean stop can lag. `server_latency_ns` bounds the 99th
    percentile.
    """

    name: str
    task: str
    scenarios: tuple[str, ...]
    default_accuracy: str
    metric: Metric
    sample_count: int
    batch: int
    server_latency_ns: int
    accuracies: tuple[str, ...] = ACCURACIES

    @property
    def info(self) -> BenchmarkInfo:
        """The entry as a plan knows it."""
        return BenchmarkInfo(
            name=self.name,
            model=self.name,
            scenarios=self.scenarios,
            accuracies=self.accuracies,
            default_accuracy=self.default_accuracy,
        )


_DATACENTER = (OFFLINE, SERVER)
_DATACENTER_AND_EDGE = (*_DATACENTER, SINGLE_STREAM)
_VISION = (*_DATACENTER_AND_EDGE, MULTI_STREAM)
_MS = 1_000_000

BENCHMARKS = {
    spec.name: spec
    for spec in (
        BenchmarkSpec("resnet50", "image classification", _VISION, "99", Metric.TOP1, 256, 8, 15 * _MS),
        BenchmarkSpec("ssd-resnet34", "object detection", _VISION, "99", Metric.TOP1, 256, 8, 100 * _MS),
        BenchmarkSpec("ssd-mobilenet", "object detection", _VISION, "99", Metric.TOP1, 256, 16, 50 * _MS),
        BenchmarkSpec("bert", "question answering", _DATACENTER_AND_EDGE, "99", Metric.TOP1, 512, 8, 130 * _MS),
        BenchmarkSpec("dlrm", "recommendation", _DATACENTER, "99.9", Metric.RELATIVE_ERROR, 256, 16, 30 * _MS),
        BenchmarkSpec("3d-unet", "segmentation", (OFFLINE, SINGLE_STREAM), "99.9", Metric.ELEMENT, 64, 2, 1000 * _MS),
        BenchmarkSpec("rnnt", "speech recognition", _DATACENTER_AND_EDGE, "99", Metric.ELEMENT, 256, 16, 1000 * _MS),
    )
}
"""Latency limits are MLPerf's Server limits (v1.1 to v2.1 rules); ssd-mobilenet, which has none, takes 50 ms, the limit
of its former multi-stream scenario. The streams are edge scenarios: all models of the edge set have SingleStream, those
that look at camera pictures MultiStream too, and dlrm, which is for data centers only, has neither."""

SETS = {
    "all": tuple(BENCHMARKS),
    "datacenter": ("resnet50", "ssd-resnet34", "bert", "dlrm", "3d-unet", "rnnt"),
    "edge": ("resnet50", "ssd-mobilenet", "ssd-resnet34", "bert", "3d-unet", "rnnt"),
}
"""Named sets of benchmarks; main's model is taken out by whoever plans a run."""


def require(name: str) -> BenchmarkSpec:
    """The benchmark of that name.

    Raises:
        UsageError: there is none; the message has the nearest known name.
    """
    spec = BENCHMARKS.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(BENCHMARKS)}."
        raise UsageError(f"There is no embedded benchmark {name!r}: {hint}")
    return spec


def require_supported(name: str, scenario: str, accuracy: str) -> BenchmarkSpec:
    """The benchmark, checked to offer the scenario and the accuracy level.

    Raises:
        UsageError: the name is unknown, or the benchmark does not offer one of the two.
    """
    spec = require(name)
    if scenario not in spec.scenarios:
        raise UsageError(
            f"{name} has no {scenario!r} scenario: choose {_any_of(spec.scenarios)}, or another benchmark."
        )
    if accuracy not in spec.accuracies:
        raise UsageError(f"{name} has no accuracy level {accuracy!r}: choose {_any_of(spec.accuracies)}.")
    return spec


def _any_of(names: tuple[str, ...]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def table() -> str:
    """The catalog as lines of text with aligned columns."""
    rows = [
        ("NAME", "TASK", "SCENARIOS", "ACCURACY", "SAMPLES", "SERVER P99", "SETS"),
        *(_row(spec) for spec in BENCHMARKS.values()),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "* default accuracy level, percent of the unoptimised fp32 graph"])


def _row(spec: BenchmarkSpec) -> tuple[str, ...]:
    return (
        spec.name,
        spec.task,
        ",".join(spec.scenarios),
        ",".join(f"{level}*" if level == spec.default_accuracy else level for level in spec.accuracies),
        str(spec.sample_count),
        f"{spec.server_latency_ns // _MS} ms" if SERVER in spec.scenarios else "-",
        ",".join(name for name, members in SETS.items() if spec.name in members),
    )
