"""What the two single-shot detectors share: samples with one object each, and heads at two scales.

An image holds one object, large or small, in one orientation, in a cell of the grid of its scale. Heads look at each
cell of both grids and score every anchor (one per orientation) for every class; a second head regresses a box. The
answer is the best detection, as its index among all cells, anchors and classes. The boxes are computed and returned,
but the answer that is logged and compared is the detection. The number of classes and the noise were chosen with the
int8 engines in view: with more classes these small random backbones separate them less and 8-bit noise decides more
often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from heteromig.benchmarks.graphs import Graph, Model

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Array

SIDE = 64
CELLS = (8, 4)
"""Cells along a side of the grids for small and large objects."""
ANCHORS = 2
CLASSES = 4
MOSAIC = 4
TRAIN = 500
TRAIN_OBJECTS = 6
"""Objects in an image for fitting, so that there are enough of each kind; samples have one."""


class Dataset(Struct, frozen=True):
    """Images (n, 3, 64, 64) for fitting with their targets per scale, and the sample set."""

    train: Array
    targets: tuple[Array, ...]
    samples: Array


def dataset(graph: Graph, sample_count: int) -> Dataset:
    """Draw both sets from the same objects."""
    patterns = [_patterns(graph, SIDE // cells) for cells in CELLS]
    train, targets = _images(graph, patterns, TRAIN, TRAIN_OBJECTS)
    samples, _ = _images(graph, patterns, sample_count, 1)
    return Dataset(train=train, targets=targets, samples=samples)


def finish(graph: Graph, maps: tuple[tuple[str, int], ...], data: Dataset) -> Model:
    """Heads on the feature maps, (tensor, channels) per scale, and the best detection over all of them."""
    scores, boxes = [], []
    for (tensor, channels), cells, targets in zip(maps, CELLS, data.targets, strict=True):
        tower = graph.op("Relu", graph.conv(tensor, (channels, channels), 3))
        both = graph.op("Concat", tensor, tower, axis=1)
        features = graph.op("Transpose", both, perm=[0, 2, 3, 1])
        fit = graph.fit(features, {"image": data.train}, targets)
        flat = graph.ints(0, cells * cells * ANCHORS * CLASSES)
        scores.append(graph.op("Reshape", graph.fitted_dense(features, fit), flat))
        box = graph.op("Transpose", graph.conv(tensor, (channels, ANCHORS * 4), 3), perm=[0, 2, 3, 1])
        boxes.append(graph.op("Reshape", box, graph.ints(0, cells * cells * ANCHORS, 4)))
    best = graph.op("ArgMax", graph.op("Concat", *scores, axis=1), axis=1, keepdims=1)
    answer = graph.op("Cast", best, to=6)
    return Model(
        onnx=graph.model((answer, "int32"), (graph.op("Concat", *boxes, axis=1), "float32")),
        samples={"image": data.samples},
    )


def _patterns(graph: Graph, size: int) -> Array:
    """A mosaic of 4 x 4 colours for each anchor and class."""
    mosaic = graph.rng.standard_normal((ANCHORS, CLASSES, 3, MOSAIC, MOSAIC))
    return np.repeat(np.repeat(mosaic, size // MOSAIC, axis=3), size // MOSAIC, axis=4)


def _images(graph: Graph, patterns: list[Array], count: int, objects: int) -> tuple[Array, tuple[Array, ...]]:
    rng = graph.rng
    images = 0.05 * rng.standard_normal((count, 3, SIDE, SIDE))
    targets = tuple(np.zeros((count, cells, cells, ANCHORS, CLASSES), dtype=np.float32) for cells in CELLS)
    taken = np.zeros((count, 1, SIDE, SIDE), dtype=bool)
    for index in np.repeat(np.arange(count), objects):
        scale = int(rng.integers(len(CELLS)))
        anchor, label = int(rng.integers(ANCHORS)), int(rng.integers(CLASSES))
        row, column = (int(cell) for cell in rng.integers(0, CELLS[scale], 2))
        size = SIDE // CELLS[scale]
        place = (index, slice(None), slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
        if taken[place].any():
            continue
        taken[place] = True
        images[place] += 2.0 * patterns[scale][anchor, label]
        targets[scale][index, row, column, anchor, label] = 1.0
    return images.astype(np.float32), targets
