"""The picture of docs/learn/structures.md: every cell of the catalogue, by idea and year.

python -m docs.tools.learn_tree    writes docs/images/learn/tree.svg

Families and the years of the papers come from the catalogue and the docstrings, so a new cell
appears by itself.
"""

from docs.tools.cells_table import all_cells, paper
from docs.tools.families import FAMILIES
from docs.tools.learn_diagrams import PICTURES, Sheet, save

COLORS = "#4d4d4d #0072b2 #00734f #b5651d #7b3294 #c1272d".split()
LINE, LEFT, COLUMN = 0.185, 0.6, 1.5


def years() -> dict[str, int]:
    """The year of each cell's first paper."""
    return {name: int(paper(kind)[-4:]) for name, kind in all_cells().items()}


def draw() -> Sheet:
    """A column for each idea, a row for each year with a paper."""
    year_of = years()
    rows = {
        year: [[n for n in family.cells if year_of[n] == year] for family in FAMILIES.values()]
        for year in sorted(set(year_of.values()))
    }
    heights = {year: 0.13 + LINE * max(map(len, row)) for year, row in rows.items()}
    width, height = LEFT + COLUMN * len(FAMILIES) + 0.1, sum(heights.values()) + 0.75
    sheet = Sheet(width, height)
    middles = [LEFT + COLUMN * (i + 0.5) for i in range(len(FAMILIES))]
    for x, color, family in zip(middles, COLORS, FAMILIES.values(), strict=True):
        left = x - COLUMN / 2 + 0.04
        sheet.axes.axvspan(left, left + COLUMN - 0.08, 0.01, 0.99, color=color, alpha=0.07, lw=0)
        title = _wrapped(family.title)
        sheet.text((x, height - 0.36), title, color, fontsize=9.5, weight="bold")
    top = height - 0.68
    for year, row in rows.items():
        sheet.axes.plot([0.08, width - 0.08], [top, top], color="#d5dae0", lw=0.6, zorder=0)
        middle = top - heights[year] / 2
        sheet.text((0.32, middle), str(year), fontsize=9)
        for x, color, names in zip(middles, COLORS, row, strict=True):
            first = middle + LINE * (len(names) - 1) / 2
            for i, name in enumerate(names):
                sheet.text((x, first - LINE * i), name, color, fontsize=8.5)
        top -= heights[year]
    return sheet


def _wrapped(title: str) -> str:
    """A title in lines of at most 18 characters."""
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) > 17:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


if __name__ == "__main__":
    save(draw().figure, PICTURES / "tree.svg")
