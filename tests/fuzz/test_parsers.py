from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from tests.fuzz.damage import damaged, worded
from tests.fuzz.found import FOUND
from tests.fuzz.parsers import BY_NAME, PARSERS, Parser, furnish
from tests.fuzz.trying import EXAMPLES, attempt, trying


@pytest.fixture
def place(tmp_path: Path, recorded: Path) -> Path:
    furnish(tmp_path, recorded)
    return tmp_path


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_damaged_files_are_read_or_refused(parser: Parser, place: Path, recorded: Path) -> None:
    @trying(EXAMPLES)
    @given(damaged(parser.originals(recorded)))
    def holds(data: bytes) -> None:
        attempt(parser.name, parser.read, data, place)

    holds()


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_texts_of_its_own_words_are_read_or_refused(parser: Parser, place: Path) -> None:
    @trying(EXAMPLES)
    @given(worded(parser.words))
    def holds(data: bytes) -> None:
        attempt(parser.name, parser.read, data, place)

    holds()


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_what_is_not_damaged_is_read(parser: Parser, place: Path, recorded: Path) -> None:
    for original in parser.originals(recorded):
        assert "Error: " not in attempt(parser.name, parser.read, original, place)


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, cases in FOUND.items() for what in cases])
def test_what_was_found_once(name: str, what: str, place: Path) -> None:
    attempt(name, BY_NAME[name].read, FOUND[name][what], place)
