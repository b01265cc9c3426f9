from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.logs.search import LogPlace, LogSearch

S = 1_000_000_000


def log(folder: Path, text: str = "log\n", *, at_s: float | None = None) -> Path:
    """A detail log in `folder`, last changed at a given second of 1970."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DETAIL_LOG
    path.write_text(text)
    if at_s is not None:
        os.utime(path, ns=(round(at_s * S), round(at_s * S)))
    return path


# --- where logs are looked for ----------------------------------------------------------------------------------------


def test_a_place_is_its_root_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    assert LogPlace(tmp_path).detail_logs() == []
    log(tmp_path / "below")
    (tmp_path / "mlperf_log_summary.txt").write_text("")
    assert LogPlace(tmp_path).detail_logs() == []
    assert LogPlace(tmp_path).detail_logs() == []
    found = log(tmp_path)
    assert LogPlace(tmp_path).detail_logs() == [found]


def test_a_root_that_is_not_there_has_no_logs(tmp_path: Path) -> None:
    place = LogPlace(tmp_path / "later", ("*/*", "."))
    search = LogSearch(place)
    assert (place.detail_logs(), search.find()) == ([], None)
    path = log(tmp_path / "later/a/b")
    assert (place.detail_logs(), search.find()) == ([path], path)


def test_patterns_say_how_far_below_logs_are(tmp_path: Path) -> None:
    deep = [log(tmp_path / name) for name in ("b/x/Offline", "a/x/Offline")]
    log(tmp_path / "a/x")
    log(tmp_path / "a/x/Offline/more")
    assert LogPlace(tmp_path, ("*/*/*",)).detail_logs() == sorted(deep)
    assert LogPlace(tmp_path, ("*/x/*", "a/*/Offline", "nothing")).detail_logs() == sorted(deep), "each is told once"
    assert LogPlace(tmp_path, ("a/x", "a/x/*")).detail_logs() == sorted(
        [tmp_path / "a/x" / DETAIL_LOG, tmp_path / "a/x/Offline" / DETAIL_LOG]
    )


# --- which of them is meant -------------------------------------------------------------------------------------------


def test_logs_from_before_are_those_of_another_run(tmp_path: Path) -> None:
    log(tmp_path / "old", at_s=5)
    log(tmp_path / "young", at_s=50)
    search = LogSearch(LogPlace(tmp_path, ("*",)))
    assert search.find() is None
    new = log(tmp_path / "new", at_s=1)
    assert search.find() == new, "an old clock makes it no older"


@pytest.mark.parametrize("change", ["longer", "shorter", "later", "another file"])
def test_a_log_from_before_that_is_written_anew_is_found(tmp_path: Path, change: str) -> None:
    path = log(tmp_path, "as it was\n", at_s=5)
    search = LogSearch(LogPlace(tmp_path))
    assert search.find() is None
    if change == "another file":
        beside = tmp_path / "beside"
        log(beside, "as it was\n", at_s=5).rename(path)
    else:
        text = {"longer": "as it was, and more\n", "shorter": "", "later": "as it was\n"}[change]
        log(tmp_path, text, at_s=6 if change == "later" else 5)
    assert search.find() == path


def test_of_several_the_one_that_was_changed_last_is_meant(tmp_path: Path) -> None:
    search = LogSearch(LogPlace(tmp_path, ("*",)))
    first, second = log(tmp_path / "b", at_s=10), log(tmp_path / "a", at_s=20)
    assert search.find() == second
    log(tmp_path / "b", at_s=30)
    assert search.find() == first
    first.unlink()
    assert search.find() == second


@pytest.mark.parametrize("kind", ["dangling", "loop"])
def test_a_link_to_nowhere_is_no_log(tmp_path: Path, kind: str) -> None:
    search = LogSearch(LogPlace(tmp_path, ("*",)))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / DETAIL_LOG).symlink_to("nowhere" if kind == "dangling" else DETAIL_LOG)
    assert search.find() is None
    path = log(tmp_path / "real")
    assert search.find() == path


def test_a_log_that_vanishes_is_found_again_when_it_comes_back(tmp_path: Path) -> None:
    path = log(tmp_path, at_s=5)
    search = LogSearch(LogPlace(tmp_path))
    path.unlink()
    assert search.find() is None
    log(tmp_path, at_s=7)
    assert search.find() == path


@given(
    before=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9)),
    after=st.dictionaries(st.sampled_from("abcdef"), st.integers(11, 99), min_size=1),
)
def test_whatever_was_there_the_newest_of_those_that_were_written_since_is_found(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, int], after: dict[str, int]
) -> None:
    root = tmp_path_factory.mktemp("search")
    for name, at_s in before.items():
        log(root / name, at_s=at_s)
    search = LogSearch(LogPlace(root, ("*",)))
    assert search.find() is None
    for name, at_s in after.items():
        log(root / name, at_s=at_s)
    found = search.find()
    assert found is not None
    assert after[found.parent.name] == max(after.values())
