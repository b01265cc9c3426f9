"""Where to run: the value of `--slices`."""

from __future__ import annotations

import difflib
import re
from itertools import groupby

from msgspec import Struct

from heteromig.core.devices import SliceKind
from heteromig.core.errors import UsageError
from heteromig.slices.boards import BOARDS, Board
from heteromig.slices.layout import Layout, parse_layout

_MPS = re.compile(
    r"mps:(?P<shares>[0-9]{1,4})x(?P<percent>[0-9]{1,4})(?:,(?P<memory>[0-9]{1,7})(?P<unit>[gm])ib)?", re.IGNORECASE
)
_MPS_CLIENTS_MAX = 48  # CUDA MPS documentation: 48 clients a GPU on Volta and later
_PERCENT_MAX = 100
_UNIT_BYTES = {"m": 1 << 20, "g": 1 << 30}

_GPUS = re.compile(r"(?:(?P<count>[0-9]{1,6})x)?(?P<board>.*)", re.DOTALL)
_GPUS_MAX = 16  # the most that a host with MIG is known to have: Google Cloud's a2-megagpu-16g, 16 times an A100

EXAMPLE_SIMULATOR = "--slices sim:a100-sxm-80gb"
"""What messages suggest to somebody without a GPU."""


class SliceSource(Struct, frozen=True):
    """What `--slices` says, validated.

    `layouts`, one a GPU in the order of their indices, are there exactly for simulated sources. `mps_shares` and
    `mps_percent`, the number of shares of one GPU and the active-thread percentage of each, exactly for MPS;
    `mps_memory_bytes` is how much of its memory each may take, whole MiB, None for as much as there is. `str()` of it
    is text that `parse_slices` reads again.
    """

    kind: SliceKind
    layouts: tuple[Layout, ...] = ()
    mps_shares: int | None = None
    mps_percent: int | None = None
    mps_memory_bytes: int | None = None

    @property
    def simulated(self) -> bool:
        """Whether no GPU is involved."""
        return self.kind is SliceKind.SIM

    def __str__(self) -> str:
        if self.layouts:
            alike = ((layout, sum(1 for _ in gpus)) for layout, gpus in groupby(self.layouts))
            return "sim:" + ";".join(_written(layout, count) for layout, count in alike)
        if self.kind is SliceKind.MPS:
            return f"mps:{self.mps_shares}x{self.mps_percent}{_memory(self.mps_memory_bytes)}"
        return str(self.kind.value)


def parse_slices(text: str) -> SliceSource:
    """Read `mig`, `gpu`, `mps:<shares>x<percent>[,<memory>]` or `sim:[<n>x]<board>[/<layout>][;...]`.

    The last is a host of one GPU, of `n` alike, or of several different ones with semicolons between them, at most 16
    in all: `sim:a30`, `sim:2xa100-sxm-80gb/7x1g.10gb`, `sim:a100-sxm-80gb/3g.40gb,4x1g.10gb;2xa30`.

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
        "GPU; mps:7x14,8gib with 8 GiB each) or sim:<board> (no GPU needed; boards: "
        f"{', '.join(BOARDS)}; several: sim:2xa30)."
    )


def _simulated(text: str) -> SliceSource:
    layouts: list[Layout] = []
    for part in text.split(";"):
        gpus, _, layout = part.strip().partition("/")
        count, board = _gpus(gpus, text)
        if not 1 <= count <= _GPUS_MAX - len(layouts):
            raise UsageError(
                f"--slices sim:{text}: a simulated host has at most {_GPUS_MAX} GPUs, and {gpus!r} asks for {count} "
                f"beside {len(layouts)} others: write counts from 1 that add up to {_GPUS_MAX} or less, such as "
                f"2x{board.name}."
            )
        layouts += [parse_layout(board, layout.strip())] * count
    return SliceSource(kind=SliceKind.SIM, layouts=tuple(layouts))


def _gpus(text: str, host: str) -> tuple[int, Board]:
    """How many GPUs of which board; `host` is all that was said of them."""
    match = _GPUS.fullmatch(text)
    assert match is not None  # noqa: S101 - both parts may be anything
    name = match["board"]
    board = BOARDS.get(name)
    if board is None:
        nearest = difflib.get_close_matches(name.lower(), BOARDS, n=1, cutoff=0)[0]
        each = " Write every GPU with its board, such as a30/2x2g.12gb;2xa30." if ";" in host else ""
        raise UsageError(
            f"--slices sim:{host}: there is no simulated board {name!r}; did you mean {nearest}? "
            f"All of them: {', '.join(BOARDS)}.{each}"
        )
    return int(match["count"] or 1), board


def _written(layout: Layout, count: int) -> str:
    alike = "" if count == 1 else f"{count}x"
    return f"{alike}{layout.board.name}/{layout.text}"


def _mps(text: str) -> SliceSource:
    match = _MPS.fullmatch(text)
    shares, percent = (int(match["shares"]), int(match["percent"])) if match else (0, 0)
    memory_bytes = int(match["memory"]) * _UNIT_BYTES[match["unit"].lower()] if match and match["memory"] else None
    if not (1 <= shares <= _MPS_CLIENTS_MAX and 1 <= percent <= _PERCENT_MAX) or memory_bytes == 0:
        raise UsageError(
            f"--slices {text}: write mps:<shares>x<percent>, such as mps:7x14, with 1 to {_MPS_CLIENTS_MAX} shares of "
            f"1 to {_PERCENT_MAX} % each, and if each is to have only so much memory, that after a comma, in gib or "
            "mib: mps:7x14,8gib."
        )
    return SliceSource(kind=SliceKind.MPS, mps_shares=shares, mps_percent=percent, mps_memory_bytes=memory_bytes)


def _memory(limit_bytes: int | None) -> str:
    if limit_bytes is None:
        return ""
    whole, rest = divmod(limit_bytes, _UNIT_BYTES["g"])
    return f",{limit_bytes // _UNIT_BYTES['m']}mib" if rest else f",{whole}gib"
