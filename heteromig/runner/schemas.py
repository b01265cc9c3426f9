"""JSON Schemas of the files that a run leaves, generated from the types that write them.

`python -m heteromig.runner.schemas` writes them into the package (`make schemas`), which ships them; a test fails when
they are stale.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from heteromig.core.record import RunRecord
from heteromig.runner.journal import Line
from heteromig.runner.recording import Certificate

SCHEMAS = Path(__file__).parents[1] / "schemas"
"""Where they are, in the checkout and where the package is installed."""

_TYPES: dict[str, tuple[Any, str]] = {
    "run.schema.json": (RunRecord, "run.json of heteromig"),
    "certificate.schema.json": (Certificate, "certificate.json of heteromig"),
    "journal.schema.json": (Line, "one line of heteromig's events.jsonl"),
}


def schemas() -> dict[str, str]:
    """Text of each schema by its file name."""
    return {
        name: json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": title,
                **_cleaned(msgspec.json.schema(kind)),
            },
            indent=2,
        )
        + "\n"
        for name, (kind, title) in _TYPES.items()
    }


def _cleaned(tree: Any) -> Any:
    """The same without the indentation that descriptions, which are docstrings, have in the source."""
    if isinstance(tree, list):
        return [_cleaned(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _cleaned(value)
        for key, value in tree.items()
    }


def write_schemas(directory: Path) -> None:
    """Replace the files in `directory` by what the types say now."""
    directory.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]) if len(sys.argv) > 1 else SCHEMAS)
