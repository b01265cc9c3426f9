"""The engine of a device. Each is imported only when it is used: PyTorch takes seconds, and few have it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from heteromig.benchmarks.runtimes import Device, runtime_version
from heteromig.core.errors import PreflightError

if TYPE_CHECKING:
    from heteromig.benchmarks.inference import Engine


def engine_on(device: Device) -> Engine:
    """A runtime that is ready on that device.

    Raises:
        PreflightError: it is not installed, or cannot use the device.
    """
    runtime_version(device)
    if device is Device.CUDA:
        # Read when PyTorch is imported. It says at every call of an LSTM that weights are joined by a copy; a captured
        # graph does that on the GPU, in microseconds.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        try:
            from heteromig.benchmarks.torch_cuda import TorchCuda  # noqa: PLC0415 - takes seconds
        except ModuleNotFoundError:
            raise  # whose name says what to install
        except (ImportError, OSError) as error:
            raise PreflightError(
                f"{runtime_version(device)} is installed and cannot be loaded: {error}. Install it again (pip install "
                "--force-reinstall torch), or use simulated slices: --slices sim:a100-sxm-80gb."
            ) from error
        return TorchCuda()
    from heteromig.benchmarks.onnxruntime_cpu import OnnxRuntimeCpu  # noqa: PLC0415 - not needed on a GPU

    return OnnxRuntimeCpu()
