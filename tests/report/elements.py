"""Every element and attribute of a page."""

from __future__ import annotations

import html.parser


class Elements(html.parser.HTMLParser):
    """The names of all elements, and (element, attribute, value) of all attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
