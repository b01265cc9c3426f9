from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.errors import UsageError
from heteromig.slices.boards import BOARDS, Board
from heteromig.slices.layout import Layout, parse_layout

A100 = BOARDS["a100-sxm-80gb"]


def taken(layout: Layout) -> list[int]:
    return [one.start + offset for one in layout.placed for offset in range(one.profile.size)]


def names(layout: Layout) -> list[str]:
    return [one.profile.name for one in layout.placed]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_without_a_layout_a_board_is_cut_into_as_many_slices_as_it_has(board: Board) -> None:
    layout = parse_layout(board, "")
    assert [one.start for one in layout.placed] == list(range(board.max_slices))
    assert layout.text == f"{board.max_slices}x{board.default_profile.name}"


@pytest.mark.parametrize(
    "text",
    [
        "7g.80gb",
        "4g.40gb,3g.40gb",
        "4g.40gb,2g.20gb,1g.10gb",
        "4g.40gb,3x1g.10gb",
        "2x3g.40gb",
        "3g.40gb,2x2g.20gb",
        "3g.40gb,2g.20gb,2x1g.10gb",
        "3g.40gb,4x1g.10gb",
        "3x2g.20gb,1g.10gb",
        "2x2g.20gb,3x1g.10gb",
        "2g.20gb,5x1g.10gb",
        "7x1g.10gb",
        "4x1g.20gb",
        "6x1g.10gb,1g.10gb+me",
    ],
)
def test_layouts_that_nvidia_lists_for_an_a100_fit(text: str) -> None:
    layout = parse_layout(A100, text)
    assert layout.text == text
    assert len(taken(layout)) == len(set(taken(layout)))


def test_the_order_of_slices_is_that_of_their_starts_whatever_the_order_of_the_text() -> None:
    layout = parse_layout(A100, "1g.10gb, 2g.20gb,1g.10gb , 3g.40gb")
    starts = [one.start for one in layout.placed]
    assert starts == sorted(starts)
    assert layout == parse_layout(A100, "3g.40gb,2g.20gb,2x1g.10gb")
    assert sorted(names(layout)) == ["1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7x1g.10g", "nearest profile is 1g.10gb"),
        ("7*1g.10gb", "is not how to cut"),
        ("0x1g.10gb", "is not how to cut"),
        ("7x1g.5gb", "is no profile of a100-sxm-80gb"),
        ("3g.40gb,,1g.10gb", "is not how to cut"),
        ("8x1g.10gb", "write 7x1g.10gb or less"),
        ("2x1g.10gb+me", "write 1x1g.10gb+me or less"),
        ("7g.80gb,1g.10gb", "7g.80gb fits, and leaves no legal place for a further 1g.10gb"),
        ("3x2g.20gb,3g.40gb", "3g.40gb,2x2g.20gb fits, and leaves no legal place for a further 2g.20gb"),
        ("999999x1g.10gb", "asks for 999999 times 1g.10gb"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_with_what_fits(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_layout(A100, text)
    assert says in str(refusal.value)
    assert repr(text) in str(refusal.value)


@given(
    board=st.sampled_from(list(BOARDS.values())),
    wanted=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 6)), min_size=1, max_size=8),
)
def test_whatever_is_accepted_is_disjoint_legal_and_complete(board: Board, wanted: list[tuple[int, int]]) -> None:
    items = [(count, board.profiles[index % len(board.profiles)].name) for count, index in wanted]
    expected = sorted(name for count, name in items for _ in range(count))
    try:
        layout = parse_layout(board, ",".join(f"{count}x{name}" for count, name in items))
    except UsageError:
        assert not greedily_placeable(board, expected)
        return
    assert len(taken(layout)) == len(set(taken(layout)))
    assert all(one.start in one.profile.starts for one in layout.placed)
    assert sum(one.profile.compute_slices for one in layout.placed) <= board.max_slices
    assert sorted(names(layout)) == expected
    assert parse_layout(board, layout.text) == layout


def greedily_placeable(board: Board, wanted: list[str]) -> bool:
    """Whether largest first at the first free start already works out."""
    free = set(range(board.memory_slices))
    profiles = [profile for name in wanted for profile in board.profiles if profile.name == name]
    for profile in sorted(profiles, key=lambda one: -one.size):
        if wanted.count(profile.name) > profile.max_instances:
            return False
        for start in profile.starts:
            cells = set(range(start, start + profile.size))
            if cells <= free:
                free -= cells
                break
        else:
            return False
    return True
