"""Which runtime computes on which device, and whether it is installed.

Light on purpose (standard library): the controller asks before it plans, and importing PyTorch takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from heteromig.core.errors import PreflightError


class Device(Enum):
    """Where an engine computes; the value is that of `--device`."""

    CPU = "cpu"
    """Simulated slices: ONNX Runtime."""
    CUDA = "cuda"
    """Real slices, however they are cut: PyTorch."""


ONNXRUNTIME = "onnxruntime"
TORCH = "torch"

TORCH_REMEDY = (
    "install PyTorch built for CUDA (pip install torch), or use simulated slices: --slices sim:a100-sxm-80gb."
)
"""How messages about a missing PyTorch end."""


def runtime_version(device: Device) -> str:
    """Distribution and version of the device's runtime, `onnxruntime-1.20.0`, read without importing it.

    Raises:
        PreflightError: it is not installed, or cannot compute on that device.
    """
    if device is Device.CUDA:
        return f"{TORCH}-{_require_torch().version}"
    try:
        return f"{ONNXRUNTIME}-{importlib.metadata.version(ONNXRUNTIME)}"
    except importlib.metadata.PackageNotFoundError:
        raise PreflightError(
            "The embedded benchmarks need ONNX Runtime, which is not installed: pip install 'heteromig[loadgen]'."
        ) from None


def is_usable(device: Device) -> bool:
    """Whether the device's runtime is installed and made for it; says nothing about the device itself."""
    try:
        runtime_version(device)
    except PreflightError:
        return False
    return True


class _Torch(NamedTuple):
    version: str
    cuda: str | None
    """The CUDA that it was built for."""


def _require_torch() -> _Torch:
    torch = _installed_torch()
    if torch is None:
        raise PreflightError(f"Engines for a GPU need PyTorch, which is not installed: {TORCH_REMEDY}")
    if torch.cuda is None:
        raise PreflightError(f"PyTorch {torch.version} is built without CUDA and uses no GPU: {TORCH_REMEDY}")
    return torch


def _installed_torch() -> _Torch | None:
    """What `torch/version.py` says, a module that needs nothing of PyTorch; None where there is none.

    The metadata of the distribution does not do: it knows no CUDA, and its version often lacks the `+cu130` by which
    builds differ.
    """
    package = importlib.util.find_spec(TORCH)
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        spec = importlib.util.spec_from_file_location("torch_version", Path(folder) / "version.py")
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except OSError:
            continue  # what is left of an installation that was removed
        return _Torch(version=str(getattr(module, "__version__", "0")), cuda=getattr(module, "cuda", None))
    return None
