"""The handwritten cells are the cells of the library, in values and gradients, and are timed."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import by_hand, cells_by_hand
from experiments.benchmark.by_hand import ByHand, diagonal, one_product
from experiments.benchmark.peers.two_speed import two_speed_cell
from experiments.benchmark.timing import Comparison
from tests.support.helpers import assert_near

SMALL = {"time": 4, "batch": 3, "inputs": 5, "hidden": 4}
SPACE = {"space_time": 3, "space_batch": 2, "points": 4, "features": 2}
CELLS = by_hand.cells(hidden=4, points=4, features=2)
TWO_SPEED = {"two-speed": ByHand("one product", two_speed_cell(4), one_product.two_speed)}


@pytest.mark.parametrize("name", CELLS | TWO_SPEED)
def test_by_hand_is_the_cell(name):
    entry = (CELLS | TWO_SPEED)[name]
    with jax.enable_x64(True):
        arguments = jax.tree.map(
            lambda leaf: leaf.astype("float64"),
            cells_by_hand.draw(cells_by_hand.Config(**SMALL, **SPACE), entry.cell),
        )

        def both_passes(*arguments):
            found = {}
            for title, run in cells_by_hand.functions(entry, "forward").items():
                results, pull = jax.vjp(run, *arguments)
                found[title] = results, pull(jax.tree.map(lambda y: y + 0.5, results))
            return found

        found = jax.jit(both_passes)(*arguments)
        assert_near(found["by hand"], found["Hoisted"], 1e-12)
        assert all(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_three_of_each_kind_are_timed():
    kinds = [entry.kind for entry in CELLS.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("one product", "two products", "diagonal", "convolution"), 3
    )
    console = Console(file=io.StringIO(), width=120)
    config = cells_by_hand.Config(cells=("BRC",), rounds=2, **SMALL, **SPACE)
    lines = cells_by_hand.main(config, console)
    assert [(line.name, line.which) for line in lines] == [("BRC", "forward"), ("BRC", "gradient")]
    assert all(min(line.times) > 0 for line in lines)
    assert "diagonal" in console.file.getvalue()


def test_the_ratio_is_that_of_hoisted_to_by_hand(monkeypatch):
    def compare(first, second, **options):
        assert first.__name__ == "hoisted" and second is diagonal.brc
        return Comparison(0.002, 0.001, 2.0)

    monkeypatch.setattr(cells_by_hand, "compile_program", lambda function, *_, **__: function)
    monkeypatch.setattr(cells_by_hand, "compare", compare)
    monkeypatch.setattr(cells_by_hand, "PASSES", ("forward",))
    console = Console(file=io.StringIO(), width=120)
    cells_by_hand.main(cells_by_hand.Config(cells=("BRC",), **SMALL), console)
    columns = console.file.getvalue().split("BRC")[1].splitlines()[0].split("│")
    assert [column.strip() for column in columns[1:-1]] == ["forward", "1.00", "2.00", "2.00"]


def test_a_wrong_gradient_is_not_timed():
    def run(*arguments):
        state, ys = diagonal.brc(*arguments)
        return state, ys + 0.01 * (ys - jax.lax.stop_gradient(ys))

    entry, config = ByHand("diagonal", rnn.BRC(4), run), cells_by_hand.Config(rounds=1, **SMALL)
    with pytest.raises(ArithmeticError, match="expected results that agree to 1e-04"):
        cells_by_hand.measure(config, "BRC", entry, "gradient")


def test_an_unknown_cell_is_named():
    with pytest.raises(ValueError, match="cells must be among LSTM, .*, got GRU"):
        cells_by_hand.Config(cells=("GRU",))
