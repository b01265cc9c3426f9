"""Quantities, read from people and written for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.errors import UsageError
from heteromig.core.units import format_bytes, format_duration_s, parse_duration_ms
from tests.core.histories import examples


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("600000", 600_000),
        (600_000, 600_000),
        ("600000ms", 600_000),
        ("600s", 600_000),
        ("10m", 600_000),
        ("1h", 3_600_000),
        ("1.5s", 1_500),
        (" 2 m ", 120_000),
        ("0", 0),
    ],
)
def test_a_duration_is_milliseconds_or_has_a_unit(text: str | int, expected_ms: int) -> None:
    assert parse_duration_ms(text) == expected_ms


@pytest.mark.parametrize("text", ["", "s", "-5", "1d", "10 minutes", "1e3", "1.s", "1,5s", "5s 3m", -1])
def test_what_is_no_duration_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(UsageError, match=r"is not a duration: write milliseconds \(600000\)"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (2.14, "2.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00 min"),
        (60, "1:00 min"),
        (65.4, "1:05 min"),
        (3599.4, "59:59 min"),
        (3599.6, "1:00:00 h"),
        (3725, "1:02:05 h"),
        (90_000, "25:00:00 h"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration_s(seconds) == text


@given(st.floats(0, 1e6))
@examples(200)
def test_a_duration_never_shows_sixty_of_anything(seconds: float) -> None:
    text = format_duration_s(seconds).split()[0]
    assert all(float(part) < 60 for part in text.split(":")[1:])
    assert ":" in text or float(text) < 60


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 1024**2, "5.0 MiB"),
        (10_200_547_328, "9.5 GiB"),
        (2048 * 1024**3, "2048.0 GiB"),
    ],
)
def test_bytes_are_written_in_binary_multiples(count_bytes: int, text: str) -> None:
    assert format_bytes(count_bytes) == text
