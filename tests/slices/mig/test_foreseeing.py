"""The slices that a layout would give are those that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from heteromig.core.errors import UsageError
from heteromig.slices.access import enumerate_slices
from heteromig.slices.mig.foreseeing import foresee_layout
from tests.slices.mig.bench import Bench


@pytest.mark.parametrize(
    ("board", "layout"),
    [
        ("a100-sxm-80gb", "3g.40gb,2g.20gb,1g.10gb"),
        ("a100-sxm-80gb", "2x1g.10gb,3g.40gb@4"),
        ("a30", "2g.12gb@2,2x1g.6gb"),
        ("h200-sxm-141gb", "4g.71gb,1g.35gb,1g.18gb"),
        ("2xa30", "4g.24gb"),
    ],
)
def test_what_is_foreseen_comes_true(tmp_path: Path, board: str, layout: str) -> None:
    bench = Bench(f"sim:{board}", tmp_path)
    before = bench.uuids
    planned, foreseen = foresee_layout(bench.slices, tmp_path, "0", layout)
    assert bench.uuids == before
    assert not list(tmp_path.iterdir())
    assert planned.gpu.uuid == bench.uuid
    bench.change().apply("0", layout)
    inventory, _ = enumerate_slices(bench.slices, tmp_path)
    found = [one for one in inventory.slices if one.gpu_uuid == bench.uuid]
    assert [(one.profile, one.memory_bytes, one.sm_count, one.kind) for one in foreseen.slices] == [
        (one.profile, one.memory_bytes, one.sm_count, one.kind) for one in found
    ]
    for now, then in zip(found, foreseen.slices, strict=True):
        assert now.uuid == then.uuid or (now.uuid not in before.values() and then.uuid.startswith(f"<{now.profile}@"))


def test_a_layout_that_cannot_be_is_not_foreseen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nearest layout that fits"):
        foresee_layout("sim:a30", tmp_path, None, "5x1g.6gb")
