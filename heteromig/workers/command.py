"""What a worker runs: an argv list, never a shell line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.redaction import Redaction


class Command(Struct, frozen=True):
    """One program with everything that it sees.

    `env` is added to the environment of heteromig itself, which is inherited and written down nowhere: run directories
    are given to other people, and environments hold secrets. The program is looked up along the PATH of both, after
    `cwd` was entered. `clean_stop_signal` asks the program to finish what is outstanding and exit 0; None when it
    knows no such signal (`make` does not).
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    clean_stop_signal: int | None = None


def with_environment(command: Command, added: Mapping[str, str]) -> Command:
    """The same program with more in its environment; `added` wins."""
    return msgspec.structs.replace(command, env={**command.env, **added})


def without_secrets(command: Command, redaction: Redaction) -> Command:
    """The same program as it may be written down."""
    return msgspec.structs.replace(
        command,
        argv=redaction.words(command.argv),
        env=redaction.environment(command.env),
        cwd=Path(redaction.text(str(command.cwd))),
    )
