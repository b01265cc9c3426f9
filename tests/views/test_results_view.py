from __future__ import annotations

from pathlib import Path

from heteromig.results.importing import import_results
from heteromig.views.results_view import results_table
from tests.results.trees import DGX, HETERO, write_run, write_v20


def test_each_system_is_headed_by_what_it_is_compared_with(tmp_path: Path) -> None:
    results = write_v20(tmp_path)
    write_run(results / "x_HeteroMultiUse/resnet50/SingleStream", 681620, 691579, valid=False)
    lines = results_table(import_results(tmp_path, {}).comparisons).plain.splitlines()
    assert [line.rstrip() for line in lines] == [
        f"{DGX}{HETERO}  in closed/NVIDIA/results",
        f"against {DGX} (same name)",
        "  BENCHMARK  SCENARIO      UNIT        BESIDE    ALONE   RATIO  CHANGE %      P99 MS  P99 CHANGE %  RESULT",
        "  resnet50   Offline       samples/s  5200.54  5231.07  0.9942     -0.58  640820.507         +0.59  VALID",
        "  resnet50   Server        samples/s  3597.21  3527.25  1.0198     +1.98       8.185         +8.31  VALID",
        "",
        "x_HeteroMultiUse  in closed/NVIDIA/results",
        "no baseline: no plain system: none has the same board, one smallest slice",
        "  BENCHMARK  SCENARIO      UNIT        BESIDE    ALONE   RATIO  CHANGE %      P99 MS  P99 CHANGE %  RESULT",
        "  resnet50   SingleStream  ms           0.682      n/a     n/a       n/a       0.692           n/a  INVALID",
    ]


def test_remarks_and_verdicts_that_differ_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / f"results/{DGX}{HETERO}/rnnt/Offline", 10.0, 1, samples_per_query=7)
    write_run(tmp_path / f"results/{DGX}/rnnt/Offline", 10.0, 1, samples_per_query=8, valid=False)
    text = results_table(import_results(tmp_path, {}).comparisons)
    assert "VALID, alone INVALID" in text.plain
    assert text.plain.splitlines()[-1] == "    p99 is of 7 samples against 8"
    assert any(span.style == "red" for span in text.spans)


def test_a_directory_cannot_name_itself_into_the_terminal(tmp_path: Path) -> None:
    write_run(tmp_path / "results" / "x\x1b[31m_HeteroMultiUse" / "evil\x1b[2J" / "Offline", 10.0, 1)
    text = results_table(import_results(tmp_path, {}).comparisons).plain
    assert "\x1b" not in text
    assert "evil" in text
