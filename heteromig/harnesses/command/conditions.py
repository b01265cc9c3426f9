"""`valid-when`: what has to be true of the figures that a program prints for its result to be VALID."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any

from msgspec import Struct

from heteromig.core.errors import UsageError
from heteromig.logs.tail import displayable

_CONDITION = re.compile(r"(?P<group>[A-Za-z_]\w*)\s*(?P<relation><=|>=|==|!=|<|>)\s*(?P<value>.*)", re.DOTALL)
_QUOTED = re.compile(r"(?P<quote>[\"'])(?P<text>.*)(?P=quote)", re.DOTALL)

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)
"""What counts as a number: nothing with separators of thousands or units, which would be read wrongly by somebody."""

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EQUALITY: dict[str, Callable[[Any, Any], bool]] = {"==": operator.eq, "!=": operator.ne}


class Condition(Struct, frozen=True):
    """`group relation value`. Numbers are compared as numbers, exactly; `==` and `!=` compare other text as text."""

    group: str
    relation: str
    value: str

    def __str__(self) -> str:
        return f"{self.group} {self.relation} {self.value}"

    def complaint(self, found: Mapping[str, str | None]) -> str | None:
        """Why it does not hold for the groups that were `found`; None where it does."""
        text = found.get(self.group)
        if text is None:
            return f"{self.group} is not in its result, and {self} was asked for"
        said = displayable(text.encode())
        left, right = number(text), number(self.value)
        if left is not None and right is not None:
            holds = (_ORDER | _EQUALITY)[self.relation](left, right)
            return None if holds else f"{self.group} is {said}, and {self} was asked for"
        if self.relation in _ORDER:
            return f"{self.group} is {said!r}, which is no number, and {self} was asked for"
        holds = _EQUALITY[self.relation](text.strip(), self.value)
        return None if holds else f"{self.group} is {said!r}, and {self} was asked for"


def parse_condition(where: str, text: str, groups: AbstractSet[str]) -> Condition:
    """The condition that `text` is, over the named `groups` of the result pattern; `where` says whose it is.

    Raises:
        UsageError: it is none, names another group, or orders what is no number.
    """
    match = _CONDITION.fullmatch(text.strip())
    if match is None or not match["value"]:
        raise UsageError(
            f"{where} holds {text!r}, which is no condition: write a group, one of <, <=, >, >=, ==, != and a value, "
            'as in "p99_ms <= 15".'
        )
    if match["group"] not in groups:
        has = f"its groups are {', '.join(sorted(groups))}" if groups else "it has none, as (?P<p99_ms>[0-9.]+) is one"
        raise UsageError(f"{where} asks for {match['group']!r}, which is no named group of `result`: {has}.")
    quoted = _QUOTED.fullmatch(match["value"])
    condition = Condition(match["group"], match["relation"], quoted["text"] if quoted else match["value"])
    if condition.relation in _ORDER and number(condition.value) is None:
        raise UsageError(
            f"{where} holds {text!r}, and {condition.relation} compares numbers, of which {condition.value!r} is none: "
            "leave units and separators out, or use == or !=."
        )
    return condition


def number(text: str) -> Decimal | None:
    """The number that `text` is; None where it is something else, an infinity among that."""
    stripped = text.strip()
    return Decimal(stripped) if _NUMBER.fullmatch(stripped) else None
