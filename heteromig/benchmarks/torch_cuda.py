"""The engine of real slices: PyTorch on the GPU that CUDA_VISIBLE_DEVICES names.

A build exports the model as a program of ATen operators in the precision of its accuracy level. Loading captures one
CUDA graph for each size of batch, from the indices of the samples on the host to their answers on the host: these
models are many small kernels, and starting them one by one from Python takes several times longer than they run. The
whole sample set stays in the memory of the slice.

A sample is a group of inputs, as MLPerf's samples of dlrm are groups of pairs. An H100 gets through a third to one
million inputs of these models a second. LoadGen keeps 130 bytes of each sample of an Offline query and takes a
microsecond to complete one, computed or not: with one input a sample it would need more memory than hosts have and more
time than the GPU, and a clean stop would take minutes.
"""

from __future__ import annotations

import os
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import onnx
import torch

from heteromig.benchmarks.accuracy import members
from heteromig.benchmarks.runtimes import TORCH, Device
from heteromig.benchmarks.torch_graph import TYPES, to_torch
from heteromig.core.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    from heteromig.benchmarks.catalog import BenchmarkSpec
    from heteromig.benchmarks.inference import Answer

GROUP = 64
"""Inputs in a sample: an H100 takes 0.1 to 0.5 ms for one sample, and completes a few thousand a second."""
BATCHES = (1, 2, 4, 8, 16)
"""Samples in one call, to choose from."""
WARM_UPS = 3
"""Calls before a capture, in which libraries choose their kernels and take their memory."""

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class TorchCuda:
    """Builds with `torch.export`, runs by CUDA graphs.

    Raises:
        PreflightError: PyTorch cannot use the GPU.
    """

    device = Device.CUDA
    group = GROUP
    name = TORCH
    version: str = str(torch.__version__)
    # The thread waits while the GPU works, so that its CPU time says nothing about the rate.
    clock_s = staticmethod(time.monotonic)

    def __init__(self) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        try:
            torch.cuda.init()
            self._gpu = torch.cuda.get_device_properties(0)
            torch.ones(1, device="cuda").item()  # whether it lets us in, and has kernels for it, shows only now
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise PreflightError(
                f"PyTorch {self.version} cannot use a GPU (CUDA_VISIBLE_DEVICES is {visible}): {reason}. Check that "
                "nvidia-smi lists it, that no process holds it exclusively, and that driver and GPU are new enough for "
                "this PyTorch."
            ) from error
        torch.set_num_threads(1)
        # fp32 is what 99.9 stands for; TF32 would be a third kind of precision.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False

    @property
    def compute_capability(self) -> str:
        """Such as `9.0`."""
        return f"{self._gpu.major}.{self._gpu.minor}"

    def gpu_facts(self) -> Mapping[str, Any]:
        """The device as CUDA sees it: a MIG device has a name, a UUID and multiprocessors of its own."""
        return {
            "name": self._gpu.name,
            "uuid": str(self._gpu.uuid),
            "compute_capability": self.compute_capability,
            "multiprocessors": self._gpu.multi_processor_count,
            "memory_bytes": self._gpu.total_memory,
            "cuda_version": torch.version.cuda,
            "cudnn_version": torch.backends.cudnn.version(),
        }

    def batches(self, spec: BenchmarkSpec) -> tuple[int, ...]:
        """The same for all benchmarks; how fast the slice is decides."""
        del spec
        return BATCHES

    def build(self, model: bytes, accuracy: str, scratch: Path, engine: Path) -> None:
        """Write the exported program of `model` to `engine`: fp32 for 99.9, fp16 for 99."""
        del scratch
        with _sentences():
            export_program(onnx.load_model_from_string(model), engine, where="cuda", half=accuracy == "99")

    def load(self, engine: Path, samples: Mapping[str, NDArray[Any]], batches: tuple[int, ...]) -> Answer:
        """A function from sample indices to answers, one row each; a call is filled up to the next of `batches`."""
        with _sentences():
            program = load_program(engine)
            stored = {name: torch.from_numpy(array).cuda() for name, array in samples.items()}
            pool = torch.cuda.graph_pool_handle()
            captures = [_Capture(program, stored, size, pool) for size in batches]

        def answer(indices: list[int]) -> NDArray[Any]:
            capture = next(capture for capture in captures if capture.size >= len(indices))
            return capture.answer(indices)

        return answer


class _Capture:
    """A CUDA graph for up to `size` samples. The host's end of it is pinned memory, which the GPU reads itself."""

    def __init__(self, program: Any, samples: Mapping[str, Any], size: int, pool: Any) -> None:
        self.size = size
        count = len(next(iter(samples.values())))
        held = torch.from_numpy(members(count, GROUP)).cuda()
        indices = torch.zeros(size, dtype=torch.int64, pin_memory=True)
        on_gpu = torch.zeros(size, dtype=torch.int64, device="cuda")
        stream = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()

        def compute() -> Any:
            on_gpu.copy_(indices, non_blocking=True)
            inputs = held.index_select(0, on_gpu).reshape(-1)
            answers = program(**{name: array.index_select(0, inputs) for name, array in samples.items()})[0]
            return answers.reshape(size, GROUP, *answers.shape[1:])

        with torch.inference_mode():
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    example = compute()
                answers = torch.zeros(example.shape, dtype=example.dtype, pin_memory=True)
            stream.synchronize()
            with torch.cuda.graph(self._graph, pool=pool, stream=stream):
                answers.copy_(compute(), non_blocking=True)
        self._indices, self._answers = indices.numpy(), answers.numpy()

    def answer(self, indices: list[int]) -> NDArray[Any]:
        """One row for each; what the batch lacks is filled up with samples of the call before."""
        count = len(indices)
        self._indices[:count] = indices
        self._graph.replay()
        torch.cuda.current_stream().synchronize()
        rows: NDArray[Any] = self._answers[:count].copy()
        return rows


def export_program(model: ModelProto, path: Path, *, where: str, half: bool) -> None:
    """Write `model` as a program for batches of any size on the device `where`; `half` computes in fp16."""
    module = to_torch(model, half=half).to(where)
    example = {entry.name: _zeros(entry).to(where) for entry in model.graph.input}
    size = torch.export.Dim("inputs", min=1, max=GROUP * BATCHES[-1])
    program = torch.export.export(module, (), example, dynamic_shapes={name: {0: size} for name in example})
    torch.export.save(program, path)


def load_program(path: Path) -> Any:
    """The module of an exported program: called with the inputs by name, it returns a tuple, the answer first."""
    program = torch.export.load(path).module()
    for weight in program.buffers():
        # The order in which fp16 convolutions are fastest, by a quarter to a half; fp32 ones are slowed down by it.
        if weight.dtype == torch.float16 and weight.dim() in _CHANNELS_LAST:
            weight.data = weight.data.contiguous(memory_format=_CHANNELS_LAST[weight.dim()])
    return program


def _zeros(entry: Any) -> Any:
    """An example of an input: two samples, because 0 and 1 would be taken for special cases."""
    kind = entry.type.tensor_type
    sample = [axis.dim_value for axis in kind.shape.dim[1:]]
    return torch.zeros(2, *sample, dtype=TYPES[kind.elem_type])


@contextmanager
def _sentences() -> Iterator[None]:
    """What users can do something about, in a sentence; what they cannot, not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            raise PreflightError(
                f"The slice has no memory left for the engine: {str(error).partition('. ')[0]}. End what else uses it."
            ) from error
