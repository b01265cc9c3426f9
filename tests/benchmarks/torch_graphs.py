"""Print how the models, as PyTorch programs on the CPU, agree with ONNX Runtime; a program of its own.

PyTorch stays out of the process of the tests: it takes seconds and memory, and warns of what is its own business.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from heteromig.benchmarks.accuracy import agreement_percent
from heteromig.benchmarks.catalog import BENCHMARKS
from heteromig.benchmarks.graphs import run_unoptimised
from heteromig.benchmarks.models import make_model
from heteromig.benchmarks.torch_cuda import export_program, load_program

SAMPLES = 64


def agreement() -> dict[str, dict[str, float]]:
    """By benchmark and precision: agreement of the answers in percent; the largest relative error of any output."""
    found = {}
    for name, spec in BENCHMARKS.items():
        model = make_model(name, SAMPLES)
        wanted = run_unoptimised(model.onnx, model.samples)
        for half in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                export_program(model.onnx, Path(folder, "engine.pt2"), where="cpu", half=half)
                program = load_program(Path(folder, "engine.pt2"))
            with torch.inference_mode():
                one, most = (
                    program(**{key: torch.from_numpy(array[part]) for key, array in model.samples.items()})
                    for part in (slice(0, 1), slice(1, SAMPLES))
                )
            outputs = [torch.cat(parts).numpy() for parts in zip(one, most, strict=True)]
            assert [(array.shape, array.dtype) for array in outputs] == [(array.shape, array.dtype) for array in wanted]
            found[f"{name} {'fp16' if half else 'fp32'}"] = {
                "agreement_percent": agreement_percent(outputs[0], wanted[0], spec.metric),
                "error": max(
                    float(np.linalg.norm(array.astype(np.float64) - right) / np.linalg.norm(right.astype(np.float64)))
                    for array, right in zip(outputs, wanted, strict=True)
                ),
            }
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(agreement(), sys.stdout)
