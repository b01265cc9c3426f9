"""Which files of runs are found below a runs directory."""

from __future__ import annotations

from pathlib import Path

from heteromig.slices.orders import files_of_runs


def test_files_of_runs_and_of_runs_in_series_are_found_once_and_links_are_not_followed(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    single, series = runs / "1-resnet50", runs / "2-resnet50-repeat"
    for directory in (single, series / "3-baseline", series / "4-resnet50", single / "workers" / "0-main"):
        directory.mkdir(parents=True)
        (directory / "layout.json").touch()
    (runs / "latest").symlink_to(series.name)
    (series / "another").symlink_to("3-baseline")
    (runs / "elsewhere").symlink_to(single)
    expected = [single, series / "3-baseline", series / "4-resnet50"]
    assert list(files_of_runs(runs, "layout.json")) == [directory / "layout.json" for directory in expected]
    (tmp_path / "link").symlink_to(runs)
    assert len(list(files_of_runs(tmp_path / "link", "layout.json"))) == 3, "the runs directory itself may be one"
