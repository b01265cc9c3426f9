"""The engine of simulated slices: ONNX Runtime on one core.

One intra-op thread and no spinning: a slice has one core or a share of one, and a thread that spins while it waits
would take it from the neighbours.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import onnxruntime

from heteromig.benchmarks.runtimes import ONNXRUNTIME, Device

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from heteromig.benchmarks.catalog import BenchmarkSpec
    from heteromig.benchmarks.inference import Answer


class OnnxRuntimeCpu:
    """Builds with ONNX Runtime's optimiser and its dynamic quantiser, runs with its CPU provider."""

    device = Device.CPU
    group = 1
    name = ONNXRUNTIME
    version: str = onnxruntime.__version__
    compute_capability = None
    # A simulated slice shares its core; the thread's own time is not lengthened by waiting for it.
    clock_s = staticmethod(time.thread_time)

    def gpu_facts(self) -> None:
        """There is none."""

    def batches(self, spec: BenchmarkSpec) -> tuple[int, ...]:
        """The catalog's: it was chosen for one core."""
        return (spec.batch,)

    def build(self, model: bytes, accuracy: str, scratch: Path, engine: Path) -> None:
        """Write the optimised form of `model` to `engine`; `scratch` is an empty folder for what lies between.

        99.9 is the optimised fp32 graph. For 99 the graph is first simplified (batch norms folded into convolutions),
        then quantised: weights to int8 now, activations at run time with a scale of their own. The saved file holds
        no optimisation that depends on this processor; those are applied on loading.
        """
        level = onnxruntime.GraphOptimizationLevel
        if accuracy == "99":
            from heteromig.benchmarks.quantisation import quantise  # noqa: PLC0415 - imports onnx, which a run does not

            simple, int8 = scratch / "simple.onnx", scratch / "int8.onnx"
            _optimise(model, level.ORT_ENABLE_BASIC, simple)
            quantise(simple, int8)
            model = int8.read_bytes()
        _optimise(model, level.ORT_ENABLE_EXTENDED, engine)

    def load(self, engine: Path, samples: Mapping[str, NDArray[Any]], batches: tuple[int, ...]) -> Answer:
        """A function from sample indices to answers, one row each; of any number."""
        del batches
        options = _options()
        session = onnxruntime.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
        outputs = [session.get_outputs()[0].name]
        feeds = [(entry.name, samples[entry.name]) for entry in session.get_inputs()]

        def answer(indices: list[int]) -> NDArray[Any]:
            result: NDArray[Any] = session.run(outputs, {name: array[indices] for name, array in feeds})[0]
            return result

        return answer


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _optimise(model: bytes, level: Any, path: Path) -> None:
    options = _options()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
