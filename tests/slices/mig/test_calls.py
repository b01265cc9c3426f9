from __future__ import annotations

import ctypes
import inspect

import pynvml
import pytest

from heteromig.slices.mig import calls
from heteromig.slices.mig.calls import PartitionLibrary
from heteromig.slices.simulated_cutting import SimulatedPartitionLibrary

CALLS = [name for name in vars(PartitionLibrary) if name.startswith("nvml")]


def parameters(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_one_of_pynvml_and_of_the_simulator(name: str) -> None:
    assert parameters(getattr(PartitionLibrary, name)) == parameters(getattr(pynvml, name))
    assert parameters(getattr(SimulatedPartitionLibrary, name)) == parameters(getattr(pynvml, name))


def test_constants_are_those_of_nvml() -> None:
    assert calls.ERROR_FUNCTION_NOT_FOUND == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    assert calls.ERROR_RESET_REQUIRED == pynvml.NVML_ERROR_RESET_REQUIRED
    assert calls.ERROR_IN_USE == pynvml.NVML_ERROR_IN_USE
    assert calls.ERROR_INSUFFICIENT_RESOURCES == pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES
    assert calls.FIELD_RESETLESS_MIG == pynvml.NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED
    assert calls.GPU_PROFILES >= pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT
    assert calls.COMPUTE_PROFILES >= pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT


def test_a_place_is_laid_out_as_in_nvml() -> None:
    for real in (pynvml.c_nvmlGpuInstancePlacement_t, pynvml.c_nvmlComputeInstancePlacement_t):
        assert [name for name, _ in calls.Placement._fields_] == [name for name, _ in real._fields_]
        assert ctypes.sizeof(calls.Placement) == ctypes.sizeof(real)
