"""The schemas that the package ships are those of the types, and what a run writes conforms to them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from heteromig.runner.journal import Asked, Heard
from heteromig.runner.schemas import SCHEMAS, schemas, write_schemas
from tests.core.test_journal_types import EXAMPLES, rich_history


def test_shipped_schemas_are_up_to_date() -> None:
    shipped = {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.glob("*.json")}
    assert shipped == schemas(), "run `make schemas`"


def test_schemas_are_schemas(tmp_path: Path) -> None:
    write_schemas(tmp_path / "new")
    for path in (tmp_path / "new").iterdir():
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_every_line_of_a_journal_conforms() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schemas()["journal.schema.json"]))
    history = rich_history()
    for line in (*itertools.starmap(Heard, enumerate((*EXAMPLES, *history.events), 1)), *map(Asked, history.effects)):
        validator.validate(json.loads(msgspec.json.encode(line)))


@pytest.mark.parametrize("name", ["run.schema.json", "certificate.schema.json", "journal.schema.json"])
def test_nonsense_does_not_conform(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(schemas()[name])).validate({})
