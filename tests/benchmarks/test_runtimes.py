from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from heteromig.benchmarks.runtimes import Device, is_usable, runtime_version
from heteromig.core.errors import PreflightError
from tests.benchmarks import pytorch

if TYPE_CHECKING:
    from pathlib import Path


def test_pytorch_tells_its_version_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytorch.prefer(pytorch.install(tmp_path), monkeypatch)
    assert runtime_version(Device.CUDA) == "torch-2.11.0+cu130"
    assert is_usable(Device.CUDA)
    assert "torch" not in sys.modules


def test_pytorch_for_the_cpu_alone_is_no_runtime_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytorch.prefer(pytorch.install(tmp_path, "2.13.0+cpu", None), monkeypatch)
    assert not is_usable(Device.CUDA)
    with pytest.raises(PreflightError, match=r"PyTorch 2\.13\.0\+cpu is built without CUDA .*pip install torch"):
        runtime_version(Device.CUDA)


def test_without_pytorch_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pytorch.hide(monkeypatch)
    assert not is_usable(Device.CUDA)
    with pytest.raises(PreflightError, match=r"not installed: .*pip install torch.*--slices sim:"):
        runtime_version(Device.CUDA)


def test_a_directory_that_an_installation_left_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not is_usable(Device.CUDA)
