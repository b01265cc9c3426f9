from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.large import KINDS, UNREADABLE, try_it
from tests.fuzz.parsers import PARSERS, Parser

SIZE_BYTES = 4 << 20
"""`python -m tests.fuzz.large`, which is part of `make fuzz`, gives them 100 MB."""
TIMES_MAX = 40
"""Decoded, a journal takes some ten times its size."""


@pytest.mark.parametrize("parser", [one for one in PARSERS if one.name not in UNREADABLE], ids=lambda one: one.name)
def test_large_input_takes_memory_in_proportion(parser: Parser, recorded: Path) -> None:
    for kind in KINDS:
        found = try_it(parser, recorded, kind, SIZE_BYTES)
        assert found.fine, found.answer
        assert found.peak_bytes < TIMES_MAX * SIZE_BYTES
