"""Names of systems in MLPerf results, and which of them is another's plain MIG system. Pure.

NVIDIA's names, of which v1.0 to v2.0 have systems with busy neighbours, are made of a host, a board, a MIG layout and
what the harness adds: `DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb_TRT_HeteroMultiUse` is measured beside neighbours, and
`DGX-A100_A100-SXM-80GB-MIG_1x1g.10gb_TRT` alone; `A30-MIG_1x1g.6gb_TRT` has no host. `_MaxQ` stands before or after
`_HeteroMultiUse` (v1.x and v2.x of closed/NVIDIA/code/common differ), and `_TRT` may carry a version.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from msgspec import Struct

HETERO = "HeteroMultiUse"
"""The word that NVIDIA's harness adds to the name of a system with busy neighbours."""

_LAYOUT = re.compile(r"-MIG_(?P<layout>\d+x\d+g\.\d+gb(?:\+[a-z0-9.]+)*)(?=_|$)", re.IGNORECASE)
_COUNT = re.compile(r"x\d+$")
_VERSIONED = re.compile(r"(trt)[\d.]+", re.IGNORECASE)
_ADDED = frozenset({"trt", "triton", "heteromultiuse", "maxq"})
_ONE_SMALLEST_SLICE = re.compile(r"1x1g\.\d+gb")


class SystemName(Struct, frozen=True):
    """The parts of a name, in lower case; `layout` is None where the name says nothing of MIG.

    `host` is empty where there is none, and `added` what follows the board without `HeteroMultiUse` and TensorRT's
    version. `hetero`: it says that the neighbours were busy.
    """

    host: str
    board: str
    layout: str | None
    added: frozenset[str]
    hetero: bool


class Match(Struct, frozen=True):
    """The plain system of another, and by what it was recognised; without one, `how` says why not."""

    baseline: str | None
    how: str


def parse_name(name: str) -> SystemName:
    """The parts of `name`. Every text is a name: what is not understood is part of the board."""
    found = _LAYOUT.search(name)
    if found is not None:
        front, behind = name[: found.start()], name[found.end() :].split("_")
    else:
        words = name.split("_")
        end = next((index for index, word in enumerate(words) if index and _added(word) in _ADDED), len(words))
        front, behind = "_".join(words[:end]), words[end:]
    host, _, board = front.rpartition("_")
    added = frozenset(_added(word) for word in behind if word)
    return SystemName(
        host=host.lower(),
        board=_COUNT.sub("", board.lower()),
        layout=found["layout"].lower() if found is not None else None,
        added=added - {HETERO.lower()},
        hetero=is_hetero(name),
    )


def is_hetero(name: str) -> bool:
    """Whether `name` says that the neighbours were busy."""
    return HETERO in name.split("_")[1:]


def plain_name(name: str) -> str:
    """`name` without what says that the neighbours were busy."""
    first, *rest = name.split("_")
    return "_".join([first, *(word for word in rest if word != HETERO)])


def find_baseline(system: str, names: Collection[str]) -> Match:
    """The plain MIG system of `system` among `names`, by the first rule that finds any.

    A rule that finds several decides nothing: which of them is the same machine is then for the user to say.
    """
    own = parse_name(system)
    others = {name: parse_name(name) for name in names if name != system and not is_hetero(name)}
    if own.layout is not None and plain_name(system) in others:
        return Match(plain_name(system), "same name")
    alike = {name: other for name, other in others.items() if (other.board, other.added) == (own.board, own.added)}
    if own.layout is None:
        alike = {name: other for name, other in alike.items() if _ONE_SMALLEST_SLICE.fullmatch(other.layout or "")}
        how = "same board, one smallest slice"
    else:
        alike = {name: other for name, other in alike.items() if other.layout == own.layout}
        how = "same board and profile"
    here = [name for name, other in alike.items() if other.host == own.host]
    if alike:
        return _only(here or alike, how if here else f"{how}, other host")
    if plain_name(system) in others:
        return Match(plain_name(system), "same name, which does not say MIG")
    return Match(None, f"no plain system: none has the {how}")


def _only(names: Iterable[str], how: str) -> Match:
    first, *rest = sorted(names)
    if rest:
        return Match(None, f"several would do: {', '.join([first, *rest])}; name one with --baseline")
    return Match(first, how)


def _added(word: str) -> str:
    return _VERSIONED.sub(r"\1", word).lower()
