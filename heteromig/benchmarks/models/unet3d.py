"""Segmentation by a 3-D U-Net: an encoder of strided convolutions, a decoder of transposed ones, skips between.

Samples are volumes in four modalities, as of a scanner, with cuboid organs of three tissues in a fourth; the answer is
the class of each voxel. The last 1x1x1 convolution is fitted to the organs, written as a product over the channel axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heteromig.benchmarks.graphs import Graph, Model, one_hot

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Array

SIDE = 16
CLASSES = 4
MODALITIES = 4
CHANNELS = (8, 16, 32)


def make(sample_count: int) -> Model:
    """Samples are noisy volumes of 16 x 16 x 16 voxels."""
    graph = Graph("3d-unet")
    tissues = 2.0 * np.linalg.qr(graph.rng.standard_normal((CLASSES, MODALITIES)))[0]
    train, labels = _volumes(graph, tissues, 24)
    samples, _ = _volumes(graph, tissues, sample_count)

    x = graph.input("volume", "float32", MODALITIES, SIDE, SIDE, SIDE)
    first, second, third = CHANNELS
    top = _conv(graph, _conv(graph, x, (MODALITIES, first)), (first, first))
    middle = _conv(graph, _conv(graph, top, (first, second), stride=2), (second, second))
    bottom = _conv(graph, _conv(graph, middle, (second, third), stride=2), (third, third))
    y = graph.op("Concat", _upsample(graph, bottom, (third, second)), middle, axis=1)
    y = _conv(graph, y, (2 * second, second))
    y = graph.op("Concat", _upsample(graph, y, (second, first)), top, axis=1)
    y = _conv(graph, y, (2 * first, 2 * first))
    features = graph.op("Transpose", y, perm=[0, 2, 3, 4, 1])
    logits = graph.fitted_dense(features, graph.fit(features, {"volume": train}, one_hot(labels, CLASSES)))
    answer = graph.op("Cast", graph.op("ArgMax", logits, axis=4, keepdims=0), to=2)
    return Model(onnx=graph.model((answer, "uint8")), samples={"volume": samples})


def _volumes(graph: Graph, tissues: Array, count: int) -> tuple[Array, Array]:
    rng = graph.rng
    labels = np.zeros((count, SIDE, SIDE, SIDE), dtype=np.int64)
    for volume in labels:
        for organ in range(1, CLASSES):
            corner = rng.integers(0, SIDE - 6, 3)
            size = rng.integers(4, 8, 3)
            volume[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = organ
    volumes = np.moveaxis(tissues[labels], -1, 1)
    noisy = volumes + 0.1 * rng.standard_normal(volumes.shape)
    return noisy.astype(np.float32), labels


def _conv(graph: Graph, x: str, channels: tuple[int, int], stride: int = 1) -> str:
    y = graph.conv(x, channels, 3, stride=stride, dims=3)
    return graph.op("Relu", graph.batch_norm(y, channels[1]))


def _upsample(graph: Graph, x: str, channels: tuple[int, int]) -> str:
    inputs, outputs = channels
    weight = graph.normal(inputs, outputs, 2, 2, 2, std=(2.0 / inputs) ** 0.5)
    return graph.op("ConvTranspose", x, weight, strides=[2, 2, 2])
