"""Single-shot detector on depthwise separable blocks: a 3x3 convolution per channel, then a 1x1 across, with ReLU6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heteromig.benchmarks.graphs import Graph
from heteromig.benchmarks.models import detection

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Model

STEM = 24
SMALL = ((64, 2), (64, 1), (128, 2))
"""(channels, stride) of the blocks up to the grid for small objects."""
LARGE = ((128, 1), (168, 2), (168, 1))


def make(sample_count: int) -> Model:
    """Samples are 64 x 64 images with one object each."""
    graph = Graph("ssd-mobilenet")
    data = detection.dataset(graph, sample_count)
    x = graph.input("image", "float32", 3, detection.SIDE, detection.SIDE)
    x = _relu6(graph, graph.batch_norm(graph.conv(x, (3, STEM), 3, stride=2), STEM))
    channels = STEM
    maps = []
    for blocks in (SMALL, LARGE):
        for outputs, stride in blocks:
            x = _separable(graph, x, (channels, outputs), stride)
            channels = outputs
        maps.append((x, channels))
    return detection.finish(graph, tuple(maps), data)


def _separable(graph: Graph, x: str, channels: tuple[int, int], stride: int) -> str:
    inputs, outputs = channels
    x = _relu6(graph, graph.batch_norm(graph.conv(x, (inputs, inputs), 3, stride=stride, group=inputs), inputs))
    return _relu6(graph, graph.batch_norm(graph.conv(x, (inputs, outputs), 1), outputs))


def _relu6(graph: Graph, x: str) -> str:
    return graph.op("Clip", x, graph.constant(0.0), graph.constant(6.0))
