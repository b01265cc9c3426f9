from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from heteromig.views.text import (
    crop,
    fit,
    format_cpus,
    format_rate,
    format_short_bytes,
    printable,
    shell_quote,
    short_uuid,
    wrap,
)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hhome", "home"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1;2|device\x1b\\text", "text"),
        ("\x9b31mred", "red"),
        ("\x1b(0lines", "lines"),
        ("a\tb", "a b"),
        ("bell\x07 and back\x08space", "bell and backspace"),
        ("pid 7 (\rVALID) is on slice 3\r\n", "pid 7 ( VALID) is on slice 3"),
        ("pid 7 (\x1b]0;x) is on slice 3", "pid 7 (0;x) is on slice 3"),
        ("pid 7 (\x9dx) is on slice 3", "pid 7 (x) is on slice 3"),
        ("two\nlines", "two lines"),
        ("[red]markup[/red]", "[red]markup[/red]"),
        ("left\u202eright", "leftright"),
        ("zero\u200bwidth", "zerowidth"),
        ("\ud800lone", "lone"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ("", ""),
    ],
)
def test_text_from_elsewhere_is_made_harmless(raw: str, shown: str) -> None:
    assert printable(raw) == shown


@given(st.text(st.one_of(st.characters(), st.sampled_from("\x1b[]\x9b\x07\\;m31\r\n\t")), max_size=60))
def test_nothing_that_a_terminal_interprets_is_left(raw: str) -> None:
    assert printable(raw).isprintable()


def test_a_line_of_megabytes_is_cut() -> None:
    assert len(printable("x" * 5_000_000)) == 1000


@given(st.text(st.characters(exclude_categories=("C", "Z", "M")), max_size=40), st.integers(0, 50), st.booleans())
def test_fit_has_exactly_the_width_in_cells(text: str, width: int, right: bool) -> None:  # noqa: FBT001 - generated
    assert cell_len(fit(text, width, right=right)) == width


def test_crop_says_that_something_is_missing() -> None:
    assert crop("abcdef", 6) == "abcdef"
    assert crop("abcdef", 5) == "abcd…"
    assert crop("日本語", 5) == "日本…"
    assert crop("日本語", 4) == "日…"


def test_wrap_keeps_to_lines_and_width() -> None:
    assert wrap("one two three four", 9, lines=2) == ["one two", "three fo…"]
    assert wrap("one two", 9, lines=2) == ["one two"]


@pytest.mark.parametrize(
    ("uuid", "short"),
    [
        ("MIG-1a2b3c4d-aaaa-bbbb-cccc-dddddddddddd", "1a2b3c4d"),
        ("GPU-5c89852c-d268", "5c89852c"),
        ("MIG-GPU-5c89852c-d268/7/0", "5c89852c"),
        ("SIM-MIG-c1cca85d-ee35", "c1cca85d"),
        ("SIM-GPU-af3b180e-b26e", "af3b180e"),
        ("short", "short"),
    ],
)
def test_short_uuid_leaves_out_what_all_share(uuid: str, short: str) -> None:
    assert short_uuid(uuid) == short


@pytest.mark.parametrize(
    ("cpus", "text"), [((), "any"), ((3,), "3"), ((0, 1, 2), "0-2"), ((5, 0, 1, 9, 8), "0-1,5,8-9"), ((1, 1), "1")]
)
def test_cpus_are_written_as_ranges(cpus: tuple[int, ...], text: str) -> None:
    assert format_cpus(cpus) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0.0"), (12.34, "12.3"), (1234.5, "1234"), (999_999.0, "999999"), (2_345_678.0, "2.35M")]
)
def test_rates_fit_into_seven_characters(rate: float, text: str) -> None:
    assert format_rate(rate) == text


def test_quoted_words_come_back_from_a_shell_unchanged() -> None:
    words = ["plain", "two words", "it's", "a\nb\x1b[31m\\'", "$HOME", "", "é\u202e"]
    line = "printf '%s\\0' " + " ".join(map(shell_quote, words))
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_shares_of_one_gpu_are_told_apart() -> None:
    uuid = "MPS-GPU-2f43bbff-e640-45b4-936d-bfd496c72a8f/{}"
    assert [short_uuid(uuid.format(number)) for number in (0, 11)] == ["2f43bbff/0", "2f43bbff/11"]
    assert short_uuid("MIG-GPU-2f43bbff-e640-45b4-936d-bfd496c72a8f/3/0") == "2f43bbff"


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [
        (0, "0"),
        (1 << 20, "1M"),
        (999 << 20, "999M"),
        (1000 << 20, "1.0G"),
        (80896 << 20, "79.0G"),
        (99 << 30, "99.0G"),
        (143_360 << 20, "140G"),
    ],
)
def test_memory_in_few_characters(count_bytes: int, text: str) -> None:
    assert format_short_bytes(count_bytes) == text
