"""The child of a `Remote`: reads calls from its standard input, writes what came of them to its standard output."""

from __future__ import annotations

import ctypes
import pickle
import sys
from types import SimpleNamespace
from typing import Any, BinaryIO

import pynvml

from tests.nvml_library import idioms
from tests.nvml_library.remote import Handle, Packed

_HANDLES = ("c_nvmlDevice_t", "c_nvmlGpuInstance_t", "c_nvmlComputeInstance_t", "c_nvmlEventSet_t", "c_nvmlGpmSample_t")
_KINDS = {getattr(pynvml, name): name for name in _HANDLES}


def _sent(value: Any) -> Any:
    """The value as something that can travel."""
    if type(value) in _KINDS:
        return Handle(_KINDS[type(value)], ctypes.cast(value, ctypes.c_void_p).value or 0)
    if isinstance(value, ctypes.c_uint):
        return value.value
    if isinstance(value, ctypes.Union):
        return bytes(value)
    if isinstance(value, ctypes.Structure):
        return SimpleNamespace(**{name: _sent(getattr(value, name)) for name, *_ in value._fields_})
    if isinstance(value, pynvml.nvmlFriendlyObject):
        return SimpleNamespace(**vars(value))
    return [_sent(one) for one in value] if isinstance(value, (list, ctypes.Array)) else value


def _received(value: Any) -> Any:
    if isinstance(value, Handle):
        return ctypes.cast(ctypes.c_void_p(value.address), getattr(pynvml, value.kind))
    if isinstance(value, Packed):
        return getattr(pynvml, value.kind).from_buffer_copy(value.content)
    return value


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    while True:
        try:
            name, arguments, named = pickle.load(requests)  # noqa: S301 - from our own parent
        except EOFError:
            return
        call = getattr(idioms, name, None) or getattr(pynvml, name)
        try:
            answer = True, _sent(call(*map(_received, arguments), **named))
        except pynvml.NVMLError as error:
            answer = False, error.value
        except pynvml.NVMLLibraryMismatchError:  # which is no NVMLError, and has no number
            answer = False, None
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
