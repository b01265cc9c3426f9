"""Text from elsewhere made harmless, and text of a given width in terminal cells.

Names and output lines of other programs end up on the user's terminal. What could move the cursor, change colours or
reverse the reading direction is taken out here; the views never interpret any of it as markup.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size

ELLIPSIS = "…"

_ESCAPES = re.compile(
    r"""
    (?: \x1b\[ | \x9b ) [0-?]* [ -/]* [@-~]?               # CSI: colours, cursor movements
  | (?: \x1b[\]PX^_] | [\x90\x98\x9d-\x9f] )               # OSC, DCS, SOS, PM, APC: a string up to its terminator;
    (?: [^\x07\x1b\x9c]* (?: \x07 | \x1b\\ | \x9c ) )?       # one without any hides nothing of what is said after it
  | \x1b [ -/]* [0-~]?                                     # two-character escapes, character sets
    """,
    re.VERBOSE,
)
_LONGEST_LINE = 1000
"""Characters looked at, at most: nobody has a terminal that wide, and a log may hold a line of megabytes."""
_LONGEST_MESSAGE = 20_000
_BLANKS = str.maketrans("\t\r\n", "   ")

_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
"""What means something within a line; no line begins with a text of somebody else."""

_SHORT_UUID = 8
_UUID_PREFIXES = ("SIM-", "MPS-", "MIG-", "GPU-")  # in the order in which they can follow each other


def printable(text: str, *, at_most: int = _LONGEST_LINE) -> str:
    """One line without escapes, control, format or zero-width characters.

    Nothing is left out because of a CR or of an escape that never ends: a sentence about a process says all of itself,
    whatever that process calls itself. Of a long text, only the first `at_most` characters are looked at.
    """
    text = text[:at_most]
    if text.isascii() and text.isprintable():
        return text.strip()
    text = _ESCAPES.sub("", text).translate(_BLANKS)
    return "".join(filter(_shows, text)).strip()


def sentence(text: str) -> str:
    """A message as a whole, which may be long, and quote names and lines of others."""
    return printable(text, at_most=_LONGEST_MESSAGE)


def shown_path(path: str) -> str:
    """A path as it is, or, where it could do something to a terminal, as a shell reads it back."""
    return path if path.isprintable() else shell_quote(path)


def markdown_text(text: str) -> str:
    """One line of text that Markdown and HTML take for nothing but text."""
    flat = " ".join(text.split())
    named = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", named).replace("@", "@<!-- -->")  # nobody is notified


def _shows(character: str) -> bool:
    return character.isprintable() and (character.isascii() or cell_len(character) > 0)


def cells(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    return len(text) if text.isascii() else cell_len(text)


def crop(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis where something is missing."""
    if cells(text) <= width:
        return text
    if width <= 0:
        return ""
    return set_cell_size(text, width - 1).rstrip() + ELLIPSIS


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells, cropped or padded; `right` aligns it to the right."""
    text = crop(text, width)
    padding = " " * (width - cells(text))
    return padding + text if right else text + padding


def wrap(text: str, width: int, *, lines: int) -> list[str]:
    """`text` in at most `lines` lines of at most `width` cells."""
    wrapped = textwrap.wrap(text, max(1, width), break_on_hyphens=False)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], " ".join(wrapped[lines - 1 :])]
    return [crop(line, width) for line in wrapped]


def short_uuid(uuid: str) -> str:
    """The first eight characters after the prefix that all UUIDs of a kind share, and the number of a share."""
    uuid = printable(uuid)
    _, slash, share = uuid.partition("/") if uuid.startswith("MPS-") else ("", "", "")
    for prefix in _UUID_PREFIXES:
        uuid = uuid.removeprefix(prefix)
    return f"{uuid[:_SHORT_UUID]}{slash}{share}"


def format_cpus(cpus: Iterable[int]) -> str:
    """`0-2,5` of (0, 1, 2, 5); `any` where nothing is pinned."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) or "any"


def format_rate(samples_per_s: float) -> str:
    """`12.3`, `12345` or `1.23M`: in at most seven characters."""
    if samples_per_s < 1000:  # noqa: PLR2004 - a decimal still tells something
        return f"{samples_per_s:.1f}"
    if samples_per_s < 1e6:  # noqa: PLR2004 - a million
        return f"{samples_per_s:.0f}"
    return f"{samples_per_s / 1e6:.2f}M"


def format_short_bytes(count_bytes: int) -> str:
    """`0`, `512M`, `9.5G` or `143G`, of binary multiples: in at most five characters."""
    if count_bytes == 0:
        return "0"
    size = count_bytes / 2**20
    if size < 1000:  # noqa: PLR2004 - more would be too long
        return f"{size:.0f}M"
    size /= 2**10
    return f"{size:.1f}G" if size < 99.95 else f"{size:.0f}G"  # noqa: PLR2004 - likewise


def shell_quote(word: str) -> str:
    """The word as a shell reads it back; control characters become visible escapes (bash, zsh, ksh)."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(_shell_escape(character) for character in word)
    return f"$'{escaped}'"


def _shell_escape(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
