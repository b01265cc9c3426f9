from __future__ import annotations

import inspect
from pathlib import Path
from typing import NoReturn

import pynvml
import pytest

from heteromig.slices import nvml
from heteromig.slices.nvml import Library, NVMLError
from heteromig.slices.simulator import SimulatedLibrary

CALLS = [name for name in vars(Library) if name.startswith("nvml")]


def parameters(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("name", CALLS)
def test_every_call_exists_in_pynvml_with_the_same_parameters(name: str) -> None:
    assert parameters(getattr(pynvml, name)) == parameters(getattr(Library, name))


@pytest.mark.parametrize("name", CALLS)
def test_the_simulator_takes_the_same_parameters_as_pynvml(name: str) -> None:
    assert parameters(getattr(SimulatedLibrary, name)) == parameters(getattr(pynvml, name))


def test_constants_without_a_name_in_old_releases_are_those_of_the_new_one() -> None:
    assert pynvml.nvmlEventMigConfigChange == nvml.EVENT_MIG_CONFIG_CHANGE
    assert pynvml.nvmlEventTypeGpuUnavailableError == nvml.EVENT_GPU_UNAVAILABLE


def test_text_takes_both_kinds_of_strings() -> None:
    assert (nvml.text("MIG 1g"), nvml.text(b"MIG 1g")) == ("MIG 1g", "MIG 1g")


def test_a_reading_that_the_board_cannot_give_is_none_and_never_zero() -> None:
    def refuse(code: int) -> NoReturn:
        raise NVMLError(code)

    def too_old() -> NoReturn:
        raise pynvml.NVMLLibraryMismatchError

    for code in (
        nvml.ERROR_NOT_SUPPORTED,
        nvml.ERROR_NO_PERMISSION,
        nvml.ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE,
    ):
        assert nvml.supported(refuse, code) is None
    assert nvml.supported(too_old) is None
    assert nvml.supported(lambda: 0) == 0
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        nvml.supported(refuse, nvml.ERROR_GPU_IS_LOST)


def test_opening_anew_makes_old_handles_invalid(library: Library) -> None:
    nvml.reopen(library)
    gpu = library.nvmlDeviceGetHandleByIndex(0)
    assert library.nvmlDeviceGetName(gpu) == "Simulated A30"
    nvml.reopen(library)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        library.nvmlDeviceGetName(gpu)


def test_nothing_is_answered_outside_a_session(library: Library) -> None:
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        library.nvmlDeviceGetCount()


def test_only_the_gateway_imports_pynvml() -> None:
    package = Path(nvml.__file__).parent
    importers = {path.name for path in package.glob("*.py") if "import pynvml" in path.read_text()}
    assert importers == {"nvml.py"}
