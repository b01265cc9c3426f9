"""An ONNX graph as a PyTorch module: the same operators on the same weights, one by one.

Knows the operators that the models are made of. Batch norms are folded into the convolutions before them, as every
optimiser does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from msgspec import Struct
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    Array = NDArray[Any]

TYPES: dict[int, Any] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.UINT8: torch.uint8,
}
_LAYER_NORM_EPSILON = 1e-5
_BATCH_NORM_EPSILON = 1e-5
"""ONNX's defaults."""


class _Node(Struct, frozen=True):
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


def to_torch(model: ModelProto, *, half: bool) -> Any:
    """A `torch.nn.Module` that takes the graph's inputs by name and returns a tuple of its outputs, the answer first.

    Weights are its buffers. With `half` it computes in fp16; inputs and outputs are what the graph declares.

    Raises:
        NotImplementedError: the graph has an operator that no model had when this was written.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [_read(node) for node in model.graph.node]
    nodes = _without_batch_norms(nodes, constants)
    root, graph = torch.nn.Module(), torch.fx.Graph()
    values = {entry.name: graph.placeholder(entry.name) for entry in model.graph.input}
    for entry in model.graph.input:
        if half and entry.type.tensor_type.elem_type == TensorProto.FLOAT:
            values[entry.name] = graph.call_function(torch.Tensor.half, (values[entry.name],))

    def stored(array: Array) -> Any:
        name = f"constant_{sum(1 for _ in root.buffers())}"
        tensor = torch.tensor(array)
        root.register_buffer(name, tensor.half() if half and tensor.is_floating_point() else tensor)
        return graph.get_attr(name)

    def value(name: str) -> Any:
        if name not in values:
            values[name] = stored(constants[name])
        return values[name]

    for node in nodes:
        operator = _OPERATORS.get(node.op)
        if operator is None:
            raise NotImplementedError(f"{node.op} is no operator that the models had")
        if node.op == "LSTM":
            weights = _lstm_weights(*(constants[name] for name in node.inputs[1:]))
            inputs = [value(node.inputs[0]), *map(stored, weights)]
        else:
            static = _STATIC_INPUTS.get(node.op, ())
            inputs = [
                constants[name].tolist() if position in static else value(name)
                for position, name in enumerate(node.inputs)
            ]
        values[node.output] = graph.call_function(operator, tuple(inputs), node.attributes)
    graph.output(
        tuple(
            graph.call_function(torch.Tensor.to, (values[entry.name], TYPES[entry.type.tensor_type.elem_type]))
            for entry in model.graph.output
        )
    )
    return torch.fx.GraphModule(root, graph).eval()


def _read(node: Any) -> _Node:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return _Node(op=node.op_type, inputs=tuple(node.input), output=node.output[0], attributes=attributes)


def _without_batch_norms(nodes: Sequence[_Node], constants: dict[str, Array]) -> list[_Node]:
    """Folded into the convolutions that feed nothing else; their weights are added to `constants`."""
    uses = Counter(name for node in nodes for name in node.inputs)
    folded: list[_Node] = []
    by_output: dict[str, int] = {}
    for node in nodes:
        if node.op == "BatchNormalization" and (place := by_output.get(node.inputs[0])) is not None:
            convolution = folded[place]
            weight, bias = (constants[name].astype(np.float64) for name in convolution.inputs[1:])
            scale, shift, mean, variance = (constants[name].astype(np.float64) for name in node.inputs[1:])
            factor = scale / np.sqrt(variance + node.attributes.get("epsilon", _BATCH_NORM_EPSILON))
            names = f"{node.output}_weight", f"{node.output}_bias"
            constants[names[0]] = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
            constants[names[1]] = ((bias - mean) * factor + shift).astype(np.float32)
            folded[place] = _Node("Conv", (convolution.inputs[0], *names), node.output, convolution.attributes)
        else:
            if node.op == "Conv" and uses[node.output] == 1:
                by_output[node.output] = len(folded)
            folded.append(node)
    return folded


def _lstm_weights(weight: Array, recurrent: Array, bias: Array) -> list[Array]:
    """In PyTorch's order of gates (input, forget, cell, output) from ONNX's (input, output, forget, cell).

    ONNX has both biases in one tensor, and the direction as the first axis.
    """
    hidden = recurrent.shape[-1]

    def reordered(gates: Array) -> Array:
        return gates.reshape(4, hidden, -1)[[0, 2, 3, 1]].reshape(gates.shape)

    return [reordered(part) for part in (weight[0], recurrent[0], *np.split(bias[0], 2))]


def _convolution(x: Any, weight: Any, bias: Any, *, strides: list[int], pads: list[int], group: int) -> Any:
    convolve = {2: functional.conv2d, 3: functional.conv3d}[len(strides)]
    # "Same" padding of odd kernels: as much before as after.
    return convolve(x, weight, bias, stride=strides, padding=pads[: len(strides)], groups=group)


def _transposed_convolution(x: Any, weight: Any, *, strides: list[int]) -> Any:
    return functional.conv_transpose3d(x, weight, stride=strides)


def _max_pool(x: Any, *, kernel_shape: list[int], strides: list[int], pads: list[int]) -> Any:
    return functional.max_pool2d(x, kernel_shape, strides, pads[: len(strides)])


def _global_average_pool(x: Any) -> Any:
    return x.mean(dim=(2, 3), keepdim=True)


def _layer_norm(x: Any, weight: Any, bias: Any, *, axis: int) -> Any:
    return functional.layer_norm(x, x.shape[axis:], weight, bias, _LAYER_NORM_EPSILON)


def _reshape(x: Any, shape: list[int]) -> Any:
    """A 0 keeps the axis."""
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(shape)])


def _gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    picked = x.index_select(axis, indices.reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _argmax(x: Any, *, axis: int, keepdims: int) -> Any:
    return x.argmax(dim=axis, keepdim=bool(keepdims))


def _lstm(x: Any, *weights: Any, hidden_size: int) -> Any:
    """One layer in one direction, from a state of zeros; ONNX has the direction as axis 1 of the output."""
    state = x.new_zeros(1, x.shape[1], hidden_size)
    return torch.lstm(x, (state, state), weights, True, 1, 0.0, False, False, False)[0].unsqueeze(1)  # noqa: FBT003 - positional only


def _softmax(x: Any, *, axis: int) -> Any:
    return torch.softmax(x, axis)


def _cast(x: Any, *, to: int) -> Any:
    return x.to(TYPES[to])


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "ArgMax": _argmax,
    "Cast": _cast,
    "Clip": torch.clamp,
    "Concat": lambda *tensors, axis: torch.cat(tensors, axis),
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Div": torch.div,
    "Erf": torch.erf,
    "Flatten": lambda x: torch.flatten(x, 1),
    "Gather": _gather,
    "GlobalAveragePool": _global_average_pool,
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "MatMul": torch.matmul,
    "MaxPool": _max_pool,
    "Mul": torch.mul,
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Sigmoid": torch.sigmoid,
    "Softmax": _softmax,
    "Squeeze": lambda x, axes: x.squeeze(tuple(axes)),
    "Transpose": lambda x, perm: x.permute(perm),
    "Unsqueeze": lambda x, axes: x.unsqueeze(*axes),
}
_STATIC_INPUTS = {"Clip": (1, 2), "Reshape": (1,), "Squeeze": (1,), "Unsqueeze": (1,)}
"""Inputs that are stored numbers and no tensors: bounds, shapes, axes."""
