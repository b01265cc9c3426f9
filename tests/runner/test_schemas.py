"""The schemas that the package ships are those of the types, and what a run writes conforms to them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from typer.testing import CliRunner

from heteromig.cli.main import app
from heteromig.runner.journal import Asked, Heard
from heteromig.runner.schemas import DESCRIBED, SCHEMAS, schema_file, schemas, shape, write_schemas
from tests.core.test_journal_types import EXAMPLES, rich_history

SHAPES_FILE = Path(__file__).with_name("shapes.json")
SHAPES: dict[str, dict[str, str]] = json.loads(SHAPES_FILE.read_text())
"""SHA-256 of the shape that each version of each file has, or had."""
VERSIONS = {
    "run": "SCHEMA_VERSION in heteromig/core/record.py",
    "events": "SCHEMA_VERSION in heteromig/runner/journal.py",
    "certificate": "CERTIFICATE_VERSION in heteromig/runner/recording.py",
}
"""Where they are counted."""


def test_shipped_schemas_are_up_to_date() -> None:
    assert {path.name for path in SCHEMAS.iterdir()} == {schema_file(name).name for name in schemas()}
    shipped = {name: schema_file(name).read_text(encoding="utf-8") for name in schemas()}
    assert shipped == schemas(), "run `make schemas`"


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_shape_has_one_version(name: str) -> None:
    version, now = DESCRIBED[name].version, shape(schemas()[name])
    known = SHAPES[name].get(str(version))
    assert known == now, (
        f"The types behind `heteromig schema {name}` have another shape than version {version} had. Raise their "
        f"version ({VERSIONS[name]}), run `make schemas`, add a row for it to {SHAPES_FILE.name} under {name!r}: "
        f'"{version if known is None else version + 1}": "{now}", and leave the rows before it as they are. '
        "Then record the recordings anew: `python -m tests.recordings.record`."
    )


def _replace_first(tree: Any, key: str, then: Any) -> bool:
    """Put `then` in place of the first value of that key, wherever it is."""
    if isinstance(tree, dict) and key in tree:
        tree[key] = then
        return True
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return any(_replace_first(one, key, then) for one in inside)


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_shape_is_what_is_said_of_data_and_not_its_words(name: str) -> None:
    text = schemas()[name]
    for key, changes in (("description", False), ("schema_version", False), ("required", True), ("type", True)):
        schema = json.loads(text)
        assert _replace_first(schema, key, "another")
        assert (shape(json.dumps(schema)) != shape(text)) is changes, key


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_schema_names_its_version_and_takes_no_other(name: str) -> None:
    schema = json.loads(schemas()[name])
    assert schema["$id"] == f"urn:heteromig:{name}:{DESCRIBED[name].version}"
    (stamp,) = [
        one["properties"]["schema_version"]
        for one in schema["$defs"].values()
        if "schema_version" in one.get("properties", {})
    ]
    assert stamp == {"const": DESCRIBED[name].version}


@pytest.mark.parametrize("name", DESCRIBED)
def test_schema_prints_what_the_package_ships(name: str) -> None:
    printed = CliRunner().invoke(app, ("schema", name))
    assert printed.exit_code == 0
    assert printed.stdout == schema_file(name).read_text(encoding="utf-8")


def test_schema_says_what_there_is() -> None:
    refused = CliRunner().invoke(app, ("schema", "telemetry"))
    assert refused.exit_code == 2
    assert all(name in refused.stderr for name in DESCRIBED)


def test_schemas_are_schemas(tmp_path: Path) -> None:
    write_schemas(tmp_path / "new")
    for path in (tmp_path / "new").iterdir():
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_every_line_of_a_journal_conforms() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schemas()["events"]))
    history = rich_history()
    for line in (*itertools.starmap(Heard, enumerate((*EXAMPLES, *history.events), 1)), *map(Asked, history.effects)):
        validator.validate(json.loads(msgspec.json.encode(line)))


@pytest.mark.parametrize("name", DESCRIBED)
def test_nonsense_does_not_conform(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(schemas()[name])).validate({})
