from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from heteromig.core.errors import UsageError
from heteromig.results.importing import Imported, import_results, parse_baselines
from tests.results.trees import A30, DGX, HETERO, write_run, write_v20


def reasons(found: Imported) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in found.skipped}


@pytest.mark.parametrize("below", [".", "closed", "closed/NVIDIA", "closed/NVIDIA/results"])
def test_any_level_of_a_tree_will_do(tmp_path: Path, below: str) -> None:
    write_v20(tmp_path)
    found = import_results(tmp_path / below, {})
    assert (found.systems, found.compared, found.skipped) == (1, 2, ())
    offline, server = found.comparisons
    assert offline.results == os.path.relpath(tmp_path / "closed/NVIDIA/results", tmp_path / below)
    assert (offline.system, offline.baseline, offline.match) == (DGX + HETERO, DGX, "same name")
    assert (offline.scenario, offline.ratio, offline.change_percent) == ("Offline", 0.9942, -0.58)
    assert (server.scenario, server.ratio, server.change_percent) == ("Server", 1.0198, 1.98)
    assert server.p99_change_percent == 8.31


def test_results_directory_of_any_name_and_rounds_side_by_side(tmp_path: Path) -> None:
    write_v20(tmp_path / "v2.0")
    shutil.copytree(tmp_path / "v2.0", tmp_path / "v1.1")
    (tmp_path / "v1.1" / "open").symlink_to(tmp_path / "v1.1" / "closed")
    found = import_results(tmp_path, {})
    assert [row.results for row in found.comparisons] == [
        f"{name}/closed/NVIDIA/results" for name in ("v1.1", "v1.1", "v2.0", "v2.0")
    ]
    moved = shutil.move(tmp_path / "v2.0/closed/NVIDIA/results", tmp_path / "published")
    assert [row.results for row in import_results(Path(moved), {}).comparisons] == [".", "."]


def test_a_system_is_compared_with_its_own_submitter_only(tmp_path: Path) -> None:
    write_run(tmp_path / f"closed/A/results/{A30}{HETERO}/resnet50/Offline", 4551.82, 1)
    write_run(tmp_path / f"closed/B/results/{A30}/resnet50/Offline", 4965.89, 1)
    found = import_results(tmp_path, {})
    assert found.compared == 0
    assert found.comparisons[0].baseline is None
    assert reasons(found)[f"closed/A/results/{A30}{HETERO}"].startswith("no baseline: no plain system")


def test_damaged_trees_are_survived_and_told(tmp_path: Path) -> None:
    results = write_v20(tmp_path)
    hetero = results / (DGX + HETERO)
    (results / ".DS_Store").write_bytes(b"\0")
    (hetero / "README.md").write_text("notes")
    (hetero / "rnnt").mkdir()
    (hetero / "bert-99" / "Offline").mkdir(parents=True)
    (hetero / "bert-99.9" / "Server" / "performance" / "latest").mkdir(parents=True)
    (hetero / "resnet50" / "Offline" / "performance" / "power").mkdir()
    write_run(hetero / "resnet50" / "Server", 3000.0, 1, run="run_10")
    write_run(hetero / "resnet50" / "Server", 3100.0, 1, run="run_2")
    (hetero / "resnet50" / "Server" / "performance" / "run_1" / "mlperf_log_summary.txt").write_bytes(b"")
    (hetero / "resnet50" / "Server" / "performance" / "run_1" / "mlperf_log_detail.txt").unlink()
    write_run(hetero / "ssd-resnet34" / "Offline", 100.0, 1)
    write_run(hetero / "dlrm-99" / "Offline", 100.0, 1)
    write_run(results / DGX / "dlrm-99" / "Offline", 100.0, 1)
    for log in (results / DGX / "dlrm-99/Offline/performance/run_1").iterdir():
        log.write_bytes(log.read_bytes()[:200])
    (hetero / os.fsdecode(b"f\xffreign")).mkdir()
    found = import_results(results, {})
    rows = {(row.benchmark, row.scenario): row for row in found.comparisons}
    assert {key: row.ratio for key, row in rows.items()} == {
        ("resnet50", "Offline"): 0.9942,
        ("resnet50", "Server"): round(3100 / 3527.25, 4),
        ("ssd-resnet34", "Offline"): None,
        ("dlrm-99", "Offline"): None,
    }
    assert rows["ssd-resnet34", "Offline"].remark == f"{DGX} has no result here"
    assert rows["dlrm-99", "Offline"].remark == f"{DGX} has no usable result here"
    told = reasons(found)
    own = DGX + HETERO
    assert told[".DS_Store"] == told[f"{own}/README.md"] == "a file where directories are expected"
    assert told[f"{own}/bert-99/Offline"] == "it has no directory performance"
    assert told[f"{own}/bert-99.9/Server/performance/latest"] == "not a run_<number>"
    assert told[f"{own}/resnet50/Server/performance/run_1"] == "no figure for server"
    assert told[f"{own}/resnet50/Server/performance/run_10"] == "an earlier run is compared"
    assert told[f"{DGX}/dlrm-99/Offline/performance/run_1"] == "no figure for offline"
    assert not any("power" in path for path in told)


def test_scenarios_are_found_however_they_are_capitalised(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_run(results / f"{A30}{HETERO}/resnet50/Offline", 4551.82, 656736890365, samples_per_query=3019500)
    write_run(results / f"{A30}/resnet50/offline", 4965.89, 644765108714, samples_per_query=3234000)
    (row,) = import_results(tmp_path, {}).comparisons
    assert (row.ratio, row.change_percent, row.p99_change_percent) == (0.9166, -8.34, 1.86)
    assert row.remark == "p99 is of 3019500 samples against 3234000"


def test_baseline_can_be_named(tmp_path: Path) -> None:
    write_v20(tmp_path)
    found = import_results(tmp_path, parse_baselines((f"{DGX}{HETERO}={DGX}_Triton", f"{DGX}={DGX}_Triton")))
    rows = {(row.system, row.scenario): row for row in found.comparisons}
    assert rows[DGX + HETERO, "Offline"].match == "named with --baseline"
    assert rows[DGX + HETERO, "Offline"].ratio == 1.0401
    assert rows[DGX, "Offline"].ratio == 1.0462
    assert rows[DGX, "Server"].ratio is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("a",), "SYSTEM=BASELINE"),
        (("a=",), "SYSTEM=BASELINE"),
        (("a=b", "a=c"), "two plain systems for a: b and c"),
        (("nobody=nothing",), "no results of nobody and of nothing"),
        ((f"{DGX}{HETERO}=nothing",), "no results of nothing"),
    ],
)
def test_baselines_that_cannot_be(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    write_v20(tmp_path)
    with pytest.raises(UsageError, match=words):
        import_results(tmp_path, parse_baselines(options))


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "no tree of MLPerf results"), (tmp_path / "none", "is no directory")):
        with pytest.raises(UsageError, match=words):
            import_results(path, {})
    (tmp_path / "closed" / "NVIDIA" / "results").mkdir(parents=True)
    with pytest.raises(UsageError, match="no tree of MLPerf results"):
        import_results(tmp_path, {})


def test_a_tree_without_busy_neighbours_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / f"results/{A30}/resnet50/Offline", 4965.89, 1)
    found = import_results(tmp_path, {})
    assert (found.systems, found.compared, found.comparisons) == (0, 0, ())
    assert reasons(found) == {".": "no system is named *_HeteroMultiUse"}
