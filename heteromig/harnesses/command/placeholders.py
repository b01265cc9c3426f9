"""What the user writes in braces, and what stands there when the program starts.

Replaced literally: nothing is formatted, indexed or looked up, so that no value can say anything but itself.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from heteromig.core.errors import UsageError
from heteromig.core.plan import Assignment

PYTHON = "python"
RATE = "target_qps"
KNOWN = ("slice", "duration_ms", "duration_s", RATE, "directory", "benchmark", "role", "scenario", PYTHON)

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|[{}]")
_BRACES = {"{{": "{", "}}": "}"}


def require_known(where: str, text: str) -> None:
    """Check that every brace of `text` belongs to a placeholder or is doubled; `where` says whose text it is.

    Raises:
        UsageError: one does not.
    """
    known = ", ".join(f"{{{name}}}" for name in KNOWN)
    for token in _TOKEN.finditer(text):
        name = token["name"]
        if token[0] in _BRACES or name in KNOWN:
            continue
        if name is None:
            wrong = f"a {token[0]} without its partner"
        else:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            wrong = f"{token[0]}, which stands for nothing"
            wrong += f" (did you mean {{{near[0]}}}?)" if near else ""
        raise UsageError(
            f"{where} holds {wrong}. Known are {known}; a brace of your own is written twice, {{{{ or }}}}."
        )


def is_plain(text: str) -> bool:
    """Whether `text` says the same for every worker, and holds no brace."""
    return _TOKEN.search(text) is None


def holds(text: str, placeholder: str) -> bool:
    """Whether `text` has a place for that."""
    return any(token["name"] == placeholder for token in _TOKEN.finditer(text))


def values_of(assignment: Assignment, run_dir: Path, rate_qps: float | None) -> dict[str, str]:
    """What the placeholders stand for in the command of this worker; a rate, which main alone has, may be missing."""
    seconds, milliseconds = divmod(assignment.duration_ms, 1000)
    return {
        "slice": assignment.slice_uuid,
        "duration_ms": str(assignment.duration_ms),
        "duration_s": f"{seconds}.{milliseconds:03d}".rstrip("0").rstrip(".") if milliseconds else str(seconds),
        "directory": str(run_dir / assignment.directory),
        "benchmark": assignment.benchmark,
        "role": assignment.role.value,
        **({} if rate_qps is None else {RATE: f"{rate_qps:.10g}"}),
        "scenario": assignment.scenario,
        PYTHON: sys.executable,
    }


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with its placeholders replaced; it was checked before."""
    return _TOKEN.sub(lambda token: _BRACES.get(token[0]) or values[token["name"]], text)
