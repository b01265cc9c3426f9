"""Where to run: the value of `--slices`."""

from __future__ import annotations

import difflib
import re

from msgspec import Struct

from heteromig.core.devices import SliceKind
from heteromig.core.errors import UsageError
from heteromig.slices.boards import BOARDS
from heteromig.slices.layout import Layout, parse_layout

_MPS = re.compile(r"mps:(?P<shares>[0-9]{1,4})x(?P<percent>[0-9]{1,4})")
_MPS_CLIENTS_MAX = 48  # CUDA MPS documentation: 48 clients a GPU on Volta and later
_PERCENT_MAX = 100

EXAMPLE_SIMULATOR = "--slices sim:a100-sxm-80gb"
"""What messages suggest to somebody without a GPU."""


class SliceSource(Struct, frozen=True):
    """What `--slices` says, validated.

    `layout` is there exactly for simulated sources. `mps_shares` and `mps_percent`, the number of shares of one GPU
    and the active-thread percentage of each, exactly for MPS. `str()` of it is text that `parse_slices` reads again.
    """

    kind: SliceKind
    layout: Layout | None = None
    mps_shares: int | None = None
    mps_percent: int | None = None

    @property
    def simulated(self) -> bool:
        """Whether no GPU is involved."""
        return self.kind is SliceKind.SIM

    def __str__(self) -> str:
        if self.layout is not None:
            return f"sim:{self.layout.board.name}/{self.layout.text}"
        if self.kind is SliceKind.MPS:
            return f"mps:{self.mps_shares}x{self.mps_percent}"
        return str(self.kind.value)


def parse_slices(text: str) -> SliceSource:
    """Read `mig`, `gpu`, `mps:<shares>x<percent>` or `sim:<board>[/<layout>]`.

    Raises:
        UsageError: it is none of these, or the board or its layout does not exist.
    """
    text = text.strip()
    if text in ("mig", "gpu"):
        return SliceSource(kind=SliceKind(text))
    head, colon, rest = text.partition(":")
    if head == "sim" and colon:
        return _simulated(rest)
    if head == "mps":
        return _mps(text)
    raise UsageError(
        f"--slices does not know {text!r}: write mig (MIG slices), gpu (whole GPUs), mps:7x14 (7 shares of 14 % of a "
        f"GPU) or sim:<board> (no GPU needed; boards: {', '.join(BOARDS)})."
    )


def _simulated(text: str) -> SliceSource:
    name, _, layout = text.partition("/")
    board = BOARDS.get(name)
    if board is None:
        nearest = difflib.get_close_matches(name.lower(), BOARDS, n=1, cutoff=0)[0]
        raise UsageError(
            f"--slices sim:{text}: there is no simulated board {name!r}; did you mean {nearest}? "
            f"All of them: {', '.join(BOARDS)}."
        )
    return SliceSource(kind=SliceKind.SIM, layout=parse_layout(board, layout.strip()))


def _mps(text: str) -> SliceSource:
    match = _MPS.fullmatch(text)
    shares, percent = (int(match["shares"]), int(match["percent"])) if match else (0, 0)
    if not (1 <= shares <= _MPS_CLIENTS_MAX and 1 <= percent <= _PERCENT_MAX):
        raise UsageError(
            f"--slices {text}: write mps:<shares>x<percent>, such as mps:7x14, with 1 to {_MPS_CLIENTS_MAX} shares of "
            f"1 to {_PERCENT_MAX} % each."
        )
    return SliceSource(kind=SliceKind.MPS, mps_shares=shares, mps_percent=percent)
