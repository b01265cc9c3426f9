"""Recommendation: embedding tables, a bottom and a top MLP, and the dot products of all pairs of features between.

As in MLPerf, a sample is a group of user-item pairs; the answer is the click probability of each pair. Probabilities
are a regression, so accuracy is the relative error. The top MLP is random but for its last layer, which is fitted to
a click model that is linear in the dense features and in one hidden score per table row. The scale of that click model
was chosen with the int8 engine in view: larger logits make the same 8-bit noise a larger error of the probabilities,
and at twice this scale int8 misses 99 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heteromig.benchmarks.graphs import Graph, Model

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Array

PAIRS = 128
DENSE = 13
TABLES = 8
ROWS = 1500
WIDTH = 32
TOP = (384, 192)


def make(sample_count: int) -> Model:
    """Samples are random pairs; rows of the tables are drawn with a long tail."""
    graph = Graph("dlrm")
    train, samples = _pairs(graph, 48), _pairs(graph, sample_count)
    dense = graph.input("dense", "float32", PAIRS, DENSE)
    sparse = graph.input("sparse", "int64", PAIRS, TABLES)

    bottom = graph.op("Relu", graph.dense(dense, DENSE, 64))
    bottom = graph.op("Relu", graph.dense(bottom, 64, WIDTH))
    features = [graph.op("Unsqueeze", bottom, graph.ints(2))]
    for table in range(TABLES):
        rows = graph.op("Gather", sparse, graph.constant([table], "int64"), axis=2)
        features.append(graph.op("Gather", graph.normal(ROWS, WIDTH, std=WIDTH**-0.5), rows))
    stacked = graph.op("Concat", *features, axis=2)
    products = graph.op("MatMul", stacked, graph.op("Transpose", stacked, perm=[0, 1, 3, 2]))
    count = TABLES + 1
    flat = graph.op("Reshape", products, graph.ints(0, PAIRS, count * count))
    upper = [first * count + second for first in range(count) for second in range(first + 1, count)]
    x = graph.op("Concat", bottom, graph.op("Gather", flat, graph.ints(*upper), axis=2), axis=2)
    inputs = WIDTH + len(upper)
    for outputs in TOP:
        x = graph.op("Relu", graph.dense(x, inputs, outputs))
        inputs = outputs
    logits = graph.fitted_dense(x, graph.fit(x, train, _click_logits(graph, train)))
    answer = graph.op("Squeeze", graph.op("Sigmoid", logits), graph.ints(2))
    return Model(onnx=graph.model((answer, "float32")), samples=samples)


def _pairs(graph: Graph, count: int) -> dict[str, Array]:
    rng = graph.rng
    tail = rng.random((count, PAIRS, TABLES)) ** 3
    return {
        "dense": rng.standard_normal((count, PAIRS, DENSE)).astype(np.float32),
        "sparse": (tail * ROWS).astype(np.int64),
    }


def _click_logits(graph: Graph, pairs: dict[str, Array]) -> Array:
    """Scaled as the module says."""
    rng = graph.rng
    scores = rng.standard_normal((TABLES, ROWS)) * 0.1
    by_table = sum(scores[table][pairs["sparse"][:, :, table]] for table in range(TABLES))
    logits: Array = pairs["dense"] @ rng.standard_normal(DENSE) * 0.14 + by_table
    return logits
