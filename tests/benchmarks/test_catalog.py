from __future__ import annotations

import pytest

from heteromig.benchmarks import catalog
from heteromig.core.errors import UsageError
from tests.benchmarks.program import finish


def test_sets_name_known_benchmarks_and_all_has_every_one() -> None:
    assert set(catalog.SETS["all"]) == set(catalog.BENCHMARKS)
    for members in catalog.SETS.values():
        assert set(members) <= set(catalog.BENCHMARKS)


def test_datacenter_and_edge_differ_by_the_two_that_belong_to_one_only() -> None:
    assert set(catalog.SETS["datacenter"]) ^ set(catalog.SETS["edge"]) == {"dlrm", "ssd-mobilenet"}


def test_only_3d_unet_lacks_server() -> None:
    assert [spec.name for spec in catalog.BENCHMARKS.values() if "server" not in spec.scenarios] == ["3d-unet"]


def test_streams_are_for_the_edge_and_multistream_for_vision() -> None:
    offering = {
        scenario: {spec.name for spec in catalog.BENCHMARKS.values() if scenario in spec.scenarios}
        for scenario in catalog.LOADGEN_NAMES
    }
    assert offering["singlestream"] == set(catalog.SETS["edge"])
    assert offering["multistream"] == {"resnet50", "ssd-resnet34", "ssd-mobilenet"}


def test_default_accuracy_is_the_higher_one_where_mlperf_asks_for_it() -> None:
    high = {spec.name for spec in catalog.BENCHMARKS.values() if spec.info.default_accuracy == "99.9"}
    assert high == {"3d-unet", "dlrm"}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no embedded benchmark 'resnet-50': did you mean 'resnet50'\?"):
        catalog.require("resnet-50")
    with pytest.raises(UsageError, match="use one of resnet50, ssd-resnet34"):
        catalog.require("qqqq")


@pytest.mark.parametrize(
    ("benchmark", "scenario", "accuracy", "message"),
    [
        ("3d-unet", "server", "99.9", "3d-unet has no 'server' scenario: choose offline or singlestream, or another"),
        ("bert", "multistream", "99", "choose offline, server or singlestream, or another"),
        ("dlrm", "singlestream", "99.9", "choose offline or server, or another"),
        ("bert", "offline", "98", "no accuracy level '98': choose 99 or 99.9"),
    ],
)
def test_what_a_benchmark_does_not_offer_is_refused(benchmark: str, scenario: str, accuracy: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        catalog.require_supported(benchmark, scenario, accuracy)


def test_list_prints_one_aligned_row_for_each_benchmark() -> None:
    done = finish("list")
    assert done.returncode == 0
    header, *rows, legend = done.stdout.splitlines()
    assert [row.split()[0] for row in rows] == list(catalog.BENCHMARKS)
    assert "99*,99.9" in rows[0]
    assert "99,99.9*" in next(row for row in rows if row.startswith("dlrm"))
    assert all(row[header.index("TASK") - 1] == " " for row in rows)
    assert legend.startswith("*")
