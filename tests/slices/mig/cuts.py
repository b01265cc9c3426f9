"""Every legal way to cut a board, found by trying everything; the planner is checked against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

from heteromig.slices.boards import BOARDS, Board
from heteromig.slices.mig.planning import Offer, PlacedSlice

Multiset = frozenset[tuple[str, int]]


def offer_of(name: str) -> Offer:
    return Offer(name, BOARDS[name].profiles)


def multiset(names: list[str]) -> Multiset:
    return frozenset(Counter(names).items())


@cache
def all_cuts(name: str) -> tuple[tuple[PlacedSlice, ...], ...]:
    """Each set of instances that can be on the board together, the empty one included."""
    board = BOARDS[name]
    places = [PlacedSlice(profile, start) for profile in board.profiles for start in profile.starts]
    return tuple(_cuts(board, places, (), frozenset()))


def _cuts(
    board: Board, places: list[PlacedSlice], chosen: tuple[PlacedSlice, ...], taken: frozenset[int]
) -> Iterator[tuple[PlacedSlice, ...]]:
    yield chosen
    for index, one in enumerate(places):
        cells = frozenset(range(one.start, one.start + one.profile.size))
        if cells & taken:
            continue
        longer = (*chosen, one)
        if not _has_engines(board, longer):
            continue
        if sum(other.profile == one.profile for other in longer) > one.profile.max_instances:
            continue
        yield from _cuts(board, places[index + 1 :], longer, taken | cells)


def _has_engines(board: Board, chosen: tuple[PlacedSlice, ...]) -> bool:
    whole = max(board.profiles, key=lambda profile: profile.size)
    return all(
        sum(one.profile.engines[kind] for one in chosen) <= whole.engines[kind] for kind in range(len(whole.engines))
    )
