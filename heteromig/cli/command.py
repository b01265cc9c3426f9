"""How every command reads its options, and how it shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any

from typer.core import TyperCommand

ALIASES = {
    "dryrun": "dry-run",
    "main-duration": "main-benchmark-duration",
    "background-duration": "background-benchmark-duration",
    "background-timeout": "background-benchmark-timeout",
}
"""Further names of options, which no help shows, by the documented ones; both without their dashes in front."""

TUNING, MATRIX, CAMPAIGN = "Tuning", "Matrix", "Campaign"
COMMANDS_OF = {TUNING: ("tune",), MATRIX: ("matrix",), CAMPAIGN: ("tune", "matrix")}
"""Groups of options that only the help of these commands shows: others share their function, but not these options."""
_ARGUMENTS = "Arguments"
_NEGATABLE = re.compile(r"--(\S+) / --no-\1")
_VARIABLE = re.compile(r"\s*\[env var: \w+\]")


class Format(str, Enum):
    """How the answer of a campaign is printed."""

    TABLE = "table"
    MARKDOWN = "md"
    CSV = "csv"


class Command(TyperCommand):
    """A command whose options may be written with underscores for dashes, and are shown in groups."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments, each option in any of its spellings."""
        spellings = _spellings(name for param in self.params for name in (*param.opts, *param.secondary_opts))
        # Only names of options are looked up: a value such as --test_mode=AccuracyOnly stays as it was written.
        extra.setdefault("token_normalize_func", lambda name: spellings.get(name, name))
        return super().make_context(info_name, args, parent, **extra)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """A section for each group, in the order in which they were declared; arguments first."""
        groups: dict[str, list[tuple[str, str]]] = {}
        others: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            names, text = _NEGATABLE.sub(r"--[no-]\1", record[0]), record[1]
            panel = getattr(param, "rich_help_panel", None)
            if ctx.info_name not in COMMANDS_OF.get(panel or "", (ctx.info_name or "",)):
                continue
            if param.param_type_name == "argument":
                groups.setdefault(_ARGUMENTS, []).append((names, text))
            elif panel is None:
                others.append((names, text))
            else:
                # Where there are groups, there are too many variables to name each: the last lines give the rule.
                groups.setdefault(panel, []).append((names, _VARIABLE.sub("", text)))
        title = "Others" if groups.keys() - {_ARGUMENTS} else "Options"
        for name, records in [*groups.items(), (title, others)]:
            with formatter.section(name):
                formatter.write_dl(records)


def _spellings(names: Iterable[str]) -> dict[str, str]:
    """What options are called besides their names, by those names; without the dashes in front."""
    known = {name.lstrip("-") for name in names}
    spoken = {name: name for name in known} | {alias: name for alias, name in ALIASES.items() if name in known}
    return {alias.replace("-", "_"): name for alias, name in spoken.items()} | spoken
