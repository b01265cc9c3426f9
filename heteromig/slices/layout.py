"""How a simulated board is cut: `7x1g.10gb`, or `3g.40gb,2g.20gb,2x1g.10gb`."""

from __future__ import annotations

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.slices.boards import Board
from heteromig.slices.mig.planning import (
    Offer,
    PlacedSlice,
    Wanted,
    WantedLayout,
    parse_wanted,
    plan_layout,
    written,
)

__all__ = ["Layout", "PlacedSlice", "parse_layout"]


class Layout(Struct, frozen=True):
    """A board and all of its GPU instances, in the order of their starts."""

    board: Board
    placed: tuple[PlacedSlice, ...]

    @property
    def text(self) -> str:
        """The layout as `parse_layout` reads it, equal profiles counted together, largest first."""
        return written(placed.profile for placed in self.placed)


def parse_layout(board: Board, text: str) -> Layout:
    """Place what the text asks for on legal starts. An empty text means as many slices as the board has.

    Raises:
        UsageError: the text is malformed, names no profile of the board, or does not fit.
    """
    offer = Offer(board.name, board.profiles)
    most = board.default_profile
    wanted = parse_wanted(text, offer) if text else WantedLayout("", (Wanted(most.name, most.max_instances),))
    if any(item.start is not None for item in wanted.items):
        raise UsageError(
            f"The layout {text!r} of a simulated board names places, which are chosen here: leave out the @, and cut "
            "it with heteromig mig apply where the places matter."
        )
    return Layout(board=board, placed=plan_layout(offer, wanted))
