"""Dynamic int8 quantisation of an fp32 graph, for the accuracy level 99.

Weights become 8-bit integers when the engine is built, activations when it runs, with one scale per tensor. What
becomes of each model:

- resnet50, ssd-resnet34: all convolutions but the first (ConvInteger);
- ssd-mobilenet: the pointwise convolutions and the heads' towers; depthwise ones stay fp32;
- bert, dlrm: all products with weights (MatMulInteger) and the embedding tables;
- 3d-unet: the 3-D convolutions but the first; transposed ones have no integer kernel;
- rnnt: the LSTM layers (DynamicQuantizeLSTM), projections and the token table.

On processors with integer dot products bert, dlrm and rnnt get faster than in fp32 by it, convolutions slower.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from heteromig.benchmarks.graphs import FITTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INT8_OPS = ("Conv", "MatMul", "LSTM", "Gather")


def quantise(source: Path, destination: Path) -> None:
    """Write the quantised form of a model file. Unsigned weights: signed ones have no fast convolution kernel."""
    with _quiet():
        quantize_dynamic(
            source,
            destination,
            op_types_to_quantize=list(_INT8_OPS),
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=_kept_in_fp32(source),
        )


def _kept_in_fp32(path: Path) -> list[str]:
    """Layers that int8 would harm: those that read the input or were fitted, and depthwise convolutions.

    First and last layers carry little of the work and most of the error. One scale for all channels does not suit
    depthwise weights, and their integer kernel is slower than the fp32 one.
    """
    graph = onnx.load(path).graph
    inputs = {entry.name for entry in graph.input}
    kept = []
    for node in graph.node:
        depthwise = any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
        first = node.op_type in ("Conv", "MatMul") and bool(inputs.intersection(node.input))
        if first or depthwise or any(name.startswith(FITTED) for name in node.input):
            kept.append(node.name)
    return kept


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises, through the root logger, a pre-processing that has been done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
