"""Generates the table of all cells from the code.

    python -m docs.tools.cells_table

Equations and papers come from the docstrings, numbers of parameters from ``init``, and engines from
their ``why_not``.
"""

import dataclasses
import inspect
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from docs.tools.pages import table
from jaxrnn import cells, engines, for_platforms
from jaxrnn._cell import Cell, input_rank

_PICKS = "auto"  # the module of the engine that selects among the others


def all_cells() -> dict[str, type]:
    """Every public cell by its name, grouped by module."""
    found = {name: getattr(cells, name) for name in cells.__all__}
    found = {name: kind for name, kind in found.items() if hasattr(kind, "step")}
    # Within a module by line.
    return dict(sorted(found.items(), key=lambda item: (item[1].__module__, _line(item[1]))))


def _line(kind: type) -> int:
    return inspect.getsourcelines(kind)[1]


# Equations and papers, from the docstring --------------------------------------------------------


def equations(kind: type) -> list[str]:
    """The equations of a docstring, without annotations."""
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


# Numbers of parameters, as polynomials in the sizes ----------------------------------------------

_SIZES = (4, 8, 12, 16)  # whole numbers of heads and of modules
_SMALL = {
    "num_heads": (1, 2, 4),
    "depth": (1, 2, 3, 4),
    "window": (1, 2, 3, 4),
    "kernel_length": (1, 2, 3, 4),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How to make a cell from sizes with one-letter names; I is the input size.

    Args:
        arguments: the constructor's arguments by letter.
        fixed: further arguments of the constructor.
        degree: the degree of the polynomial of the number of parameters.
        space: the spatial shape of an input.
        note: a further condition of the number of parameters.
    """

    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    degree: int = 2
    space: tuple[int, ...] = ()
    note: str = ""

    def choices(self, letter: str) -> tuple[int, ...]:
        """Possible values of a letter."""
        return _SMALL.get(self.arguments[letter], _SIZES)

    def small(self) -> dict[str, int]:
        """The smallest values."""
        return {letter: self.choices(letter)[0] for letter in self.arguments}

    def make(self, kind: type, values: Mapping[str, int]) -> Cell:
        """The cell of these sizes."""
        sizes: dict[str, Any] = {name: values[x] for x, name in self.arguments.items()}
        if "kernel_length" in sizes:
            sizes["kernel_shape"] = (sizes.pop("kernel_length"),)
        return kind(**sizes, **self.fixed)


_HIDDEN = {"H": "hidden_size"}
OTHERS = {
    "ProjectedLSTM": Sizes(_HIDDEN | {"P": "projection_size"}),
    "Jordan": Sizes(_HIDDEN | {"O": "output_size"}),
    "SCRN": Sizes(_HIDDEN | {"C": "context_size"}),
    "RecurrentHighway": Sizes(_HIDDEN | {"L": "depth"}, degree=3),
    "CfC": Sizes(_HIDDEN | {"B": "backbone_size"}),
    "LMU": Sizes(_HIDDEN | {"N": "order"}, {"theta": 10.0}),
    "ConvLSTM": Sizes(
        {"H": "features", "K": "kernel_length"}, {"spatial_shape": (5,)}, degree=3, space=(5,)
    ),
    "LRU": Sizes(_HIDDEN | {"O": "output_size"}),
    "S5": Sizes(_HIDDEN | {"O": "output_size"}),
    "SelectiveSSM": Sizes(_HIDDEN | {"N": "state_size", "R": "rank"}),
    "QRNN": Sizes(_HIDDEN | {"W": "window"}, degree=3),
    "GatedLinearAttention": Sizes(_HIDDEN | {"K": "key_size", "R": "gate_rank"}),
    "MLSTM": Sizes(_HIDDEN | {"K": "key_size", "N": "num_heads"}),
    "DeltaNet": Sizes(_HIDDEN | {"K": "key_size", "N": "num_heads"}),
    "GatedDeltaNet": Sizes(_HIDDEN | {"K": "key_size", "N": "num_heads"}),
    "SLSTM": Sizes(_HIDDEN, {"num_heads": 1}, note="one head"),
}


def sizes_of(name: str) -> Sizes:
    """The sizes of a cell: its hidden size, and those in `OTHERS`."""
    return OTHERS.get(name, Sizes(_HIDDEN))


def count(cell: Cell, input_size: int) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(cell, input_size)))


def shapes(cell: Cell, input_size: int) -> Any:
    """Shapes and dtypes of the parameters; nothing is drawn."""

    def init(key):
        return cell.init(key, input_size, jnp.float32)

    return jax.eval_shape(init, jax.random.key(0))


def polynomial(kind: type, sizes: Sizes) -> dict[tuple[str, ...], int]:
    """The number of parameters as a polynomial in the sizes: monomial -> factor.

    Solved from as many cells as there are monomials; I is never H.
    """
    letters = (*sizes.arguments, "I")
    monomials = [
        powers
        for degree in range(sizes.degree, -1, -1)
        for powers in itertools.combinations_with_replacement(letters, degree)
    ]
    values = [sizes.choices(letter)[: sizes.degree + 1] for letter in sizes.arguments]
    grid = itertools.product(*values, (1, 2, 3, 5)[: sizes.degree + 1])
    points = [dict(zip(letters, point, strict=True)) for point in grid]
    rows = np.array([[_value(m, p) for m in monomials] for p in points], float)
    chosen = _independent(rows)
    counts = [count(sizes.make(kind, points[k]), points[k]["I"]) for k in chosen]
    factors = np.rint(np.linalg.solve(rows[chosen], np.array(counts, float))).astype(int)
    found = {m: int(f) for m, f in zip(monomials, factors, strict=True) if f}
    check = {letter: sizes.choices(letter)[-1] for letter in sizes.arguments} | {"I": 7}
    if evaluate(found, check) != count(sizes.make(kind, check), check["I"]):
        raise ValueError(f"the parameters of {kind.__name__} are no such polynomial: {found}")
    return found


def _independent(rows: np.ndarray) -> list[int]:
    """As many linearly independent rows as there are columns."""
    chosen: list[int] = []
    for k in range(len(rows)):
        if np.linalg.matrix_rank(rows[[*chosen, k]]) > len(chosen):
            chosen.append(k)
        if len(chosen) == rows.shape[1]:
            break
    return chosen


def _value(monomial: tuple[str, ...], values: Mapping[str, int]) -> int:
    return math.prod(values[letter] for letter in monomial)


def evaluate(polynomial: Mapping[tuple[str, ...], int], values: Mapping[str, int]) -> int:
    """The value of a polynomial."""
    return sum(factor * _value(m, values) for m, factor in polynomial.items())


def formula(polynomial: Mapping[tuple[str, ...], int]) -> str:
    """Formats a polynomial with its common factor in front: ``4H(H + I + 1)``."""
    divisor = math.gcd(*polynomial.values())
    everywhere = {
        letter: min(monomial.count(letter) for monomial in polynomial)
        for letter in sorted({*itertools.chain(*polynomial)})
    }
    front = _term(divisor, Counter(everywhere))
    terms = [
        _term(factor // divisor, Counter(monomial) - Counter(everywhere))
        for monomial, factor in polynomial.items()
    ]
    if terms == ["1"]:
        return front
    inside = " + ".join(terms)
    return inside if front == "1" else f"{front}({inside})"


def _term(factor: int, powers: Counter[str]) -> str:
    letters = "".join(x + ("", "", "²", "³")[n] for x, n in powers.items() if n)
    return letters if letters and factor == 1 else f"{factor}{letters}"


def parameters(kind: type) -> str:
    """The formatted number of parameters."""
    sizes = sizes_of(kind.__name__)
    found = polynomial(kind, sizes)
    text = formula(found)
    values = sizes.small()
    square = values["H"] ** 2
    less = evaluate(found, values | {"I": values["H"]}) - count(
        sizes.make(kind, values), values["H"]
    )
    if not less:
        return text
    if less != square:
        raise ValueError(f"{kind.__name__} has {less} parameters less where I is H")
    return f"{text}; H² less where I = H"


# Engines --------------------------------------------------------------------------------------


def serving(kind: type) -> list[str]:
    """The names of the engines that run the cell, in float32 on a machine with a GPU."""
    sizes = sizes_of(kind.__name__)
    cell = sizes.make(kind, sizes.small())
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes(cell, 3))
    state = cell.init_state(params, (2,))
    xs = jnp.zeros((2, 2, *sizes.space, 3), jnp.float32)
    if len(sizes.space) + 1 != input_rank(cell):
        raise ValueError(f"{kind.__name__} takes inputs of rank {input_rank(cell)}")
    names = []
    # A GPU is assumed, so that only properties of the cell count.
    with for_platforms("cuda"):
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


def make_table() -> str:
    """The table of all cells in Markdown, with its legend."""
    made = all_cells()
    unknown = set(OTHERS) - set(made)
    if unknown:
        raise ValueError(f"there are no cells of the names {sorted(unknown)}")
    rows = [
        (
            f"`{name}`",
            "<br>".join(f"`{_escape(line)}`" for line in equations(kind)),
            _escape(paper(kind)),
            f"{parameters(kind)}{legend(sizes_of(name))}",
            ", ".join(serving(kind)),
        )
        for name, kind in made.items()
    ]
    return (
        f"{len(made)} cells. Of the letters, H is the first argument, I the input's size, and "
        "others stand for the arguments that the column of parameters names.\n\n"
        + table([("cell", "equations", "paper", "parameters", "engines"), *rows])
    )


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def legend(sizes: Sizes) -> str:
    """The legend of the letters other than H and I."""
    named = [f"{x}: `{name}`" for x, name in sizes.arguments.items() if x != "H"]
    named = [text.replace("`kernel_length`", "points of the kernel") for text in named]
    named += [sizes.note] if sizes.note else []
    return f" ({', '.join(named)})" if named else ""


if __name__ == "__main__":
    print(make_table(), end="")
