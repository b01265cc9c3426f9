from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.errors import UsageError
from heteromig.slices.boards import BOARDS, Engines, Profile
from heteromig.slices.mig.planning import (
    Offer,
    PlacedSlice,
    Wanted,
    WantedLayout,
    parse_wanted,
    plan_layout,
    written,
    written_with_places,
)
from tests.slices.mig.cuts import Multiset, all_cuts, multiset, offer_of

A100 = offer_of("a100-sxm-80gb")
A30 = offer_of("a30")


def plan(offer: Offer, text: str) -> tuple[PlacedSlice, ...]:
    return plan_layout(offer, parse_wanted(text, offer))


def refusal(offer: Offer, text: str) -> str:
    with pytest.raises(UsageError) as refused:
        plan(offer, text)
    return str(refused.value)


def nearest(sentence: str) -> str:
    match = re.search(r"The nearest layout that fits is (\S+)\.$", sentence)
    assert match is not None, sentence
    return match[1]


def legal(name: str) -> set[Multiset]:
    return {multiset([one.profile.name for one in cut]) for cut in all_cuts(name)}


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        ("4x1g.10gb", "1g.10gb@0,1g.10gb@1,1g.10gb@2,1g.10gb@3"),
        # With the large one in front, where it is tried first, the last small one would find no place.
        ("3g.40gb,2g.20gb,2x1g.10gb", "2g.20gb@0,1g.10gb@2,1g.10gb@3,3g.40gb@4"),
        ("2x1g.10gb, 2g.20gb ,3g.40gb", "2g.20gb@0,1g.10gb@2,1g.10gb@3,3g.40gb@4"),
        ("3g.40gb@0,2g.20gb,1g.10gb", "3g.40gb@0,2g.20gb@4,1g.10gb@6"),
        ("1g.10gb@5,1g.10gb@0,2g.20gb", "1g.10gb@0,2g.20gb@2,1g.10gb@5"),
        ("2x9", "3g.40gb@0,3g.40gb@4"),
        ("7g.80gb@0", "7g.80gb@0"),
        ("1g.10gb+me@6,3x2g.20gb", "2g.20gb@0,2g.20gb@2,2g.20gb@4,1g.10gb+me@6"),
    ],
)
def test_what_is_wanted_gets_its_places(text: str, placed: str) -> None:
    assert written_with_places(plan(A100, text)) == placed


@pytest.mark.parametrize(
    ("text", "reason", "instead"),
    [
        ("8x1g.10gb", "takes at most 7: write 7x1g.10gb or less", "7x1g.10gb"),
        ("2x4g.40gb", "takes at most 1", "4g.40gb,3g.40gb"),
        ("2x1g.10gb+me", "takes at most 1", "1g.10gb,1g.10gb+me"),
        ("999999x1g.20gb", "asks for 999999 times 1g.20gb", "4x1g.20gb"),
        ("3g.40gb,3x2g.20gb", "3g.40gb,2x2g.20gb fits, and leaves no legal place for a further 2g.20gb", None),
        ("7g.80gb,1g.10gb", "7g.80gb fits, and leaves no legal place for a further 1g.10gb", "7g.80gb"),
        ("3g.40gb@1", "3g.40gb cannot begin at memory slice 1, only at 0, 4", "3g.40gb"),
        ("3g.40gb@4,1g.10gb@5", "3g.40gb@4 fits, and leaves no room for 1g.10gb@5", "3g.40gb@4,1g.10gb"),
        ("2x3g.40gb@4", "3g.40gb@4 fits, and leaves no room for 3g.40gb@4", "3g.40gb@4,3g.40gb"),
        ("3g.40gb@0,4g.40gb", "3g.40gb@0 fits, and leaves no legal place for a further 4g.40gb", "3g.40gb@0,3g.40gb"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason_and_the_nearest(
    text: str, reason: str, instead: str | None
) -> None:
    sentence = refusal(A100, text)
    assert reason in sentence
    assert repr(text) in sentence
    if instead is not None:
        assert nearest(sentence) == instead


def test_media_engines_belong_to_one_instance() -> None:
    sentence = refusal(A30, "1g.6gb+me,2g.12gb+me")
    assert "2g.12gb+me fits, and leaves no media engines for a further 1g.6gb+me" in sentence
    assert nearest(sentence) == "2g.12gb+me,1g.6gb"
    assert written_with_places(plan(A30, "2g.12gb,2g.12gb+me")) == "2g.12gb@0,2g.12gb+me@2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7x1g.10g", "the nearest profile is 1g.10gb"),
        ("1g.5gb", "is no profile of a100-sxm-80gb"),
        ("99", "is no profile of a100-sxm-80gb"),
        ("", "is not how to cut"),
        ("1g.10gb,,1g.10gb", "is not how to cut"),
        ("0x1g.10gb", "is not how to cut"),
        ("-1x1g.10gb", "is not how to cut"),
        ("1g.10gb@", "is not how to cut"),
        ("1g.10gb@-1", "is not how to cut"),
        ("1g.10gb+ME", "is not how to cut"),
        ("1c.3g.40gb", "every slice is a whole GPU instance here, such as 3g.40gb"),
        ("2x1c.3g.40gb", "every slice is a whole GPU instance here, such as 3g.40gb"),
    ],
)
def test_what_is_no_layout_is_refused_with_what_is(text: str, says: str) -> None:
    assert says in refusal(A100, text)


def test_profiles_that_only_newer_boards_have_are_read() -> None:
    names = ["1g.24gb", "1g.24gb+me.all", "1g.24gb-me", "1g.24gb+gfx"]
    profiles = tuple(
        Profile(name, number, (0, 1, 2, 3), 1, 1, 46, 1 << 34, 4, Engines(int("-" not in name), 0, 0, 0))
        for number, name in enumerate(names)
    )
    text = ",".join(f"{name}@{start}" for start, name in enumerate(names))
    assert written_with_places(plan(Offer("rtx", profiles), text)) == text


def test_every_multiset_of_an_a30_is_found_exactly_if_it_is_legal() -> None:
    profiles = A30.profiles
    possible = legal("a30")
    counts = itertools.product(*(range(profile.max_instances + 2) for profile in profiles))
    tried = Counter[bool]()
    for count in itertools.islice(counts, 1, None):
        names = [profile.name for profile, many in zip(profiles, count, strict=True) for _ in range(many)]
        if multiset(names) in possible:
            placed = plan(A30, ",".join(names))
            assert multiset([one.profile.name for one in placed]) == multiset(names)
            assert set(placed) in [set(cut) for cut in all_cuts("a30")]
        else:
            instead = plan(A30, nearest(refusal(A30, ",".join(names))))
            assert multiset([one.profile.name for one in instead]) in possible
        tried[multiset(names) in possible] += 1
    assert tried[True] == len(possible) - 1  # all but nothing at all
    assert tried[False] > 100


BOARD_NAMES = st.sampled_from(list(BOARDS))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A board and some of its profiles, mostly few enough to fit."""
    name = draw(BOARD_NAMES)
    names = [profile.name for profile in BOARDS[name].profiles]
    return name, draw(st.lists(st.sampled_from(names), min_size=1, max_size=8))


@given(layouts())
def test_a_layout_is_found_exactly_if_it_is_legal(wanted: tuple[str, list[str]]) -> None:
    name, names = wanted
    offer = offer_of(name)
    if multiset(names) not in legal(name):
        instead = plan(offer, nearest(refusal(offer, ",".join(names))))
        assert multiset([one.profile.name for one in instead]) in legal(name)
    else:
        placed = plan(offer, ",".join(names))
        assert multiset([one.profile.name for one in placed]) == multiset(names)
        assert set(placed) in [set(cut) for cut in all_cuts(name)]
        assert plan(offer, ",".join(reversed(names))) == placed
        assert plan(offer, written(one.profile for one in placed)) == placed
        assert plan(offer, written_with_places(placed)) == placed


@given(data=st.data(), name=BOARD_NAMES)
def test_whatever_places_are_asked_for_of_a_legal_cut_are_given(data: st.DataObject, name: str) -> None:
    cut = data.draw(st.sampled_from([cut for cut in all_cuts(name) if cut]))
    fixed = data.draw(st.sets(st.sampled_from(cut)))
    order = data.draw(st.permutations(cut))
    items = tuple(Wanted(one.profile.name, start=one.start if one in fixed else None) for one in order)
    placed = plan_layout(offer_of(name), WantedLayout("", items))
    assert fixed <= set(placed)
    assert multiset([one.profile.name for one in placed]) == multiset([one.profile.name for one in cut])
    assert set(placed) in [set(other) for other in all_cuts(name)]


@given(data=st.data(), name=BOARD_NAMES)
def test_places_that_no_legal_cut_has_together_are_refused(data: st.DataObject, name: str) -> None:
    board = BOARDS[name]
    places = [PlacedSlice(profile, start) for profile in board.profiles for start in profile.starts]
    chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4))
    text = written_with_places(chosen)
    if len(set(chosen)) == len(chosen) and set(chosen) in [set(cut) for cut in all_cuts(name)]:
        assert set(plan(offer_of(name), text)) == set(chosen)
    else:
        instead = plan(offer_of(name), nearest(refusal(offer_of(name), text)))
        assert set(instead) in [set(cut) for cut in all_cuts(name)]
