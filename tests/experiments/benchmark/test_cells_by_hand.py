"""The cells by hand are the cells of the library, values and gradients, and are timed."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.benchmark import cells_by_hand
from experiments.benchmark.by_hand import peers
from tests.support.helpers import assert_near, quick_jit

SMALL = {"time": 4, "batch": 3, "inputs": 5, "hidden": 4}
SPACE = {"space_time": 3, "space_batch": 2, "points": 4, "features": 2}
PEERS = peers(hidden=4, points=4, features=2)


@pytest.mark.parametrize("name", PEERS)
def test_by_hand_is_the_cell(name):
    with jax.enable_x64(True):
        config = cells_by_hand.Config(**SMALL, **SPACE)
        work = jax.tree.map(
            lambda leaf: leaf.astype("float64"), cells_by_hand.work(config, PEERS[name])
        )
        for which in cells_by_hand.PASSES:
            both = cells_by_hand.functions(PEERS[name], which)
            found = quick_jit(lambda *work: {k: run(*work) for k, run in both.items()})(*work)  # noqa: B023
            assert_near(found["by hand"], found["Hoisted"], 1e-12)
            assert all(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_three_of_each_kind_are_timed():
    kinds = [peer.kind for peer in PEERS.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("one product", "two products", "diagonal", "convolution"), 3
    )
    console = Console(file=io.StringIO(), width=120)
    config = cells_by_hand.Config(cells=("BRC",), rounds=2, **SMALL, **SPACE)
    lines = cells_by_hand.main(config, console)
    assert [(line.name, line.which) for line in lines] == [("BRC", "forward"), ("BRC", "gradient")]
    assert all(line.by_hand > 0 and line.hoisted > 0 and line.ratio > 0 for line in lines)
    assert "diagonal" in console.file.getvalue()


def test_an_unknown_cell_is_named():
    with pytest.raises(ValueError, match="cells must be among LSTM, .*, got GRU"):
        cells_by_hand.Config(cells=("GRU",))
