"""Image classifier of bottleneck residual blocks: 1x1, 3x3, 1x1 convolutions around a shortcut, batch-normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heteromig.benchmarks.graphs import Graph, Model, one_hot

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Array

CLASSES = 40
SIDE = 64
STAGES = ((24, 96, 3, 1), (48, 192, 4, 2), (64, 256, 3, 2))
"""(inner channels, outer channels, blocks, stride of the first block)."""


def make(sample_count: int) -> Model:
    """Samples are noisy images of 40 random patterns."""
    graph = Graph("resnet50")
    patterns = graph.rng.standard_normal((CLASSES, 3, SIDE, SIDE)).astype(np.float32)
    train, labels = _images(graph, patterns, 6 * CLASSES)
    samples, _ = _images(graph, patterns, sample_count)

    x = graph.input("image", "float32", 3, SIDE, SIDE)
    x = graph.op("Relu", graph.batch_norm(graph.conv(x, (3, 16), 7, stride=2), 16))
    x = graph.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 16
    for inner, outer, blocks, stride in STAGES:
        for block in range(blocks):
            x = _bottleneck(graph, x, (channels, inner, outer), stride if block == 0 else 1)
            channels = outer
    features = graph.op("Flatten", graph.op("GlobalAveragePool", x))
    logits = graph.fitted_dense(features, graph.fit(features, {"image": train}, one_hot(labels, CLASSES)))
    answer = graph.op("Cast", graph.op("ArgMax", logits, axis=1, keepdims=1), to=6)
    return Model(onnx=graph.model((answer, "int32")), samples={"image": samples})


def _images(graph: Graph, patterns: Array, count: int) -> tuple[Array, Array]:
    labels = graph.rng.integers(0, len(patterns), count)
    noise = graph.rng.standard_normal((count, *patterns.shape[1:]))
    return (patterns[labels] + 0.4 * noise).astype(np.float32), labels


def _bottleneck(graph: Graph, x: str, channels: tuple[int, int, int], stride: int) -> str:
    inputs, inner, outputs = channels
    y = graph.op("Relu", graph.batch_norm(graph.conv(x, (inputs, inner), 1), inner))
    y = graph.op("Relu", graph.batch_norm(graph.conv(y, (inner, inner), 3, stride=stride), inner))
    y = graph.batch_norm(graph.conv(y, (inner, outputs), 1), outputs, gain=0.5)
    if stride != 1 or inputs != outputs:
        x = graph.batch_norm(graph.conv(x, (inputs, outputs), 1, stride=stride), outputs)
    return graph.op("Relu", graph.op("Add", x, y))
