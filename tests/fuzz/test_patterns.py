"""Regular expressions meet lines that they nearly match: none may take more than time in proportion to their length.

A quadratic one is found as well: at 64 KiB, the longest line that is searched, it takes far longer than `HANG_S`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

import heteromig
from heteromig.logs.harness import MLPERF_LINES
from heteromig.logs.tail import MAX_LINE_BYTES
from tests.fuzz.trying import EXAMPLES, TRIED, no_hang, trying

_OUR_OWN_TEXT = frozenset({"heteromig.cli.command"})
"""These expressions see nothing but the help texts of options."""


class Expression(Struct, frozen=True):
    """An expression of the package; `searches` unless it is only compared with a whole text or its beginning."""

    pattern: re.Pattern[Any]
    searches: bool = True


def _modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(heteromig.__path__, "heteromig."):
        if not found.name.endswith("__main__") and ".torch_" not in found.name and found.name not in _OUR_OWN_TEXT:
            yield importlib.import_module(found.name)


def _expressions() -> dict[str, Expression]:
    """Every one that a module of the package holds under a name of its own."""
    found = {f"marker {number}": Expression(line.regex) for number, line in enumerate(MLPERF_LINES)}
    for module in _modules():
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            for number, one in enumerate(value if isinstance(value, tuple) else (value,)):
                if isinstance(one, re.Pattern) and f"{name} = " in source:
                    anchored = re.search(rf"\b{name}\.(fullmatch|match)\(", source) is not None
                    found[f"{module.__name__}.{name}.{number}"] = Expression(one, not anchored)
    return found


EXPRESSIONS = _expressions()
_PUMPS = (" ", "\t", "\n", "0", "a", "\x1b[", ".", ":")
_ENDS = ("", "\n!", "x", "!")


@st.composite
def _pumped(draw: st.DrawFn, pattern: re.Pattern[Any]) -> str | bytes:
    """What it matches, with a piece of that, or white space, repeated up to the longest line, and perhaps a bad end."""
    sample: Any = draw(st.from_regex(pattern))
    start = draw(st.integers(0, len(sample)))
    piece = sample[start : start + draw(st.integers(1, 3))]
    pump: Any = draw(st.sampled_from(_PUMPS))
    end: Any = draw(st.sampled_from(_ENDS))
    if isinstance(sample, bytes):
        pump, end = pump.encode(), end.encode()
    if piece and draw(st.booleans()):
        pump = piece
    rest = sample[start:] if draw(st.booleans()) else end
    text: str | bytes = sample[:start] + pump * (MAX_LINE_BYTES // len(pump)) + rest + end
    return text


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_no_expression_runs_away(name: str) -> None:
    expression = EXPRESSIONS[name]

    @trying(max(10, EXAMPLES // 4))
    @given(_pumped(expression.pattern))
    def holds(text: str | bytes) -> None:
        TRIED["regular expressions"] += 1
        with no_hang():
            expression.pattern.fullmatch(text)
            if expression.searches:
                for _ in expression.pattern.finditer(text):
                    pass

    holds()


def test_all_expressions_are_there() -> None:
    assert len(EXPRESSIONS) > 40
