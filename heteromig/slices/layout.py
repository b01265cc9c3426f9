"""How a simulated board is cut: `7x1g.10gb`, or `3g.40gb,2g.20gb,2x1g.10gb`."""

from __future__ import annotations

import difflib
import re
from collections import Counter

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.slices.boards import Board, Profile

_ITEM = re.compile(r"(?:(?P<count>[1-9][0-9]{0,5})x)?(?P<profile>[0-9]+g\.[0-9]+gb(?:\+me)?)")


class PlacedSlice(Struct, frozen=True):
    """One GPU instance. `start` is its first memory slice."""

    profile: Profile
    start: int


class Layout(Struct, frozen=True):
    """A board and all of its GPU instances, in the order of their starts."""

    board: Board
    placed: tuple[PlacedSlice, ...]

    @property
    def text(self) -> str:
        """The layout as `parse_layout` reads it, equal profiles counted together, largest first."""
        return _written(_largest_first([placed.profile for placed in self.placed]))


def parse_layout(board: Board, text: str) -> Layout:
    """Place what the text asks for on legal starts.

    Instances are placed largest first, as MIG itself needs it (a `3g` finds no room once small ones are scattered),
    and starts are searched until everything fits or nothing can. An empty text means as many slices as the board has.

    Raises:
        UsageError: the text is malformed, names no profile of the board, or does not fit.
    """
    wanted = _wanted(board, text) if text else [board.default_profile] * board.default_profile.max_instances
    wanted = _largest_first(wanted)
    starts = _place(wanted)
    if starts is None:
        raise UsageError(_misfit(board, text, wanted))
    placed = [PlacedSlice(profile=profile, start=start) for profile, start in zip(wanted, starts, strict=True)]
    return Layout(board=board, placed=tuple(sorted(placed, key=lambda one: one.start)))


def _wanted(board: Board, text: str) -> list[Profile]:
    counts: Counter[str] = Counter()
    names = [profile.name for profile in board.profiles]
    for item in (part.strip() for part in text.split(",")):
        match = _ITEM.fullmatch(item)
        name = match["profile"] if match else item.rpartition("x")[2]
        if board.profile(name) is None or match is None:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
            fault = "is no profile of" if match else "is not how to cut"
            raise UsageError(
                f"{item!r} in the layout {text!r} {fault} {board.name}: write profiles with counts, such as "
                f"{board.max_slices}x{board.default_profile.name}; the nearest profile is {nearest}, "
                f"and all are {', '.join(names)}."
            )
        counts[name] += int(match["count"] or 1)
    wanted: list[Profile] = []
    for profile in board.profiles:
        count = counts[profile.name]
        if count > profile.max_instances:
            raise UsageError(
                f"The layout {text!r} asks for {count} times {profile.name}, and {board.name} takes at most "
                f"{profile.max_instances}: write {profile.max_instances}x{profile.name} or less."
            )
        wanted += [profile] * count
    return wanted


def _largest_first(profiles: list[Profile]) -> list[Profile]:
    return sorted(profiles, key=lambda profile: (-profile.size, -profile.compute_slices, profile.name))


def _place(profiles: list[Profile], taken: int = 0) -> list[int] | None:
    """A start for each profile so that no memory slice is used twice, or None. `taken` is a bit mask of them."""
    if not profiles:
        return []
    profile, *rest = profiles
    for start in profile.starts:
        mask = ((1 << profile.size) - 1) << start
        if not mask & taken:
            others = _place(rest, taken | mask)
            if others is not None:
                return [start, *others]
    return None


def _misfit(board: Board, text: str, wanted: list[Profile]) -> str:
    fitting = next(wanted[:count] for count in range(len(wanted) - 1, 0, -1) if _place(wanted[:count]) is not None)
    return (
        f"The layout {text!r} does not fit on {board.name}: {_written(fitting)} fits, and leaves no legal place for a "
        f"further {wanted[len(fitting)].name}. Ask for less; without a layout the board is cut into "
        f"{board.max_slices}x{board.default_profile.name}."
    )


def _written(profiles: list[Profile]) -> str:
    counts = Counter(profile.name for profile in profiles)
    return ",".join(name if count == 1 else f"{count}x{name}" for name, count in counts.items())
