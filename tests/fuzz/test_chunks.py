"""However a file grows, what is read of it while it does is what is read of it at once."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from heteromig.core.events import AnyEvent
from heteromig.logs.harness import MLPERF_LINES, HarnessLog
from heteromig.logs.loadgen import DETAIL_LOG, DetailLog
from heteromig.logs.tail import Tail
from tests.fuzz.damage import damaged, worded
from tests.fuzz.parsers import BY_NAME
from tests.fuzz.trying import EXAMPLES, TRIED, no_hang, trying
from tests.logs.recorded import ALL

_OUTPUT = BY_NAME["harness output"].words
_SAID = b"Starting running actual test.\nheartbeat: completed=5 samples_per_second=1.5\nFinished running actual test.\n"
_CUTS = st.lists(st.floats(0, 1), max_size=6)


def _blocks(data: bytes, cuts: list[float], path: Path) -> list[bytes]:
    """What a tail gives while the file grows to `data`, at these shares of its length."""
    path.write_bytes(b"")
    tail = Tail(path)
    blocks = []
    try:
        for end in sorted(round(cut * len(data)) for cut in cuts):
            with path.open("r+b") as file:
                file.write(data[:end])
            blocks.append(tail.read())
        with path.open("r+b") as file:
            file.write(data)
        while block := tail.read(at_end=True):
            blocks.append(block)
    finally:
        tail.close()
    return blocks


def _edges(blocks: list[bytes]) -> list[type[AnyEvent]]:
    log = DetailLog(0)
    return [type(event) for block in blocks for event in log.feed(block, 0)]


def _last_of_each(blocks: list[bytes]) -> set[AnyEvent]:
    """Of each kind of line the last one counts, in whichever block it was."""
    found = set()
    for line in MLPERF_LINES:
        log = HarnessLog(0, (line,))
        found.update([event for block in blocks for event in log.feed(block, 0)][-1:])
    return found


def test_a_growing_detail_log_has_the_edges_of_the_whole(tmp_path: Path) -> None:
    @trying(EXAMPLES)
    @given(damaged([one.detail.read_bytes() for one in ALL]), _CUTS)
    def holds(data: bytes, cuts: list[float]) -> None:
        TRIED["growing, detail log"] += 1
        with no_hang():
            assert _edges(_blocks(data, cuts, tmp_path / DETAIL_LOG)) == _edges(_blocks(data, [], tmp_path / "whole"))

    holds()


def test_growing_output_ends_with_what_the_whole_says(tmp_path: Path) -> None:
    @trying(EXAMPLES)
    @example(_SAID.replace(b"running", b"rUnning", 1), [0.5])  # a block that has the words for another reason
    @given(damaged([_SAID]) | worded(_OUTPUT), _CUTS)
    def holds(data: bytes, cuts: list[float]) -> None:
        TRIED["growing, output"] += 1
        with no_hang():
            grown, whole = _blocks(data, cuts, tmp_path / "grown"), _blocks(data, [], tmp_path / "whole")
            assert b"".join(grown) == b"".join(whole)
            assert _last_of_each(grown) == _last_of_each(whole)

    holds()
