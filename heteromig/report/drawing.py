"""How every figure of a page is drawn: as SVG without pyplot, with text kept as text, the same each time.

Colours are placeholders, which the page's style sheet gives a meaning in light and in dark.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # fonts that are missing, a cache that is made

INK, MUTED, FAINT, PAPER = "#101418", "#5f6b7a", "#dfe4ea", "#fdfdfe"
MAIN, MAIN_SOFT, MAIN_FAINT = "#1f5fd1", "#86aaf0", "#c9dafa"
OTHER, OTHER_SOFT, OTHER_FAINT = "#66748a", "#a5b0c0", "#d3dae3"
BAD, BUILD, SECOND, THIRD = "#c2182b", "#b9a77a", "#8a6d1f", "#3f7d6a"
VARIABLES: Mapping[str, str] = {
    INK: "ink", MUTED: "muted", FAINT: "line", PAPER: "paper",
    MAIN: "main", MAIN_SOFT: "main-soft", MAIN_FAINT: "main-faint",
    OTHER: "other", OTHER_SOFT: "other-soft", OTHER_FAINT: "other-faint",
    BAD: "bad", BUILD: "build", SECOND: "second", THIRD: "third",
}  # fmt: skip
"""Colours as they are drawn, by the custom property of the style sheet that takes their place."""

_PIXELS_PER_INCH = 72
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "heteromig",
    "font.family": ["sans-serif"],
    "font.size": 11.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "path.simplify": False,
    "hatch.linewidth": 0.6,
}
WIDE, NARROW = 1040, 360
"""A figure on a desk and on a phone, in pixels."""
GLYPH_PIXELS = 6.4
"""How wide a letter of 10 px is, about."""


def blank(width: int, height: int) -> Figure:
    """An empty figure of so many pixels, without a ground of its own."""
    figure = Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), dpi=_PIXELS_PER_INCH)
    figure.patch.set_visible(False)
    return figure


def cropped(text: str, characters: int) -> str:
    """At most so many characters, with an ellipsis where some are missing."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


_DECLARATION = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
_SIZE = re.compile(r'(<svg\b[^>]*?) width="[^"]*"([^>]*?)>', re.DOTALL)
_HEIGHT = re.compile(r'(<svg\b[^>]*?) height="[^"]*"', re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_COMMENTS = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_STYLE = re.compile(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", re.DOTALL)
_FONT = re.compile(r"font: (?:(bold|[1-9]00) )?([\d.]+)px [^;\"]*")
_COLOUR = re.compile("|".join(VARIABLES))
_TAG = re.compile(r"<[^>]+>")
_ID = re.compile(r'(?<=\bid=")(?=[^"])|(?<=url\(#)|(?<=href="#)')


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an element of a page: no size of its own, no ids of others, colours of the style sheet."""
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a character that its font lacks is the browser's business
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = _COMMENTS.sub("", _METADATA.sub("", _DECLARATION.sub("", out.getvalue(), count=1)))
    text = _HEIGHT.sub(r"\1", _SIZE.sub(r"\1\2>", text, count=1), count=1)
    text = _STYLE.sub("", text, count=1)
    return _TAG.sub(lambda found: _restyled(found[0], name), text).strip()


def _restyled(tag: str, name: str) -> str:
    """One tag; what stands between tags are words of others, in which nothing is replaced."""
    if '"' not in tag:
        return tag
    tag = _FONT.sub(lambda found: f"font-size: {found[2]}px" + ("; font-weight: 600" if found[1] else ""), tag)
    tag = _ID.sub(f"{name}-", tag)
    return _COLOUR.sub(lambda found: f"var(--{VARIABLES[found[0]]})", tag)
