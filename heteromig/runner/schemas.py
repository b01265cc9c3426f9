"""JSON Schemas of the files that a run leaves, generated from the types that write them.

`python -m heteromig.runner.schemas` writes them into the package (`make schemas`), which ships them; a test fails when
they are stale, and another one when a shape has changed and its version has not.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from heteromig.core.record import SCHEMA_VERSION as RUN_VERSION
from heteromig.core.record import RunRecord
from heteromig.runner.journal import SCHEMA_VERSION as EVENTS_VERSION
from heteromig.runner.journal import Line
from heteromig.runner.recording import CERTIFICATE_VERSION, Certificate

SCHEMAS = Path(__file__).parents[1] / "schemas"
"""Where they are, in the checkout and where the package is installed."""

_VERSION = "schema_version"


class Described(NamedTuple):
    """One kind of file: the type of what is in it, its title, and the version of that type."""

    kind: Any
    title: str
    version: int


DESCRIBED: dict[str, Described] = {
    "run": Described(RunRecord, "run.json of heteromig", RUN_VERSION),
    "events": Described(Line, "one line of heteromig's events.jsonl", EVENTS_VERSION),
    "certificate": Described(Certificate, "certificate.json of heteromig", CERTIFICATE_VERSION),
}
"""By the names that `heteromig schema` knows."""


def schema_file(name: str) -> Path:
    """Where the schema of that name is."""
    return SCHEMAS / f"{name}.schema.json"


def schemas() -> dict[str, str]:
    """Text of each schema by its name."""
    return {
        name: json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "$id": f"urn:heteromig:{name}:{described.version}",
                "title": described.title,
                **_finished(msgspec.json.schema(described.kind), described.version),
            },
            indent=2,
        )
        + "\n"
        for name, described in DESCRIBED.items()
    }


def shape(schema: str) -> str:
    """SHA-256 of what a schema says of data: other words, or another version of the same, do not change it."""
    return hashlib.sha256(json.dumps(_bare(json.loads(schema)), sort_keys=True).encode()).hexdigest()


def _bare(tree: Any) -> Any:
    """The same without words and versions; what is in `properties` are names of data."""
    if isinstance(tree, list):
        return [_bare(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: {name: _bare(said) for name, said in value.items() if name != _VERSION}
        if key == "properties"
        else _bare(value)
        for key, value in tree.items()
        if key not in {"$id", "title", "description"}
    }


def _finished(tree: Any, version: int) -> Any:
    """The same with the version stated, and descriptions, which are docstrings, without their indentation there."""
    if isinstance(tree, list):
        return [_finished(item, version) for item in tree]
    if not isinstance(tree, dict):
        return tree
    finished: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "description" and isinstance(value, str):
            finished[key] = inspect.cleandoc(value)
        elif key == _VERSION:
            finished[key] = {"const": version}
        else:
            finished[key] = _finished(value, version)
    return finished


def write_schemas(directory: Path) -> None:
    """Replace the files in `directory` by what the types say now."""
    directory.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (directory / schema_file(name).name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]) if len(sys.argv) > 1 else SCHEMAS)
