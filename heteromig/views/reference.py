"""Tables that never change."""

from __future__ import annotations

from rich.text import Text

from heteromig.core.verdict import EXIT_CODES


def exit_codes_table() -> Text:
    """What each exit code means, one a line."""
    text = Text()
    text.append(f"{'CODE':>4}  {'VERDICT':<13}MEANING\n", "bold")
    for code, verdict, meaning in EXIT_CODES:
        text.append(f"{code:>4}  {verdict:<13}{meaning}\n")
    text.rstrip()
    return text
