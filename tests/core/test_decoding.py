from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from heteromig.core.decoding import decode, may_have_long_numbers, require_short_numbers

LONGEST = 10**19 - 1

VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-LONGEST, LONGEST) | st.floats(-1e18, 1e18),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Stamped(Struct):
    at_ns: int


def _somewhere(number: int, values: list[object]) -> bytes:
    return msgspec.json.encode({"values": values, "deep": [{"at": [number]}]})


@given(VALUES)
def test_all_that_clocks_and_counters_show_is_read(value: object) -> None:
    require_short_numbers(msgspec.json.encode(value))


@given(st.integers(1, 10**300), st.booleans(), st.lists(VALUES, max_size=3))
def test_a_longer_number_is_refused_wherever_it_is(more: int, negative: bool, values: list[object]) -> None:  # noqa: FBT001
    number = -(LONGEST + more) if negative else LONGEST + more
    raw = _somewhere(0, values).replace(b"[0]", str(number).encode().join((b"[", b"]")))
    with pytest.raises(msgspec.ValidationError, match="more than 19 digits"):
        require_short_numbers(raw)


def test_a_text_may_have_as_many_digits_as_it_likes() -> None:
    raw = msgspec.json.encode({"argv": ["--key=1,12345678901234567890123"]})
    assert may_have_long_numbers(raw)
    require_short_numbers(raw)


def test_what_is_read_is_of_the_type_that_was_asked_for() -> None:
    assert decode(b'{"at_ns":12}', Stamped) == Stamped(12)
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"at_ns":"12"}', Stamped)
    with pytest.raises(msgspec.ValidationError, match="more than 19 digits"):
        decode(b'{"at_ns":1' + b"0" * 400 + b"}", Stamped)
