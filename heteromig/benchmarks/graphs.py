"""A small vocabulary for writing ONNX graphs in code, and the closed-form fit of their last layer.

Imported only where engines are built: it needs `onnx`, which a run does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from msgspec import Struct
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto

    Array = NDArray[Any]

OPSET = 17
"""The first with LayerNormalization; every ONNX Runtime that is supported knows it."""
IR_VERSION = 8
"""The file format that belongs to opset 17."""

FITTED = "fitted_"
"""Prefix of the names of fitted weights; quantisation leaves last layers alone."""

WEIGHT_GRID = 2.0**-12
"""Fitted weights are rounded to this, so that another BLAS rarely means another model."""

_ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
}
_FIT_BATCH = 16


class Model(Struct, frozen=True):
    """A benchmark's model with its sample set.

    `samples` maps each input to an array whose first axis is the sample. Output 0 of the graph is the answer, one row
    per sample: that is what LoadGen logs and what accuracy compares.
    """

    onnx: Any
    samples: Mapping[str, Any]


class Graph:
    """A graph under construction. Methods append nodes and return the name of the tensor that they make."""

    def __init__(self, seed_name: str) -> None:
        self.rng = np.random.default_rng(list(seed_name.encode()))
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._count = 0

    def input(self, name: str, dtype: str, *shape: int) -> str:
        """A graph input of `shape` per sample; the batch axis goes before it."""
        self._inputs.append(helper.make_tensor_value_info(name, _ELEMENT_TYPES[dtype], ["n", *shape]))
        return name

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """One node with several outputs."""
        self._count += 1
        names = [f"{op_type}_{self._count}_{index}" for index in range(outputs)]
        self._nodes.append(
            helper.make_node(op_type, list(inputs), names, name=f"{op_type}_{self._count}", **attributes)
        )
        return names

    def constant(self, value: Any, dtype: str = "float32", *, prefix: str = "w_") -> str:
        """A stored tensor: weights, indices, shapes."""
        self._count += 1
        name = f"{prefix}{self._count}"
        self._initializers.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def ints(self, *values: int) -> str:
        """A one-dimensional int64 tensor, as shapes and axes are given."""
        return self.constant(values, "int64")

    def normal(self, *shape: int, std: float) -> str:
        """A stored tensor of Gaussian weights."""
        return self.constant(self.rng.standard_normal(shape) * std)

    def conv(self, x: str, channels: tuple[int, int], kernel: int, **options: int) -> str:
        """Convolution from `channels[0]` to `channels[1]` with "same" padding and He initialisation.

        Options: `stride` (1), `group` (1), `dims` (2).
        """
        stride, group, dims = (options.get(key, value) for key, value in (("stride", 1), ("group", 1), ("dims", 2)))
        inputs, outputs = channels
        fan_in = inputs // group * kernel**dims
        weight = self.normal(outputs, inputs // group, *[kernel] * dims, std=(2.0 / fan_in) ** 0.5)
        bias = self.normal(outputs, std=0.05)
        return self.op("Conv", x, weight, bias, strides=[stride] * dims, pads=[kernel // 2] * (2 * dims), group=group)

    def batch_norm(self, x: str, channels: int, gain: float = 1.0) -> str:
        """Inference-time batch normalisation with statistics near identity, which an optimiser can fold away."""
        rng = self.rng
        return self.op(
            "BatchNormalization",
            x,
            self.constant(gain * rng.uniform(0.9, 1.1, channels)),
            self.constant(rng.normal(0.0, 0.05, channels)),
            self.constant(rng.normal(0.0, 0.05, channels)),
            self.constant(rng.uniform(0.9, 1.1, channels)),
        )

    def dense(self, x: str, inputs: int, outputs: int, gain: float = 2.0) -> str:
        """Fully connected layer over the last axis; `gain` 2 keeps the variance through a ReLU."""
        weight = self.normal(inputs, outputs, std=(gain / inputs) ** 0.5)
        return self.op("Add", self.op("MatMul", x, weight), self.normal(outputs, std=0.05))

    def fitted_dense(self, x: str, fit: tuple[Array, Array]) -> str:
        """Fully connected layer with given weights (inputs x outputs) and bias."""
        weight, bias = fit
        return self.op("Add", self.op("MatMul", x, self.constant(weight, prefix=FITTED)), self.constant(bias))

    def model(self, *outputs: tuple[str, str]) -> ModelProto:
        """The finished, checked model; outputs are (tensor, dtype).

        Raises:
            onnx.checker.ValidationError: the graph is malformed.
        """
        graph = helper.make_graph(
            self._nodes,
            "benchmark",
            self._inputs,
            [helper.make_tensor_value_info(name, _ELEMENT_TYPES[dtype], None) for name, dtype in outputs],
            self._initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="heteromig",
        )
        inferred = shape_inference.infer_shapes(model, strict_mode=True)
        checker.check_model(inferred)
        return inferred

    def values(self, tensor: str, inputs: Mapping[str, Array]) -> Array:
        """What an inner fp32 tensor is for a set of inputs, computed without optimisation."""
        return run_unoptimised(self.model((tensor, "float32")), inputs)[0]

    def fit(
        self, features: str, inputs: Mapping[str, Array], targets: Array, *, ridge: float = 0.03
    ) -> tuple[Array, Array]:
        """Weights and bias of the linear layer that maps `features` to `targets` best in the least-squares sense.

        Both are flattened to two axes. A random network with a fitted last layer is a real classifier of the classes
        that the samples are drawn from, so that its decisions have margins, as those of a trained network have.
        """
        raw = self.values(features, inputs)
        x = raw.reshape(-1, raw.shape[-1]).astype(np.float64)
        y = targets.reshape(len(x), -1).astype(np.float64)
        mean = x.mean(axis=0)
        centred = x - mean
        gram = centred.T @ centred
        gram += np.eye(len(gram)) * (ridge * np.trace(gram) / len(gram))
        weight = np.linalg.solve(gram, centred.T @ (y - y.mean(axis=0)))
        bias = y.mean(axis=0) - mean @ weight
        return _on_grid(weight), _on_grid(bias)


def run_unoptimised(model: ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """All outputs for all samples, by the graph as written: every optimisation of the runtime is off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(None, {name: array[start : start + _FIT_BATCH] for name, array in inputs.items()})
        for start in range(0, count, _FIT_BATCH)
    ]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def one_hot(labels: Array, classes: int) -> Array:
    """Shape (*labels.shape, classes)."""
    return np.eye(classes, dtype=np.float32)[labels]


def _on_grid(values: Array) -> Array:
    return np.asarray(np.round(values / WEIGHT_GRID) * WEIGHT_GRID, dtype=np.float32)
