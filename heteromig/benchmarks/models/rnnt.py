"""Speech recognition by a recurrent transducer: LSTM encoder, LSTM prediction network, joint network.

The encoder halves the frame rate between its layers. The answer is the most likely token at each node of the lattice
of encoder steps and text prefix: what the joint network is evaluated on. Samples are sequences of noisy phoneme
patterns; the joint network's last layer is fitted to the phoneme of each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heteromig.benchmarks.graphs import Graph, Model, one_hot

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Array

STEPS = 32
FRAMES = 2 * STEPS
BANDS = 40
PHONEMES = 28
PREFIX = 4
ENCODER = 192
PREDICTION = 64
JOINT = 160


def make(sample_count: int) -> Model:
    """Samples are 64 frames of 40 bands, and the four tokens before them."""
    graph = Graph("rnnt")
    patterns = graph.rng.standard_normal((PHONEMES, 2, BANDS))
    train, labels = _utterances(graph, patterns, 192)
    samples, _ = _utterances(graph, patterns, sample_count)

    audio = graph.op("Transpose", graph.input("audio", "float32", FRAMES, BANDS), perm=[1, 0, 2])
    x = _lstm(graph, audio, BANDS, ENCODER)
    # Two frames become one: (frames, n, width) -> (steps, n, 2 width).
    x = graph.op("Transpose", x, perm=[1, 0, 2])
    x = graph.op("Reshape", x, graph.ints(0, STEPS, 2 * ENCODER))
    x = _lstm(graph, graph.op("Transpose", x, perm=[1, 0, 2]), 2 * ENCODER, ENCODER)
    encoded = graph.dense(graph.op("Transpose", x, perm=[1, 0, 2]), ENCODER, JOINT, gain=12.0)

    tokens = graph.op("Gather", graph.normal(PHONEMES, PREDICTION, std=1.0), graph.input("prefix", "int64", PREFIX))
    y = _lstm(graph, graph.op("Transpose", tokens, perm=[1, 0, 2]), PREDICTION, PREDICTION)
    predicted = graph.dense(graph.op("Transpose", y, perm=[1, 0, 2]), PREDICTION, JOINT, gain=1.0)

    nodes = graph.op(
        "Add", graph.op("Unsqueeze", encoded, graph.ints(2)), graph.op("Unsqueeze", predicted, graph.ints(1))
    )
    joint = graph.op("Relu", nodes)
    targets = np.repeat(one_hot(labels, PHONEMES)[:, :, None, :], PREFIX, axis=2)
    logits = graph.fitted_dense(joint, graph.fit(joint, train, targets))
    answer = graph.op("Cast", graph.op("ArgMax", logits, axis=3, keepdims=0), to=6)
    return Model(onnx=graph.model((answer, "int32")), samples=samples)


def _utterances(graph: Graph, patterns: Array, count: int) -> tuple[dict[str, Array], Array]:
    rng = graph.rng
    labels = rng.integers(0, PHONEMES, (count, STEPS))
    audio = patterns[labels].reshape(count, FRAMES, BANDS)
    noisy = audio + 0.2 * rng.standard_normal(audio.shape)
    prefix = rng.integers(0, PHONEMES, (count, PREFIX)).astype(np.int64)
    return {"audio": noisy.astype(np.float32), "prefix": prefix}, labels


def _lstm(graph: Graph, x: str, inputs: int, hidden: int) -> str:
    """One layer, (steps, n, inputs) -> (steps, n, hidden)."""
    outputs = graph.ops(
        "LSTM",
        1,
        x,
        graph.normal(1, 4 * hidden, inputs, std=(1.0 / inputs) ** 0.5),
        graph.normal(1, 4 * hidden, hidden, std=(0.5 / hidden) ** 0.5),
        graph.normal(1, 8 * hidden, std=0.05),
        hidden_size=hidden,
    )
    return graph.op("Squeeze", outputs[0], graph.ints(1))
