"""How NVIDIA's tree is recognised, and which paths make can handle."""

from __future__ import annotations

from pathlib import Path

import pytest

from heteromig.core.errors import PreflightError
from heteromig.harnesses.make.tree import find_tree, is_tree, require_makeable, require_tree
from tests.nvidia_tree.tree import plant


def with_files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        (("Makefile", "scripts/launch_heterogeneous_mig.py"), True),
        (("Makefile", "code/main_v2.py", "code/common/__init__.py"), True),
        (("Makefile", "code/main.py", "code/common/constants.py"), True),
        (("scripts/launch_heterogeneous_mig.py", "code/main.py", "code/common/__init__.py"), False),
        (("Makefile",), False),
        # Anybody's project.
        (("Makefile", "code/main.py"), False),
        (("Makefile/inner", "scripts/launch_heterogeneous_mig.py"), False),
    ],
)
def test_signs(tmp_path: Path, names: tuple[str, ...], is_one: bool) -> None:  # noqa: FBT001 - pytest passes by name
    assert is_tree(with_files(tmp_path, *names)) == is_one


def test_found_from_anywhere_inside(tmp_path: Path) -> None:
    tree = plant(tmp_path)
    assert find_tree(tree) == tree
    assert find_tree(tree / "code") == tree
    assert find_tree(tree / "build" / "not" / "there" / "yet") == tree
    assert find_tree(tree.parent) is None


def test_the_innermost_tree_is_the_one(tmp_path: Path) -> None:
    outer = plant(tmp_path)
    inner = plant(outer / "configs")
    assert find_tree(inner / "code") == inner


def test_a_place_that_cannot_be_looked_into_is_no_tree(tmp_path: Path) -> None:
    assert find_tree(tmp_path / ("x" * 5000)) is None


def test_a_tree_is_required(tmp_path: Path) -> None:
    tree = plant(tmp_path)
    assert require_tree(str(tree)) == tree
    with pytest.raises(PreflightError, match="start heteromig inside closed/NVIDIA, or name it with --harness-dir"):
        require_tree("")
    with pytest.raises(
        PreflightError, match=f"{tmp_path} is not NVIDIA's tree: it has no Makefile beside scripts/launch"
    ):
        require_tree(str(tmp_path))


@pytest.mark.parametrize("name", ["plain", "v2.1-1x1g.10gb", "a+b,c=d:e@f%g~h", "für_Läufe", "20261124T002520Z-x-y"])
def test_paths_for_make(tmp_path: Path, name: str) -> None:
    require_makeable(tmp_path / name, "never said.")


@pytest.mark.parametrize("unsafe", [" ", "\n", "$", "'", '"', "`", ";", "&", "|", "(", "*", "?", "[", "<", "\\"])
def test_paths_that_are_not_for_make(tmp_path: Path, unsafe: str) -> None:
    with pytest.raises(PreflightError) as caught:
        require_makeable(tmp_path / f"a{unsafe}b", "choose another.")
    assert repr(unsafe) in str(caught.value)
    assert str(caught.value).endswith(": choose another.")
