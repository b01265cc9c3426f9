"""Write the state diagram of the table into `docs/architecture.md`, between its two markers."""

from __future__ import annotations

from pathlib import Path

from heteromig.core.machine import diagram

DOCUMENT = Path(__file__).parent / "architecture.md"
BEGIN = "<!-- the diagram is generated from the table: make diagram -->\n```mermaid\n"
END = "\n```\n<!-- end of the diagram -->"


def with_diagram(text: str) -> str:
    """The document with its diagram as the table says it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{diagram()}{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_diagram(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
