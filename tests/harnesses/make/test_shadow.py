"""A directory that looks like the tree, and what a run in it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heteromig.harnesses.make.shadow import make_shadow, remove_shadow
from tests.nvidia_tree.tree import make, plant, workload

WORKER = "20261124T002520Z-resnet50-offline/workers/1-background-bert"


def shadow_in(runs: Path) -> Path:
    """Where a shadow is to be, below a directory of runs, with another run and the link to the latest beside it."""
    (runs / WORKER).mkdir(parents=True)
    (runs / "20251124T000000Z-bert-server").mkdir()
    (runs / "latest").symlink_to(WORKER.partition("/")[0])
    return runs / WORKER / "tree"


def links(directory: Path) -> dict[str, Path]:
    return {path.name: path.readlink() for path in directory.iterdir() if path.is_symlink()}


def directories(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir() and not path.is_symlink()}


def contents(tree: Path) -> dict[str, bytes | Path | None]:
    """Every file, link and directory of a tree."""
    found: dict[str, bytes | Path | None] = {}
    for folder, names, files in os.walk(tree):
        for name in (*names, *files):
            path = Path(folder, name)
            found[str(path.relative_to(tree))] = (
                path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
            )
    return found


def assert_no_loop(shadow: Path) -> None:
    """Whoever follows all links comes to an end, and does not meet the shadow again."""
    inside = shadow.resolve()
    for folder, names, _ in os.walk(shadow, followlinks=True):
        for name in names:
            assert not inside.is_relative_to(Path(folder, name).resolve()), Path(folder, name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path, with_engines=True)


def test_what_is_private_and_what_is_linked(tree: Path, tmp_path: Path) -> None:
    for name in ("audit.config", "verify_accuracy.txt", "verify_performance.txt", "verify_output.txt", "accuracy.txt"):
        (tree / name).write_text("of somebody else\n")
    (tree / "measurements" / "mine").write_text("submitted\n")
    (tree / "build" / "logs" / "2020.01.01-00.00.00").mkdir()
    shadow = shadow_in(tmp_path / "runs")
    make_shadow(tree, shadow, runs_dir=tmp_path / "runs")
    linked = {"Makefile", "code", "configs", "results", "scripts", "systems"}
    assert links(shadow) == {name: tree / name for name in linked}
    assert directories(shadow) == {"build", "measurements"}
    assert links(shadow / "build") == {name: tree / "build" / name for name in ("bin", "engines", "inference")}
    assert directories(shadow / "build") == {"logs"}
    assert list((shadow / "measurements").iterdir()) == list((shadow / "build" / "logs").iterdir()) == []
    assert_no_loop(shadow)


def test_a_run_in_it_leaves_the_tree_as_it_is(tree: Path, tmp_path: Path) -> None:
    (tree / "audit.config").write_text("*.*.mode = 2\n")
    make(tree, "link_dirs")
    make(tree, "run_harness", "--benchmarks=none", LOG_DIR=str(tmp_path / "first"))  # compiles what Python compiles
    shadow = shadow_in(tmp_path / "runs")
    before = contents(tree)
    make_shadow(tree, shadow, runs_dir=tmp_path / "runs")
    what = workload("bert", "Offline")
    arguments = "--benchmarks=bert --scenarios=offline --config_ver=hetero --min_duration=100 --min_query_count=1"
    ended = make(shadow, "run_harness", arguments, LOG_DIR=str(tmp_path / "logs"))
    assert ended.returncode == 0, ended.stdout
    assert "Result is : VALID" in ended.stdout
    assert (shadow / "measurements" / what.directory / "user.conf").exists()
    assert {name: one for name, one in contents(tree).items() if "__pycache__" not in name} == {
        name: one for name, one in before.items() if "__pycache__" not in name
    }
    remove_shadow(shadow)
    assert not shadow.exists()
    assert (tree / "build" / "bin" / "harness_bert").exists()
    assert (tmp_path / "logs" / what.directory / "mlperf_log_detail.txt").exists()


def test_removal_touches_nothing_that_is_linked(tree: Path, tmp_path: Path) -> None:
    shadow = shadow_in(tmp_path / "runs")
    before = contents(tree)
    make_shadow(tree, shadow, runs_dir=tmp_path / "runs")
    remove_shadow(shadow)
    assert contents(tree) == before
    assert not os.path.lexists(shadow)
    remove_shadow(shadow)  # once more, as where it was never made


def test_what_cannot_be_removed_is_told_and_the_links_go_all_the_same(tree: Path, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    make_shadow(tree, shadow, runs_dir=tmp_path)
    remove_shadow(shadow)
    shadow.symlink_to(tree)  # somebody else's doing
    with pytest.raises(OSError, match="symbolic link"):
        remove_shadow(shadow)
    assert (tree / "Makefile").exists()


def test_build_may_be_a_link(tree: Path, tmp_path: Path) -> None:
    (tree / "build").rename(tmp_path / "elsewhere")
    (tree / "build").symlink_to(tmp_path / "elsewhere")
    shadow = shadow_in(tmp_path / "runs")
    make_shadow(tree, shadow, runs_dir=tmp_path / "runs")
    assert not (shadow / "build").is_symlink()
    assert set(links(shadow / "build")) == {"bin", "engines", "inference"}
    assert directories(shadow / "build") == {"logs"}
    (shadow / "build" / "logs" / "mine").touch()
    assert list((tmp_path / "elsewhere" / "logs").iterdir()) == []


def test_a_tree_without_a_build(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    make_shadow(tmp_path / "tree", tmp_path / "shadow", runs_dir=tmp_path)
    assert directories(tmp_path / "shadow") == {"build", "measurements"}


@pytest.mark.parametrize(
    "place",
    [".", "runs", "build", "build/runs", "build/logs/runs", "measurements/runs", "code/runs", "scripts/a/b/runs"],
)
def test_runs_may_be_anywhere_in_the_tree(tree: Path, place: str) -> None:
    usual = {path.name for path in tree.iterdir()}
    runs = tree / place
    (tree / "scripts" / "a" / "other").mkdir(parents=True)
    shadow = shadow_in(runs)
    make_shadow(tree, shadow, runs_dir=runs)
    assert_no_loop(shadow)
    assert {path.name for path in shadow.iterdir()} >= usual
    # Whatever is above the runs is there as before, but for the runs.
    for name in ("code/main_v2.py", "scripts/print_harness_result.py", "scripts/a/other", "build/bin/harness_bert"):
        assert (shadow / name).exists(), name
    assert not (shadow / place / WORKER).exists()
    if place.endswith("runs"):
        assert not (shadow / place).exists()
    arguments = "--benchmarks=rnnt --scenarios=offline --config_ver=hetero --min_duration=50 --min_query_count=1"
    ended = make(shadow, "run_harness", arguments, LOG_DIR=str(runs / WORKER / "logs"))
    assert ended.returncode == 0, ended.stdout
    remove_shadow(shadow)
    assert (tree / "code" / "main_v2.py").exists()


def test_links_of_the_tree_may_lead_anywhere(tree: Path, tmp_path: Path) -> None:
    shadow = shadow_in(tmp_path / "runs")
    (tree / "nowhere").symlink_to("not/there")
    (tree / "circle").symlink_to("circle")
    (tree / "itself").symlink_to(tree)
    (tree / "everything").symlink_to(tmp_path)
    make_shadow(tree, shadow, runs_dir=tmp_path / "runs")
    found = links(shadow)
    assert {"nowhere", "circle", "itself"} <= set(found)
    assert "everything" not in found  # the shadow is in it
    remove_shadow(shadow)
    assert (tree / "circle").is_symlink()


@pytest.mark.parametrize("name", ["with space", "two\nlines", "$HOME", "-rf", "ünïcode", "\udcff bytes"])
def test_names_of_any_kind(tree: Path, tmp_path: Path, name: str) -> None:
    (tree / name).write_text("kept\n")
    (tree / "build" / name).mkdir()
    shadow = tmp_path / "shadow"
    make_shadow(tree, shadow, runs_dir=tmp_path / "runs")
    assert (shadow / name).read_text() == "kept\n"
    assert links(shadow / "build")[name] == tree / "build" / name
    remove_shadow(shadow)
    assert (tree / name).read_text() == "kept\n"


def test_what_nobody_may_read_is_linked_unread(tree: Path, tmp_path: Path) -> None:
    secret = tree / "secret"
    secret.mkdir()
    (secret / "inner").touch()
    secret.chmod(0)
    try:
        make_shadow(tree, tmp_path / "shadow", runs_dir=tmp_path / "runs")
        assert links(tmp_path / "shadow")["secret"] == secret
        remove_shadow(tmp_path / "shadow")
    finally:
        secret.chmod(0o700)
    assert (secret / "inner").exists()


def test_a_shadow_that_is_there_already_is_not_touched(tree: Path, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "kept").touch()
    with pytest.raises(FileExistsError):
        make_shadow(tree, shadow, runs_dir=tmp_path / "runs")
    assert [path.name for path in shadow.iterdir()] == ["kept"]
