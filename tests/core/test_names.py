from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.core.names import directory_name, is_name, odd_names
from heteromig.core.phases import Role
from heteromig.core.plan import make_plan
from tests.core.histories import SPEC, inventory

ODD = (
    "..",
    ".",
    "",
    "/",
    "../../etc",
    "a/b",
    "a\0b",
    "a\nb",
    "a b",
    "\x1b[31m",
    "-rf",
    "x" * 65,
    "é",
    "\ud800",
    ".hidden",
)

_TEXTS = st.text(st.sampled_from("./\\\0\n\x1b-aZ9_") | st.characters(), max_size=300)


@pytest.mark.parametrize("text", ODD)
def test_text_that_is_no_name(text: str) -> None:
    assert not is_name(text)
    main = replace(SPEC.main, config_ver=text)
    assert list(odd_names(replace(SPEC, main=main))) == ([text] if text else [])
    info = replace(SPEC.catalog[0], name=text)
    assert list(odd_names(replace(SPEC, catalog=(info,)))) == [text]


@pytest.mark.parametrize("text", ["resnet50", "3d-unet", "bert_99.9", "hetero_triton", "g++"])
def test_text_that_is_one_and_stays_as_it_is(text: str) -> None:
    assert is_name(text)
    assert directory_name(3, "background", text) == f"3-background-{text}"
    assert list(odd_names(SPEC)) == []


@given(st.lists(_TEXTS, min_size=1, max_size=4))
def test_whatever_the_parts_are_it_is_one_component_of_a_path(parts: list[str]) -> None:
    name = directory_name(*parts)
    assert 0 < len(name.encode()) <= 255
    assert name.isprintable()
    assert name not in {".", ".."}
    assert not name.startswith((".", "-"))
    assert PurePosixPath("run", "workers", name).parts == ("run", "workers", name)
    assert "\0" not in name


@given(_TEXTS)
def test_workers_of_a_journal_that_says_anything_are_below_its_directory(text: str) -> None:
    """Nobody but a forger has such a spec: the core still makes no path of it that leads elsewhere."""
    spec = replace(
        SPEC,
        main=replace(SPEC.main, benchmark=text),
        catalog=(*SPEC.catalog, replace(SPEC.catalog[0], name=text)),
    )
    plan = make_plan(spec, inventory(), (0, 1))
    for worker in plan.workers:
        assert PurePosixPath(worker.directory).parts[0] == "workers"
        assert len(PurePosixPath(worker.directory).parts) == 2
        assert ".." not in PurePosixPath(worker.directory).parts
        assert worker.role in set(Role)
