"""Where each GPU instance of a wanted layout goes, or why it cannot be: arithmetic, without any device.

A GPU has memory slices in a row (eight on most boards), and each profile may begin at some of them. Instances must not
overlap, there are only so many of each profile, and the media engines are shared out among them. Everything that is
known of the GPU comes in as an `Offer`; on a real one that is what its driver says.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.slices.boards import Engines, Profile

_ITEM = re.compile(
    r"(?:(?P<count>[1-9][0-9]{0,5})x)?"
    r"(?P<profile>[0-9]+g\.[0-9]+gb(?:[+-][a-z]+(?:\.[a-z]+)*)?|[0-9]{1,4})"
    r"(?:@(?P<start>[0-9]{1,3}))?"
)
_PART_OF_INSTANCE = re.compile(r"(?:[0-9]+x)?[0-9]+c\.(?P<whole>[0-9]+g\..+)")


class PlacedSlice(Struct, frozen=True):
    """One GPU instance. `start` is its first memory slice."""

    profile: Profile
    start: int


class Offer(Struct, frozen=True):
    """How a GPU may be cut. `board` is what to call it in a sentence."""

    board: str
    profiles: tuple[Profile, ...]

    @property
    def engines(self) -> Engines:
        """As many of each engine as the GPU is sure to have: those of all instances of one profile."""
        each = [[count * profile.max_instances for count in profile.engines] for profile in self.profiles]
        return Engines(*(max(counts) for counts in zip(*each, strict=True)))

    def profile(self, name: str) -> Profile | None:
        """The profile of that name, or of that id."""
        return next((one for one in self.profiles if name in {one.name, str(one.profile_id)}), None)

    @property
    def example(self) -> str:
        """A layout that can be had."""
        most = max(self.profiles, key=lambda profile: profile.max_instances)
        return f"{most.max_instances}x{most.name}"


class Wanted(Struct, frozen=True):
    """`count` GPU instances of a profile; `start` is where it must begin, None where any place will do."""

    profile: str
    count: int = 1
    start: int | None = None


class WantedLayout(Struct, frozen=True):
    """What somebody asks for. `text` is how they said it, for sentences."""

    text: str
    items: tuple[Wanted, ...]


class _Piece(Struct, frozen=True):
    profile: Profile
    start: int | None


def parse_wanted(text: str, offer: Offer) -> WantedLayout:
    """Read `7x1g.10gb`, `3g.40gb,2g.20gb,2x1g.10gb` or, with the memory slice to begin at, `3g.40gb@4,4x1g.10gb`.

    A profile may be named by its id as well (`7x19`). `offer` is for the names in messages.

    Raises:
        UsageError: it is no such text.
    """
    return WantedLayout(text, tuple(_item(part.strip(), text, offer) for part in text.split(",")))


def _item(item: str, text: str, offer: Offer) -> Wanted:
    match = _ITEM.fullmatch(item)
    if match is not None:
        start = None if match["start"] is None else int(match["start"])
        return Wanted(match["profile"], int(match["count"] or 1), start)
    part = _PART_OF_INSTANCE.fullmatch(item)
    if part is not None:
        raise UsageError(
            f"{item!r} in the layout {text!r} is a part of a GPU instance, whose parts share memory and engines: every "
            f"slice is a whole GPU instance here, such as {part['whole']}."
        )
    raise UsageError(_unknown(item, item.rpartition("x")[2], text, "is not how to cut", offer))


def _unknown(item: str, name: str, text: str, fault: str, offer: Offer) -> str:
    names = [profile.name for profile in offer.profiles]
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
    return (
        f"{item!r} in the layout {text!r} {fault} {offer.board}: write profiles with counts, such as {offer.example}; "
        f"the nearest profile is {nearest}, and all are {', '.join(names)}."
    )


def plan_layout(offer: Offer, wanted: WantedLayout) -> tuple[PlacedSlice, ...]:
    """A place for everything that is wanted, in the order of the places; always the same one.

    Places are searched largest first, as MIG itself wants its instances made, until everything fits or nothing can.

    Raises:
        UsageError: it does not fit, for the reason given; names the nearest layout that does.
    """
    pieces = _pieces(offer, wanted)
    starts = _starts(offer, pieces)
    if starts is None:
        raise UsageError(f"{_misfit(offer, wanted, pieces)} {_advice(offer, pieces)}")
    placed = [PlacedSlice(piece.profile, start) for piece, start in zip(pieces, starts, strict=True)]
    return tuple(sorted(placed, key=lambda one: one.start))


def written(profiles: Iterable[Profile]) -> str:
    """The layout as `parse_wanted` reads it, equal profiles counted together, largest first."""
    return _counted(profile.name for profile in sorted(profiles, key=_size))


def written_with_places(placed: Iterable[PlacedSlice]) -> str:
    """The same with the place of each, in the order of the places."""
    return ",".join(f"{one.profile.name}@{one.start}" for one in placed)


def _counted(names: Iterable[str]) -> str:
    return ",".join(name if count == 1 else f"{count}x{name}" for name, count in Counter(names).items())


def _size(profile: Profile) -> tuple[int, int, str]:
    """Sorts the largest to the front."""
    return (-profile.size, -profile.compute_slices, profile.name)


def _pieces(offer: Offer, wanted: WantedLayout) -> list[_Piece]:
    """One for each GPU instance: those with a place of their own first, then largest first."""
    pieces: list[_Piece] = []
    counts: Counter[str] = Counter()
    for item in wanted.items:
        profile = offer.profile(item.profile)
        if profile is None:
            raise UsageError(_unknown(item.profile, item.profile, wanted.text, "is no profile of", offer))
        counts[profile.name] += item.count
        pieces += [_Piece(profile, item.start)] * min(item.count, profile.max_instances + 1)
    pieces.sort(key=lambda piece: (piece.start is None, _size(piece.profile), piece.start or 0))
    for profile in offer.profiles:
        if counts[profile.name] > profile.max_instances:
            raise UsageError(
                f"The layout {wanted.text!r} asks for {counts[profile.name]} times {profile.name}, and {offer.board} "
                f"takes at most {profile.max_instances}: write {profile.max_instances}x{profile.name} or less. "
                f"{_advice(offer, pieces)}"
            )
    return pieces


def _starts(offer: Offer, pieces: Sequence[_Piece]) -> list[int] | None:
    """A start for each piece so that all can be there together, or None."""
    most = {profile.name: profile.max_instances for profile in offer.profiles}
    if any(count > most[name] for name, count in Counter(piece.profile.name for piece in pieces).items()):
        return None
    if not _enough_engines(offer, pieces):
        return None
    return _search(pieces, 0, None)


def _enough_engines(offer: Offer, pieces: Sequence[_Piece]) -> bool:
    needs = zip(*(piece.profile.engines for piece in pieces), strict=True)
    return all(sum(need) <= there for need, there in zip(needs, offer.engines, strict=True))


def _search(pieces: Sequence[_Piece], taken: int, before: PlacedSlice | None) -> list[int] | None:
    """`taken` is a bit mask of memory slices; `before` is where the piece before went, if that could go anywhere."""
    if not pieces:
        return []
    piece, *rest = pieces
    for start in piece.profile.starts:
        if piece.start not in {None, start}:
            continue
        if before is not None and before.profile == piece.profile and start < before.start:
            continue  # equal pieces are in ascending order, or every failure would be tried in all their orders
        mask = ((1 << piece.profile.size) - 1) << start
        if not mask & taken:
            here = PlacedSlice(piece.profile, start) if piece.start is None else None
            others = _search(rest, taken | mask, here)
            if others is not None:
                return [start, *others]
    return None


def _misfit(offer: Offer, wanted: WantedLayout, pieces: Sequence[_Piece]) -> str:
    for piece in pieces:
        if piece.start is not None and piece.start not in piece.profile.starts:
            places = ", ".join(str(start) for start in piece.profile.starts)
            return (
                f"The layout {wanted.text!r} does not fit on {offer.board}: {piece.profile.name} cannot begin at "
                f"memory slice {piece.start}, only at {places}."
            )
    fitting = next(count for count in range(len(pieces) - 1, 0, -1) if _starts(offer, pieces[:count]) is not None)
    left_over = pieces[fitting]
    if _search(pieces[: fitting + 1], 0, None) is not None:
        why = f"leaves no media engines for a further {left_over.profile.name}"
    elif left_over.start is not None:
        why = f"leaves no room for {_name(left_over)}"
    else:
        why = f"leaves no legal place for a further {left_over.profile.name}"
    fits = _counted(_name(piece) for piece in pieces[:fitting])
    return f"The layout {wanted.text!r} does not fit on {offer.board}: {fits} fits, and {why}."


def _name(piece: _Piece) -> str:
    return piece.profile.name if piece.start is None else f"{piece.profile.name}@{piece.start}"


def _advice(offer: Offer, pieces: Sequence[_Piece]) -> str:
    return f"The nearest layout that fits is {_nearest(offer, pieces)}."


def _nearest(offer: Offer, pieces: Sequence[_Piece]) -> str:
    """As much as fits of what was wanted, largest first, and for each of the rest the largest that still does."""
    kept: list[_Piece] = []
    left_over: list[_Piece] = []
    for piece in pieces:
        fits = _starts(offer, [*kept, piece]) is not None
        (kept if fits else left_over).append(piece)
    for piece in left_over:
        no_larger = (one for one in offer.profiles if _size(one)[:2] >= _size(piece.profile)[:2])
        instead = [
            _Piece(profile, None) for profile in sorted(no_larger, key=lambda one: (one != piece.profile, _size(one)))
        ]
        kept += [one for one in instead if _starts(offer, [*kept, one]) is not None][:1]
    return _counted(_name(piece) for piece in sorted(kept, key=lambda piece: _size(piece.profile)))
