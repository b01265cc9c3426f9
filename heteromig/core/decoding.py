"""JSON from the disk, with whole numbers no longer than those of clocks and counters.

Python's integers have no end, but to divide one of 400 digits, or to ask for its date, is an error which
no reader expects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

_LIMIT = 10**19
"""Nanoseconds of 317 years, and more than fits into the 63 bits that counters have."""
_LONG = re.compile(rb"\d{20}")

Kind = TypeVar("Kind")


def decode(raw: bytes, kind: type[Kind]) -> Kind:
    """What `raw` says.

    Raises:
        msgspec.DecodeError: it is no JSON, is no `kind`, or has a number of more than 19 digits.
        UnicodeDecodeError, RecursionError: as msgspec does.
    """
    require_short_numbers(raw)
    return msgspec.json.decode(raw, type=kind)


def may_have_long_numbers(raw: bytes) -> bool:
    """Quick, and True as well where such digits are in a string."""
    return _LONG.search(raw) is not None


def require_short_numbers(raw: bytes) -> None:
    """Check one JSON value.

    Raises:
        msgspec.DecodeError: it is none, or has a number of more than 19 digits.
        UnicodeDecodeError, RecursionError: as msgspec does.
    """
    if may_have_long_numbers(raw) and any(not -_LIMIT < number < _LIMIT for number in _numbers(raw)):
        raise msgspec.ValidationError("a number in it has more than 19 digits")


def _numbers(raw: bytes) -> Iterator[float]:
    left: list[object] = [msgspec.json.decode(raw)]
    while left:
        match left.pop():
            case bool():
                pass
            case int() | float() as number:
                yield number
            case list() as items:
                left.extend(items)
            case dict() as fields:
                left.extend(fields.values())
