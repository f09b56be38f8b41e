"""The arithmetic of docs/scaling.md: the table is current, and agrees with real parameters."""

import jax
import pytest

import jaxrnn as rnn
from docs.tools import scaling_table
from tests.support.helpers import on_four_devices


def test_the_table_is_current():
    text = (scaling_table.DOCS / "scaling.md").read_text("utf-8")
    assert scaling_table.make_table() in text, "run python -m docs.tools.scaling_table"


def test_parameters_are_counted_as_the_cells_have_them():
    """Up to what is not in a product: biases and eigenvalues."""

    def size(cell, inputs):
        params = jax.eval_shape(lambda key: cell.init(key, inputs), jax.random.key(0))
        matrices = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        return sum(leaf.size * (2 if leaf.dtype.kind == "c" else 1) for leaf in matrices)

    first, second = size(rnn.LSTM(64), 32), size(rnn.LSTM(64), 64)
    counted = scaling_table.lstm(layers=2, hidden=64, embed=32, vocabulary=10)
    assert counted.weights == first + second + 64 * 10
    counted = scaling_table.lru(layers=3, hidden=64, vocabulary=10)
    assert counted.weights == 3 * (size(rnn.LRU(64), 64) + 2 * 64 * 64) + 64 * 10
    assert counted.embedding == 640


@pytest.mark.thorough
def test_the_memory_of_devices_is_what_the_compiler_counts():
    """On four devices, in a separate process."""
    done = on_four_devices("tests.support.memory_of_devices")
    assert done.returncode == 0, done.stderr
