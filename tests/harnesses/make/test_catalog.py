"""What can run, where, and with which configuration version."""

from __future__ import annotations

import pytest

from heteromig.core.errors import UsageError
from heteromig.core.spec import SystemSpec
from heteromig.harnesses.make import catalog
from heteromig.harnesses.make.harness import MakeHarness
from heteromig.slices.boards import BOARDS

H100 = SystemSpec(
    gpu="H100",
    benchmarks=(
        ("resnet50", ("offline", "server")),
        ("3d-unet", ("offline", "multistream")),
        ("gptj", ("offline", "server")),
    ),
)


def test_sets() -> None:
    sets = MakeHarness("", ()).sets()
    assert set(sets) == {"all", "datacenter", "edge"}
    assert set(sets["all"]) == {"resnet50", "ssd-resnet34", "ssd-mobilenet", "bert", "dlrm", "rnnt", "3d-unet"}
    assert set(sets["all"]) - set(sets["datacenter"]) == {"ssd-mobilenet"}
    assert set(sets["all"]) - set(sets["edge"]) == {"dlrm"}


@pytest.mark.parametrize(
    ("benchmark", "scenarios"),
    [
        ("resnet50", {"offline", "server", "singlestream", "multistream"}),
        ("ssd-resnet34", {"offline", "server", "singlestream", "multistream"}),
        ("ssd-mobilenet", {"offline", "singlestream", "multistream"}),
        ("bert", {"offline", "server", "singlestream"}),
        ("dlrm", {"offline", "server"}),
        ("rnnt", {"offline", "server", "singlestream"}),
        ("3d-unet", {"offline", "singlestream"}),
    ],
)
def test_scenarios_are_the_same_on_every_system_of_the_document(benchmark: str, scenarios: set[str]) -> None:
    harness = MakeHarness("", ())
    assert set(harness.benchmark(benchmark).scenarios) == scenarios
    assert len(harness.systems()) == 3
    for system in harness.systems():
        assert {name for name, _ in system.benchmarks} == set(harness.sets()["all"])
        assert {one for one in catalog.SCENARIO_NAMES if system.supports(benchmark, one)} == scenarios


def test_systems_of_the_document_are_known_by_the_names_that_nvml_gives_them() -> None:
    boards = {
        board.name: [
            system.gpu for system in catalog.SYSTEMS if system.gpu.lower() in f"NVIDIA {board.product}".lower()
        ]
        for board in BOARDS.values()
    }
    assert boards == {
        "a30": ["A30"],
        "a100-sxm-40gb": [],
        "a100-sxm-80gb": ["A100-SXM4-80GB"],
        "a100-pcie-80gb": ["A100 80GB PCIe"],
        "h100-sxm-80gb": [],
        "h200-sxm-141gb": [],
        "b200-sxm-180gb": [],
    }


@pytest.mark.parametrize(
    ("benchmark", "config_vers"),
    [
        ("resnet50", {"99": "hetero"}),
        ("ssd-resnet34", {"99": "hetero"}),
        ("ssd-mobilenet", {"99": "hetero"}),
        ("rnnt", {"99": "hetero"}),
        ("bert", {"99": "hetero", "99.9": "hetero_high_accuracy"}),
        ("dlrm", {"99.9": "hetero_high_accuracy"}),
        ("3d-unet", {"99.9": "hetero_high_accuracy"}),
    ],
)
def test_configuration_versions(benchmark: str, config_vers: dict[str, str]) -> None:
    info = MakeHarness("", ()).benchmark(benchmark)
    assert {accuracy: info.config_ver(accuracy) for accuracy in info.accuracies} == config_vers
    assert info.default_accuracy == next(iter(config_vers))
    assert not info.stops_cleanly


@pytest.mark.parametrize(
    ("scenario", "accuracy", "said"),
    [("server", "99.9", "has no scenario 'server': choose one of offline"), ("offline", "99", "has no accuracy '99'")],
)
def test_what_a_benchmark_does_not_have_is_refused(scenario: str, accuracy: str, said: str) -> None:
    harness = MakeHarness("", ())
    harness.require_supported("3d-unet", "offline", "99.9")
    with pytest.raises(UsageError, match=said):
        harness.require_supported("3d-unet", scenario, accuracy)


def test_systems_of_the_configuration_add_benchmarks_and_scenarios() -> None:
    harness = MakeHarness("", (H100,))
    assert [system.gpu for system in harness.systems()] == ["H100", *(system.gpu for system in catalog.SYSTEMS)]
    added = harness.benchmark("gptj")
    assert (added.scenarios, added.accuracies, added.default_accuracy) == (("offline", "server"), ("99", "99.9"), "99")
    assert (added.config_ver("99"), added.config_ver("99.9")) == ("hetero", "hetero_high_accuracy")
    assert harness.benchmark("3d-unet").scenarios == ("offline", "singlestream", "multistream")
    assert harness.benchmark("3d-unet").accuracies == ("99.9",)
    assert harness.benchmark("bert") == MakeHarness("", ()).benchmark("bert")
    # On the systems of the document nothing is new.
    assert not any(system.supports("3d-unet", "multistream") for system in catalog.SYSTEMS)
    # What a run was told is told again when it is verified.
    assert MakeHarness("", harness.systems()).catalog() == harness.catalog()
    assert MakeHarness("", harness.systems()).systems() == harness.systems()


def test_a_system_of_the_configuration_replaces_one_of_the_document() -> None:
    smaller = SystemSpec(gpu="A30", benchmarks=(("bert", ("offline",)),))
    (first, *rest) = MakeHarness("", (smaller,)).systems()
    assert first == smaller
    assert [system.gpu for system in rest] == ["A100-SXM4-80GB", "A100 80GB PCIe"]


def test_a_scenario_that_the_tree_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'B200' has llama2 with the scenario 'interactive'.* offline, server"):
        MakeHarness("", (SystemSpec(gpu="B200", benchmarks=(("llama2", ("offline", "interactive")),)),))


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet", "did you mean 'resnet50'"), ("unet", "did you mean '3d-unet'"), ("x", "use one of")]
)
def test_a_benchmark_that_the_tree_does_not_have_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no benchmark '{name}': {hint}"):
        MakeHarness("", ()).benchmark(name)


def test_log_directories_may_be_named_after_the_accuracy() -> None:
    assert catalog.directory_names("bert") == ("bert", "bert-99", "bert-99.9")
