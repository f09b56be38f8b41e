"""The catalogue of all cells: its table, its families and its equations in LaTeX."""

import math
import re

import pytest

import jaxrnn as rnn
from docs.tools import cells_table as catalogue
from docs.tools import families
from docs.tools.equations import aligned
from tests.support.cases import CELLS

CELL_BY_NAME = catalogue.all_cells()


@pytest.fixture(scope="module")
def table():
    return catalogue.make_table()


def test_every_cell_has_one_row(table):
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(CELL_BY_NAME)
    assert set(CELL_BY_NAME) == {type(case.cell).__name__ for case in CELLS}
    assert all(len(row.replace("\\|", "").strip("|").split("|")) == 5 for row in rows)


# Two options change the count and have no letter: a gate, and several heads of an SLSTM.
LETTERED = [
    case
    for case in CELLS
    if not getattr(case.cell, "gated", False) and not isinstance(case.cell, rnn.SLSTM)
]


@pytest.mark.thorough
@pytest.mark.parametrize("case", LETTERED, ids=str)
def test_the_formula_is_the_count_of_the_paper(case):
    cell, sizes = case.cell, catalogue.sizes_of(type(case.cell).__name__)
    values = {"I": case.input_size}
    for letter, name in sizes.arguments.items():
        values[letter] = getattr(cell, name, None) or math.prod(cell.kernel_shape)
    found = catalogue.polynomial(type(cell), sizes)
    square = values["H"] ** 2 if "where I = H" in catalogue.parameters(type(cell)) else 0
    less = square if values["I"] == values["H"] else 0
    assert catalogue.evaluate(found, values) - less == case.count(values["H"], values["I"])


def test_the_formula_of_an_slstm_is_that_of_one_head():
    assert catalogue.parameters(rnn.SLSTM) == "4H(H + I + 1)"


def test_formulas_are_written_with_their_common_factor_in_front():
    def of(text):
        return {tuple(m): f for m, f in text.items()}

    assert catalogue.formula(of({"HH": 4, "HI": 4, "H": 4})) == "4H(H + I + 1)"
    assert catalogue.formula(of({"HI": 3, "HH": 2, "H": 5, "": 2})) == "3HI + 2H² + 5H + 2"
    assert catalogue.formula(of({"HI": 2})) == "2HI"
    assert catalogue.formula(of({"HHI": 1, "HHH": 2})) == "H²(I + 2H)"


def test_engines_are_those_that_do_not_refuse():
    loops = {"Sequential", "Hoisted"}
    found = {
        kind: set(catalogue.serving(kind)) - {"Fused"}  # which depends on the version of JAX
        for kind in (rnn.GRU, rnn.LSTM, rnn.LRU, rnn.ClockworkRNN)
    }
    assert found[rnn.GRU] == loops | {"Newton"}
    assert found[rnn.LSTM] == loops | {"Newton", "CuDNN"}
    assert found[rnn.LRU] == loops | {"Newton", "Associative"}
    assert found[rnn.ClockworkRNN] == loops
    assert set(catalogue.serving(rnn.GatedLinearAttention)) >= {"Associative"}


def test_equations_and_papers_come_from_the_docstring():
    assert catalogue.equations(rnn.LSTM) == [
        "i, f, o = σ(x W + b + h U)",
        "g = tanh(x W + b + h U)",
        "c' = f c + i g",
        "h' = o tanh(c')",
    ]
    assert catalogue.paper(rnn.LSTM).startswith("Hochreiter and Schmidhuber, “Long short-term")
    assert catalogue.paper(rnn.Elman) == "Elman, “Finding structure in time”, 1990"
    assert catalogue.paper(rnn.SRU).startswith("Lei et al., “Simple recurrent units")


def test_every_cell_is_in_one_family():
    named = [cell for family in families.FAMILIES.values() for cell in family.cells]
    assert sorted(named) == sorted(CELL_BY_NAME)


def test_the_pages_of_the_families_have_every_name_of_the_cells():
    text = "\n".join(families.page(name) for name in families.FAMILIES)
    assert sorted(re.findall(r"^::: jaxrnn\.(\w+)$", text, re.M)) == sorted(rnn.cells.__all__)


def test_every_equation_has_its_latex():
    for kind in CELL_BY_NAME.values():
        rows = aligned(catalogue.equations(kind)).splitlines()[1:-1]
        assert len(rows) == len(catalogue.equations(kind))
        assert all(row.count("{") == row.count("}") and " &" in row for row in rows), rows
        assert all(character.isascii() for row in rows for character in row)


@pytest.mark.parametrize(
    "text, want",
    [
        ("h' = (1 - z) n + z h", "h ' &= ( 1 - z ) \\, n + z \\, h"),
        ("S'ᵀ q", "S ^{\\prime\\top} \\, q"),
        ("√(1 - a²) (i x)", "\\sqrt{1 - a ^{2}} \\, ( i \\, x )"),
        ("h'_dn = exp(Δ_d A_dn)", "h ' _{dn} &= \\exp ( \\Delta _{d} \\, A _{dn} )"),
        ("s_{l-1} R_h,l", "s _{l - 1} \\, R _{h,l}"),
        ("z = x      (`x_k` of step k)", "z &= x && \\text{(x\\_k of step k)}"),
        ("f̃ = Λ⁻¹", "\\tilde{f} &= \\Lambda ^{-1}"),
    ],
)
def test_plain_text_becomes_latex(text, want):
    assert aligned([text]).splitlines()[1] == want


@pytest.mark.parametrize("text", ["h = ♥ x", "h = foo(x)", "a_(b"])
def test_unknown_symbols_are_refused(text):
    with pytest.raises(ValueError, match="equation"):
        aligned([text])
