"""A Griffe extension: docstrings that read well in ``help`` read well on the site, too.

Equations of cells become LaTeX, the numbers of parameters and the engines are added, comments of
fields become their descriptions, names of the public API in backticks become links, and
``Example:`` is the section that Griffe calls ``Examples:``.
"""

import re
import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parents[2]))

from docs.tools import cells_table, equations, names  # noqa: E402

_LINKED = names.public_names()
_CELLS = cells_table.all_cells()
_EQUATIONS = re.compile(r"^(?:    (?!>>>|\.\.\.).*\n)+", re.MULTILINE)
_SECTION = re.compile(r"^[A-Z][A-Za-z]+:$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of jaxrnn once they are loaded."""

    def on_class_instance(self, *, cls: griffe.Class, **kwargs) -> None:
        """Tells Griffe that a class under `frozen` is a dataclass: its fields are arguments."""
        for decorator in cls.decorators:
            if decorator.callable_path == "jaxrnn._frozen.frozen":
                decorator.value = griffe.ExprName("dataclasses.dataclass")

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        """Rewrites every docstring of the package."""
        _rewrite(pkg)


def _rewrite(scope: griffe.Module | griffe.Class) -> None:
    for member in scope.members.values():
        if member.is_alias:
            continue
        if member.is_attribute and scope.is_class and member.docstring is None:
            comment = member.source.partition("  # ")[2].strip()
            if comment and "noqa" not in comment:
                text = re.sub(r"(\[[^]]*\])", r"`\1`", comment)
                member.docstring = griffe.Docstring(text, parent=member)
        if member.docstring:
            text = member.docstring.value
            if member.name in _CELLS and member.path.startswith("jaxrnn.cells."):
                text = of_cell(member.name, text)
            member.docstring.value = of_any(text, member.name)
        if member.is_module or member.is_class:
            _rewrite(member)


def of_cell(name: str, text: str) -> str:
    """The docstring of a cell with equations in LaTeX, its parameters and its engines."""
    first = _SECTION.search(text)
    cut = first.start() if first else len(text)
    kind = _CELLS[name]
    own = cells_table.equations(kind)

    def display(match: re.Match[str]) -> str:
        lines = match[0].splitlines()
        if re.sub(r" {2,}", "  ", equations.split_note(lines[0])[0]) not in own:
            return match[0]  # an example, or a derivation in words
        return f"$$\n{equations.aligned(lines)}\n$$\n"

    head = _EQUATIONS.sub(display, text[:cut].rstrip() + "\n")
    facts = (
        f"*Number of parameters:* {cells_table.parameters(kind)}"
        f"{cells_table.legend(cells_table.sizes_of(name))}. "
        f"*Engines:* {', '.join(cells_table.serving(kind))}."
    )
    return f"{head}\n{facts}\n\n{text[cut:]}"


def of_any(text: str, own: str) -> str:
    """A docstring with a list of references, and links to other public names outside of code."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)

    text = re.sub(r"^References:\n((?:    .*\n?)+)", _references, text, flags=re.MULTILINE)
    text = re.sub(r"^Returns:\n((?:    .*\n?)+)", _returns, text, flags=re.MULTILINE)

    def link(match: re.Match[str]) -> str:
        name = match[1]
        return f"[`{name}`][{_LINKED[name]}]" if name in _LINKED and name != own else match[0]

    prose = [
        line
        if re.match(r" *(>>>|\.\.\.)", line)
        else re.sub(r"(?<![`\[])`([A-Za-z_.]+)`(?![`\]])", link, line)
        for line in text.splitlines()
    ]
    return "\n".join(prose)


def _references(match: re.Match[str]) -> str:
    entries = re.split(r"(?<=\.)\n(?=    \S)", match[1].rstrip())
    items = "\n".join(f"    - {' '.join(entry.split())}" for entry in entries)
    return f"References:\n{items}\n"


def _returns(match: re.Match[str]) -> str:
    # Prose, in which Griffe would take what stands before a colon for a type.
    return f"**Returns:** {' '.join(match[1].split())}\n"
