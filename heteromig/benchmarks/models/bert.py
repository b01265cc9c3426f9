"""Question answering by a transformer encoder: embeddings, self-attention and feed-forward layers, a span head.

A sample is a sequence of token ids that holds one token of the "opening" and, later, one of the "closing" kind; the
answer is the two positions, found by the scores of the span head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heteromig.benchmarks.graphs import Graph, Model, one_hot

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Array

TOKENS = 48
VOCABULARY = 1000
MARKERS = 16
"""Token ids below this open a span, those from here to twice this close it."""
WIDTH = 128
HEADS = 4
LAYERS = 3
FEED_FORWARD = 384


def make(sample_count: int) -> Model:
    """Samples are random sentences of 48 tokens with one span each."""
    graph = Graph("bert")
    train, spans = _sentences(graph, 256)
    samples, _ = _sentences(graph, sample_count)

    x = graph.op("Gather", _embeddings(graph), graph.input("input_ids", "int64", TOKENS))
    x = _layer_norm(graph, graph.op("Add", x, graph.normal(TOKENS, WIDTH, std=0.3)))
    for _ in range(LAYERS):
        x = _layer_norm(graph, graph.op("Add", x, _attention(graph, x)))
        inner = _gelu(graph, graph.dense(x, WIDTH, FEED_FORWARD))
        x = _layer_norm(graph, graph.op("Add", x, graph.dense(inner, FEED_FORWARD, WIDTH, gain=0.3)))
    targets = np.moveaxis(one_hot(spans, TOKENS), 1, 2)
    logits = graph.fitted_dense(x, graph.fit(x, {"input_ids": train}, targets))
    answer = graph.op("Cast", graph.op("ArgMax", logits, axis=1, keepdims=0), to=6)
    return Model(onnx=graph.model((answer, "int32")), samples={"input_ids": samples})


def _sentences(graph: Graph, count: int) -> tuple[Array, Array]:
    rng = graph.rng
    tokens = rng.integers(2 * MARKERS, VOCABULARY, (count, TOKENS))
    spans = np.sort(np.stack([rng.choice(TOKENS, 2, replace=False) for _ in range(count)]), axis=1)
    rows = np.arange(count)
    tokens[rows, spans[:, 0]] = rng.integers(0, MARKERS, count)
    tokens[rows, spans[:, 1]] = rng.integers(MARKERS, 2 * MARKERS, count)
    return tokens.astype(np.int64), spans


def _embeddings(graph: Graph) -> str:
    """Random vectors; tokens of one kind of marker share a direction, as words of one meaning do once trained."""
    vectors = graph.rng.standard_normal((VOCABULARY, WIDTH))
    kinds = graph.rng.standard_normal((2, WIDTH))
    vectors[: 2 * MARKERS] = 0.5 * vectors[: 2 * MARKERS] + np.repeat(kinds, MARKERS, axis=0)
    return graph.constant(vectors)


def _attention(graph: Graph, x: str) -> str:
    size = WIDTH // HEADS
    split = graph.ints(0, TOKENS, HEADS, size)
    query, key, value = (
        graph.op("Transpose", graph.op("Reshape", graph.dense(x, WIDTH, WIDTH, gain=1.0), split), perm=list(perm))
        for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
    )
    scores = graph.op("Div", graph.op("MatMul", query, key), graph.constant(size**0.5))
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    joined = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), graph.ints(0, TOKENS, WIDTH))
    return graph.dense(joined, WIDTH, WIDTH, gain=0.3)


def _layer_norm(graph: Graph, x: str) -> str:
    scale = graph.constant(graph.rng.uniform(0.9, 1.1, WIDTH))
    return graph.op("LayerNormalization", x, scale, graph.normal(WIDTH, std=0.02), axis=-1)


def _gelu(graph: Graph, x: str) -> str:
    erf = graph.op("Erf", graph.op("Div", x, graph.constant(2.0**0.5)))
    half = graph.op("Mul", x, graph.constant(0.5))
    return graph.op("Mul", half, graph.op("Add", erf, graph.constant(1.0)))
