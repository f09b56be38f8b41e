"""Gradients at full optimization and small odd shapes, against a miscompilation by XLA.

jaxlib 0.10.2 on AVX-512 vectorizes the gradient of a scan over n + z (h - n) wrongly in float64 at
batch 4, hidden 5. Cells are written in forms that are compiled correctly, which this sweep checks.
The reference is the same gradient at optimization level 0, without the faulty passes, which
test_cells_contract.py compares with finite differences.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import CELLS, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, optimizing_jit, split

TIME, BATCHES, SIZES = 3, range(1, 6), range(3, 10)
GATED = tuple(case for case in CELLS if isinstance(case.cell, rnn.GRU | rnn.LSTM))


def resized(case, size):
    """The case with another hidden size; None if heads or blocks do not divide it."""
    try:
        cell = dataclasses.replace(case.cell, **{case.size: size})
    except ValueError:
        return None
    return dataclasses.replace(case, cell=cell, name=f"{case} {size}")


def sum_of_rows(tree, axis, rows):
    """A weighted sum of the first rows of a batch, with the same weights for each row."""
    total = 0.0
    for leaf in split(tree)[0]:
        leaf = jnp.moveaxis(leaf, axis, 0)
        for part in (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,):
            weights = np.cos(np.arange(part[0].size) + 0.3).reshape(part.shape[1:])
            per_row = (weights * part).reshape(len(part), -1).sum(axis=1)
            total = total + (per_row * rows).sum()
    return total


def gradients(case):
    """The gradients of the selected rows with respect to parameters, state and inputs."""

    def loss(floats, join, rows):
        params, state, xs = join(floats)
        final, ys = rnn.unroll(case.cell, params, xs, state, engine=rnn.engines.Sequential())
        return sum_of_rows(final, 0, rows) + sum_of_rows(ys, 1, rows)

    def run(params, state, xs, rows):
        floats, join = split((params, state, xs))
        return join(jax.grad(loss)(floats, join, rows))

    return run


def check(case, batches, sizes):
    tried = 0
    most = max(batches)
    for sized in filter(None, (resized(case, size) for size in sizes)):
        params = random_params(sized)
        states, inputs = random_state(sized, (most,)), random_inputs(sized, (TIME, most))
        reference = jax.jit(gradients(sized))
        for batch in batches:
            rows = jnp.arange(most) < batch
            dparams, dstate, dxs = reference(params, states, inputs, rows.astype("float64"))
            state = jax.tree.map(lambda s: s[:batch], states)  # noqa: B023
            xs = jax.tree.map(lambda x: x[:, :batch], inputs)  # noqa: B023
            got = optimizing_jit(gradients(sized))(params, state, xs, jnp.ones(batch))
            want = (
                dparams,
                jax.tree.map(lambda s: s[:batch], dstate),  # noqa: B023
                jax.tree.map(lambda x: x[:, :batch], dxs),  # noqa: B023
            )
            try:
                assert_near(got, want, 1e-12)
            except AssertionError as error:
                raise AssertionError(f"{sized}, batch {batch}: {error}") from error
            tried += 1
    assert tried, "no hidden size fits this cell"


@pytest.mark.parametrize("case", GATED, ids=str)
def test_gradients_at_the_miscompiled_shape(case):
    check(case, (4,), (5,))


@pytest.mark.thorough
@pytest.mark.parametrize("case", CELLS, ids=str)
def test_gradients_at_all_small_shapes(case):
    check(case, BATCHES, SIZES)
