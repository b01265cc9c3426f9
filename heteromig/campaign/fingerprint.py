"""Whether a campaign that is to be continued is the one that was begun."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from heteromig.core.errors import UsageError


def fingerprint(settings: Struct) -> str:
    """The SHA-256 of all settings; any other setting gives another one."""
    text = msgspec.json.encode([type(settings).__name__, settings], order="deterministic")
    return hashlib.sha256(text).hexdigest()


def require_same(recorded: Struct, asked: Struct) -> None:
    """Refuse to continue a campaign with other settings.

    Raises:
        UsageError: the settings differ; it says where.
    """
    if fingerprint(recorded) == fingerprint(asked):
        return
    old, new = (msgspec.to_builtins(settings) for settings in (recorded, asked))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    where = "; ".join(f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in names)
    raise UsageError(
        f"This directory was begun with other settings ({where or 'of another kind'}): resume it with those, or begin "
        "another one."
    )
