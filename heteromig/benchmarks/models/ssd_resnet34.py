"""Single-shot detector on a backbone of basic residual blocks: two 3x3 convolutions around a shortcut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heteromig.benchmarks.graphs import Graph
from heteromig.benchmarks.models import detection

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Model

WIDTHS = (16, 32, 64, 96)
"""Channels after the stem and after each stage."""


def make(sample_count: int) -> Model:
    """Samples are 64 x 64 images with one object each."""
    graph = Graph("ssd-resnet34")
    data = detection.dataset(graph, sample_count)
    stem, first, second, third = WIDTHS
    x = graph.input("image", "float32", 3, detection.SIDE, detection.SIDE)
    x = graph.op("Relu", graph.batch_norm(graph.conv(x, (3, stem), 3, stride=2), stem))
    x = _block(graph, _block(graph, x, (stem, first), stride=2), (first, first))
    small = _block(graph, _block(graph, x, (first, second), stride=2), (second, second))
    large = _block(graph, _block(graph, small, (second, third), stride=2), (third, third))
    return detection.finish(graph, ((small, second), (large, third)), data)


def _block(graph: Graph, x: str, channels: tuple[int, int], stride: int = 1) -> str:
    inputs, outputs = channels
    y = graph.op("Relu", graph.batch_norm(graph.conv(x, (inputs, outputs), 3, stride=stride), outputs))
    y = graph.batch_norm(graph.conv(y, (outputs, outputs), 3), outputs, gain=0.5)
    if stride != 1 or inputs != outputs:
        x = graph.batch_norm(graph.conv(x, (inputs, outputs), 1, stride=stride), outputs)
    return graph.op("Relu", graph.op("Add", x, y))
