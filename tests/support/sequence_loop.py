"""The sequence contract as a plain NumPy loop, row by row and step by step: the oracle of `unroll`.

It computes with complex numbers too, so that a derivative is one more run: the imaginary part of
f(z + i ε d) / ε, exact to rounding for ε = 1e-30.
"""

from typing import NamedTuple

import jax
import numpy as np


class Oracle(NamedTuple):
    """A cell for single examples, in NumPy."""

    step: object  # (params, state, x) -> (state, y)
    init_state: object  # params -> state


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def run_row(oracle, params, xs, state, mask, starts, reverse):
    """One row: its final state, and its outputs with zeros at skipped steps."""
    time = len(mask)
    ones = jax.tree.map(np.ones_like, at(xs, 0))
    _, y = oracle.step(params, oracle.init_state(params), ones)
    ys = [jax.tree.map(np.zeros_like, y)] * time
    before = time - 1 if reverse else -1  # the valid step processed before
    for t in reversed(range(time)) if reverse else range(time):
        if not mask[t]:
            continue
        between = starts[t + 1 : before + 1] if reverse else starts[before + 1 : t + 1]
        if between.any():
            state = oracle.init_state(params)
        state, ys[t] = oracle.step(params, state, at(xs, t))
        before = t
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *ys)


def run(oracle, params, xs, state, mask, starts, reverse=False):
    """A batch with one axis: ``(final_state, ys)`` with the layout of `jaxrnn.unroll`."""
    finals, outputs = [], []
    for row in range(mask.shape[1]):
        xs_row, mask_row, starts_row = at((xs, mask, starts), (slice(None), row))
        work = xs_row, at(state, row), mask_row, starts_row
        final, ys = run_row(oracle, params, *work, reverse)
        finals.append(final)
        outputs.append(ys)
    return (
        jax.tree.map(lambda *leaves: np.stack(leaves), *finals),
        jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *outputs),
    )
