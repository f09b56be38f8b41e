"""The table of all cells, read off the code.

    python -m docs.tools.cells_table                prints it
    python -m docs.tools.cells_table docs/cells.md  puts it between its marks in the file


Equations and papers come from the docstrings, numbers of parameters from ``init``, and the engines
say themselves which cells they refuse.
"""

import inspect
import re
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp

from docs.tools.parameter_counts import OTHERS, Sizes, parameters, shapes, sizes_of
from jaxrnn import cells, engines
from jaxrnn._cell import input_rank

BEGIN, END = "<!-- cells:begin -->", "<!-- cells:end -->"
_PICKS = "auto"  # the module of the engine that chooses among the others


def all_cells() -> dict[str, type]:
    """Every public cell by its name, a family after the other."""
    found = {name: getattr(cells, name) for name in cells.__all__}
    found = {name: kind for name, kind in found.items() if hasattr(kind, "step")}
    # Within a file by line: relatives stand in the order in which they are explained.
    return dict(sorted(found.items(), key=lambda item: (item[1].__module__, _line(item[1]))))


def _line(kind: type) -> int:
    return inspect.getsourcelines(kind)[1]


# Equations and papers, from the docstring --------------------------------------------------------


def equations(kind: type) -> list[str]:
    """The equations of a docstring, each without what is said of it."""
    found, paragraph = [], []
    for line in [*inspect.cleandoc(kind.__doc__ or "").splitlines()[1:], ""]:
        if line.startswith(("Args:", "Shapes:")):
            break
        if line.startswith("    "):
            equation = re.split(r" {2,}(?=\()", line.strip())[0].replace("`", "")
            paragraph.append(re.sub(r" {2,}", "  ", equation))
        elif found or paragraph:
            found, paragraph = found + paragraph, []
            if line and not line[0].isspace() and found:
                break
    return found


def paper(kind: type) -> str:
    """Authors, title and year of the first of a docstring's references."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("References:\n")[2].partition("\n\n")[0]
    entries = re.split(r"(?<=\.)\n(?=    \S)", text)
    entry = " ".join(entries[0].split())
    match = re.match(r'(?P<authors>.+?), "(?P<title>[^"]+)",?.*?(?P<year>(19|20)\d\d)', entry)
    if match is None:
        raise ValueError(f"the first reference of {kind.__name__} names no title and year: {entry}")
    return f"{_short(match['authors'])}, “{match['title']}”, {match['year']}"


def _short(authors: str) -> str:
    """One or two surnames, or the first and et al."""
    people = re.split(r", | and ", authors.replace(" et al.", ""))
    surnames = [re.sub(r"^((\w|\w-\w)\.[ -]?)+", "", person) for person in people]
    if " et al." in authors or len(surnames) > 2:
        return f"{surnames[0]} et al."
    return " and ".join(surnames)


# Engines --------------------------------------------------------------------------------------


def serving(kind: type) -> list[str]:
    """The names of the engines that take the cell, on float32 and on a machine that has all."""
    sizes = sizes_of(kind.__name__)
    cell = sizes.make(kind, sizes.small())
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes(cell, 3))
    state = cell.init_state(params, (2,))
    xs = jnp.zeros((2, 2, *sizes.space, 3), jnp.float32)
    if len(sizes.space) + 1 != input_rank(cell):
        raise ValueError(f"{kind.__name__} takes inputs of rank {input_rank(cell)}")
    names = []
    # What a cell is refused for is asked here, not what this machine lacks.
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        for name in engines.__all__:
            engine = getattr(engines, name)
            if not hasattr(engine, "why_not") or engine.__module__.endswith(_PICKS):
                continue
            if inspect.isabstract(engine) or getattr(engine, "_is_protocol", False):
                continue
            if engine().why_not(cell, params, state, xs) is None:
                names.append(name)
    return names


# The table ----------------------------------------------------------------------------------------


def table() -> str:
    """The table of all cells in Markdown, with the line that says how it was made."""
    made = all_cells()
    unknown = set(OTHERS) - set(made)
    if unknown:
        raise ValueError(f"there are no cells of the names {sorted(unknown)}")
    lines = [
        f"{len(made)} cells. Of the letters, H is the first argument, I the input's size, and "
        "others stand for the arguments that the column of parameters names. Made by "
        "`python -m docs.tools.cells_table docs/cells.md`.",
        "",
        "| cell | equations | paper | parameters | engines |",
        "|---|---|---|---|---|",
    ]
    for name, kind in made.items():
        cells_ = (
            f"`{name}`",
            "<br>".join(f"`{_escape(line)}`" for line in equations(kind)),
            _escape(paper(kind)),
            f"{parameters(kind)}{_legend(sizes_of(name))}",
            ", ".join(serving(kind)),
        )
        lines.append("| " + " | ".join(cells_) + " |")
    return "\n".join(lines)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _legend(sizes: Sizes) -> str:
    """What letters beside H and I stand for."""
    named = [f"{x}: `{name}`" for x, name in sizes.arguments.items() if x != "H"]
    named = [text.replace("`kernel_length`", "points of the kernel") for text in named]
    named += [sizes.note] if sizes.note else []
    return f" ({', '.join(named)})" if named else ""


def write(path: Path, text: str) -> bool:
    """Puts the table between its marks in a file, or at its end; says whether that changed it."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    section = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in old and END in old:
        head, _, rest = old.partition(BEGIN)
        new = head + section + rest.partition(END)[2]
    else:
        new = f"{old.rstrip()}\n\n{section}\n".lstrip("\n")
    if new != old:
        path.write_text(new, encoding="utf-8")
    return new != old


def written(path: Path) -> str | None:
    """The table that stands in a file, or None."""
    if not path.exists():
        return None
    _, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    inside, end, _ = rest.partition(END)
    return inside.strip("\n") if begin and end else None


def main(arguments: list[str]) -> int:
    """Returns the exit status of the process."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 2
    text = table()
    if not arguments:
        print(text)
        return 0
    changed = write(Path(arguments[0]), text)
    print(f"{arguments[0]}: {'updated' if changed else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
