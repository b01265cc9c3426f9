"""What all pages have in common: the environment of the templates, and the values they are filled with.

The only module that imports jinja2.
"""

from __future__ import annotations

import functools
import shlex

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from heteromig.report.tables import Table


class Figure(Struct, frozen=True):
    """A figure in its two widths, what it shows in a sentence, and the same in a table."""

    name: str
    title: str
    says: str
    wide: str
    narrow: str
    table: Table | None = None


class Fact(Struct, frozen=True):
    """One of the figures at the top of the page."""

    name: str
    value: str
    detail: str
    tone: str = ""


def fill(template: str, **values: object) -> str:
    """One self-contained HTML file: no script, no request, nothing that changes from one time to the next."""
    return _environment().get_template(template).render(values) + "\n"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("heteromig.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = _drawn
    environment.filters["quoted"] = shlex.quote
    return environment


def _drawn(svg: str) -> Markup:
    """A figure, in which matplotlib has escaped every text."""
    return Markup(svg)  # noqa: S704
