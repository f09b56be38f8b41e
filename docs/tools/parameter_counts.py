"""How many parameters a cell has, as a polynomial in its sizes, found from ``init``."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._cell import Cell

_SIZES = (4, 8, 12, 16)  # whole numbers of heads and of modules
_SMALL = {
    "num_heads": (1, 2, 4),
    "depth": (1, 2, 3, 4),
    "window": (1, 2, 3, 4),
    "kernel_length": (1, 2, 3, 4),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How a cell is made from sizes with names of one letter, I being the input's.

    Args:
        arguments: constructor's arguments by letter.
        fixed: further arguments of the constructor.
        degree: the highest power, of all letters together, in the number of parameters.
        space: the shape of an input before its features.
        note: what else the number of parameters is for.
    """

    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    degree: int = 2
    space: tuple[int, ...] = ()
    note: str = ""

    def choices(self, letter: str) -> tuple[int, ...]:
        """Values that a letter may have."""
        return _SMALL.get(self.arguments[letter], _SIZES)

    def small(self) -> dict[str, int]:
        """The smallest of them."""
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
    """The sizes of a cell: its hidden size, and others where the table knows of them."""
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
    """The number of parameters as a polynomial in the letters of the sizes: monomial -> factor.

    Found by exact elimination from as many made cells as there are monomials; I is never H.
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
    """As many rows as there are columns that determine the columns' factors."""
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
    """A polynomial in writing, with its common factor in front: ``4H(H + I + 1)``."""
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
    """The number of parameters in writing."""
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
