"""`import-results`, called in this process."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import cast

import pytest
from click.testing import Result
from typer.testing import CliRunner

from heteromig.cli.main import app
from heteromig.core.errors import UsageError
from tests.results.trees import DGX, HETERO, write_run, write_v20


def _call(*argv: str) -> Result:
    result = CliRunner().invoke(app, ("import-results", *argv))
    if isinstance(result.exception, UsageError):
        raise result.exception
    return cast("Result", result)


def test_table(tmp_path: Path) -> None:
    (write_v20(tmp_path) / "README.md").write_text("notes")
    result = _call(str(tmp_path))
    assert result.exit_code == 0
    assert f"against {DGX} (same name)" in result.stdout
    assert "0.9942     -0.58" in result.stdout
    assert result.stderr == "skipped closed/NVIDIA/results/README.md: a file where directories are expected\n"


def test_csv(tmp_path: Path) -> None:
    write_v20(tmp_path)
    result = _call(str(tmp_path), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["ratio"] for row in rows] == ["0.9942", "1.0198"]
    assert [row["change_percent"] for row in rows] == ["-0.58", "1.98"]
    assert [row["p99_change_percent"] for row in rows] == ["0.59", "8.31"]
    assert {row["valid"] for row in rows} == {"VALID"}
    assert rows[0]["value"] == "5200.54"
    assert (rows[0]["system"], rows[0]["baseline"]) == (DGX + HETERO, DGX)


def test_json_has_what_was_skipped(tmp_path: Path) -> None:
    (write_v20(tmp_path) / "README.md").write_text("notes")
    result = _call(str(tmp_path), "--format", "json")
    found = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [row["ratio"] for row in found["comparisons"]] == [0.9942, 1.0198]
    assert found["skipped"] == [
        {"path": "closed/NVIDIA/results/README.md", "reason": "a file where directories are expected"}
    ]


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_nothing_to_compare_is_9(tmp_path: Path, form: str) -> None:
    write_run(tmp_path / f"results/{DGX}{HETERO}/rnnt/Offline", 1482.2, 1)
    result = _call(str(tmp_path), "--format", form)
    assert result.exit_code == 9
    assert "rnnt" in result.stdout
    assert "Nothing could be compared" in result.stderr


@pytest.mark.parametrize("system", [DGX, DGX + HETERO])
def test_nothing_usable_is_9(tmp_path: Path, system: str) -> None:
    (tmp_path / "results" / system / "rnnt" / "Offline").mkdir(parents=True)
    result = _call(str(tmp_path))
    assert (result.exit_code, result.stdout) == (9, "")
    assert "Nothing could be compared" in result.stderr


def test_baseline_option(tmp_path: Path) -> None:
    write_v20(tmp_path)
    result = _call(str(tmp_path), "--baseline", f"{DGX}{HETERO}={DGX}_Triton", "--format", "json")
    assert {row["baseline"] for row in json.loads(result.stdout)["comparisons"]} == {f"{DGX}_Triton"}
    with pytest.raises(UsageError, match="no results of nobody"):
        _call(str(tmp_path), "--baseline", f"nobody={DGX}")


def test_no_tree_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tree of MLPerf results"):
        _call(str(tmp_path))
