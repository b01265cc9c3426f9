from __future__ import annotations

from pathlib import Path

import pytest

from tests.slices.mig.bench import Bench


@pytest.fixture
def a30(tmp_path: Path) -> Bench:
    """A simulated A30 with four slices."""
    return Bench("sim:a30", tmp_path)


@pytest.fixture
def h100(tmp_path: Path) -> Bench:
    """A simulated H100 with seven slices, whose MIG mode changes without a reset."""
    return Bench("sim:h100-sxm-80gb", tmp_path)
