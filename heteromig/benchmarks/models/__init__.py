"""The seven models, one module each: small graphs of the true architecture kind, written in code.

Weights are random with a fixed seed, except the last layer, which is fitted in closed form to training samples drawn
from the same classes as the sample set, not to the samples themselves. How hard the classes are to tell apart was set
by looking at the agreement on the sample set: passing at 99 and 99.9 shows that an engine computes what its graph says,
not how well the model would do on anything else. Nothing is downloaded. Each module has `make(sample_count) -> Model`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from heteromig.benchmarks.graphs import Model

_MODULES = {
    "resnet50": "resnet50",
    "ssd-resnet34": "ssd_resnet34",
    "ssd-mobilenet": "ssd_mobilenet",
    "bert": "bert",
    "dlrm": "dlrm",
    "3d-unet": "unet3d",
    "rnnt": "rnnt",
}


def make_model(benchmark: str, sample_count: int) -> Model:
    """The model of a benchmark with its sample set; deterministic up to the rounding of the fit."""
    module = importlib.import_module(f"{__name__}.{_MODULES[benchmark]}")
    return cast("Model", module.make(sample_count))
