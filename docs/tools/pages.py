"""What the tools of the documentation share: sections of pages that they write, and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1]


def with_section(page: str, mark: str, text: str) -> str:
    """The page with this text between ``<!-- mark -->`` and ``<!-- end of mark -->``."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def write_section(path: Path, mark: str, text: str) -> None:
    """Replaces the text between two marks of a page."""
    page = path.read_text(encoding="utf-8")
    path.write_text(with_section(page, mark, text), encoding="utf-8")


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose first row has the headings."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def save_picture(figure: Figure, path: Path, fonttype: str = "none", **options: Any) -> None:
    """Writes an SVG that is the same for the same drawing; by default its text stays text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "jaxrnn", "svg.fonttype": fonttype}):
        figure.savefig(path, metadata={"Date": None}, **options)
