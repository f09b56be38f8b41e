"""The catalogue of cells and the page of each family, in Markdown, from the docstrings.

A family is an idea; within it, cells stand in the order in which they are best read.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from docs.tools import cells_table
from jaxrnn import cells


class Family(NamedTuple):
    """An idea, and the cells that share it."""

    title: str
    idea: str
    cells: tuple[str, ...]


FAMILIES = {
    "simple": Family(
        "Simple networks",
        "One nonlinear layer that reads the input and its own last output, and what keeps its "
        "gradients from vanishing without gates: initialization, independent units, several "
        "clocks, a slow context.",
        ("Elman", "Jordan", "IRNN", "IndRNN", "ClockworkRNN", "SCRN", "FastRNN"),
    ),
    "lstm": Family(
        "LSTM and variants",
        "A cell state that is changed by addition, and gates that decide what is written, kept and "
        "read: the gradient along the cell state is the product of the forget gates.",
        (
            "LSTM", "PeepholeLSTM", "ProjectedLSTM", "CoupledLSTM", "MultiplicativeLSTM",
            "LayerNormLSTM", "ConvLSTM", "SLSTM", "ParaLSTM",
        ),
    ),
    "gru": Family(
        "GRU and cells with fewer gates",
        "The new state is an average of the old one and a candidate, weighted by a gate.",
        (
            "GRU", "ResetBeforeGRU", "LightGRU", "MinimalGatedUnit", "UpdateGateRNN", "JANET",
            "FastGRNN", "STAR", "BRC", "NBRC", "RecurrentHighway", "ParaGRU",
        ),
    ),
    "dynamics": Family(
        "Maps and differential equations",
        "Recurrences whose Jacobian has a norm near one by construction: orthogonal and "
        "antisymmetric maps, oscillators, and other differential equations taken in steps.",
        (
            "OrthogonalRNN", "AntisymmetricRNN", "CoRNN", "UnICORNN", "LEM", "LTC", "CfC", "LMU",
        ),
    ),
    "linear": Family(
        "Linear recurrences",
        "The state changes by an elementwise affine map whose coefficients do not depend on the "
        "state, so that all steps run in parallel over time; the nonlinearity stands before and "
        "after.",
        (
            "LRU", "S5", "SelectiveSSM", "MinGRU", "MinLSTM", "RGLRU", "HGRN", "QRNN", "SRU",
            "PeepholeSRU",
        ),
    ),
    "matrix": Family(
        "Matrix memories",
        "The state is a matrix of associations between keys and values; a chunk of time has a "
        "closed form that consists of matrix products.",
        ("GatedLinearAttention", "MLSTM", "DeltaNet", "GatedDeltaNet"),
    ),
}  # fmt: skip

MEMORY = Path(__file__).parents[1] / "data" / "cells_memory.json"
"""What `docs.tools.cells_memory` measured of each cell."""

_INDEX = "::: jaxrnn.{}\n    options:\n      heading_level: 2\n      members: {}\n"


def idea(kind: type) -> str:
    """The first line of a docstring."""
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0].rstrip(".")


def page(name: str) -> str:
    """The page of a family: each cell, then the types of their parameters and states."""
    family = FAMILIES[name]
    blocks = [f"# {family.title}\n\n{family.idea}\n"]
    blocks += [_INDEX.format(cell, "false") for cell in family.cells]
    blocks += ["## Parameters and states\n"]
    blocks += [
        f"::: jaxrnn.{other}\n    options:\n      heading_level: 3\n      members: {members}\n"
        for other, members in others(name)
    ]
    return "\n".join(blocks)


def others(name: str) -> list[tuple[str, str]]:
    """The other public names of a family's modules, each with whether members are shown."""
    first = {}  # the first family with a cell of a module has the module's other names
    for family, (_, _, names) in FAMILIES.items():
        for cell in names:
            first.setdefault(getattr(cells, cell).__module__, family)
    made = set(cells_table.all_cells())
    return [
        (other, "true" if inspect.isclass(getattr(cells, other)) else "false")
        for other in cells.__all__
        if other not in made and first[getattr(cells, other).__module__] == name
    ]


def _count(name: str, kind: type) -> str:
    text = cells_table.parameters(kind) + cells_table.legend(cells_table.sizes_of(name))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def adds(record: dict[str, Any]) -> bool:
    """Whether a cell learned the adding problem: a tenth of the error of predicting 1."""
    return record["adding"] < 0.1 / 6


def _remembers(record: dict[str, Any] | None) -> str:
    """The columns for what a cell remembers; where it learned the task, the number is bold."""
    if record is None:
        return "<td></td><td></td>"
    values = (
        (f"{record['adding']:.4f}", adds(record)),
        (f"{100 * record['parity']:.0f} %", record["parity"] > 0.99),
    )
    return "".join(f"<td>{f'<b>{text}</b>' if learned else text}</td>" for text, learned in values)


def _names() -> list[str]:
    return [name for family in FAMILIES.values() for name in family.cells]


def catalogue() -> str:
    """The table of all cells, a row a cell, with the family as an attribute to filter by."""
    choices = [("", "all"), *((name, family.title) for name, family in FAMILIES.items())]
    buttons = "".join(
        f'<button type="button" class="md-button" data-family="{name}">{title}</button>'
        for name, title in choices
    )
    records = json.loads(MEMORY.read_text(encoding="utf-8"))["cells"]
    rows = [
        f'<tr data-family="{name}"><td><a href="{name}/#jaxrnn.{cell}"><code>{cell}</code></a></td>'
        f"<td>{idea(kind)}</td><td>{cells_table.paper(kind)}</td>"
        f"<td>{_count(cell, kind)}</td>"
        f"<td>{', '.join(cells_table.serving(kind))}</td>{_remembers(records.get(cell))}</tr>"
        for name, family in FAMILIES.items()
        for cell in family.cells
        for kind in [getattr(cells, cell)]
    ]
    heads = ["cell", "idea", "paper", "parameters", "engines"]
    heads += [f'<a href="#memory-tasks">{task}</a>' for task in ("adding", "parity")]
    head = "".join(f"<th>{text}</th>" for text in heads)
    return "\n".join(
        (
            f'<div class="families">{buttons}</div>',
            '<div class="md-typeset__scrollwrap"><div class="md-typeset__table">',
            f'<table class="cells"><thead><tr>{head}</tr></thead><tbody>',
            *rows,
            "</tbody></table></div></div>",
            ""
            if all(name in records for name in _names())
            else "<p>Without numbers: not measured yet.</p>",
        )
    )
