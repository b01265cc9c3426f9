"""Names that become names of directories."""

from __future__ import annotations

import re
from collections.abc import Iterator

from heteromig.core.spec import RunSpec

NAME_RULE = "at most 64 letters, digits and ._+-, the first one a letter or a digit"

_LONGEST = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+-]{{0,{_LONGEST - 1}}}")
_OTHERS = re.compile(r"[^A-Za-z0-9._+,-]")


def is_name(text: str) -> bool:
    """Whether `text` keeps to `NAME_RULE`."""
    return _NAME.fullmatch(text) is not None


def directory_name(*parts: object) -> str:
    """The parts with a dash between them, as one component of a path, whatever they are.

    It begins with a letter or a digit, holds no separator, and is short enough. Names that keep to the rule stay as
    they are.
    """
    made = "-".join(_OTHERS.sub("_", str(part))[: 2 * _LONGEST] for part in parts)[: 3 * _LONGEST]
    return made if made[:1].isascii() and made[:1].isalnum() else f"x{made}"


def odd_names(spec: RunSpec) -> Iterator[str]:
    """What of a spec would become part of a path, or of a pattern for one, and does not keep to the rule."""
    for info in spec.catalog:
        for text in (info.name, *info.scenarios, *(version for _, version in info.config_vers)):
            if not is_name(text):
                yield text
    for text in (spec.main.config_ver, spec.background.config_ver):
        if text and not is_name(text):
            yield text
