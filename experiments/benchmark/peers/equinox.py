"""Equinox: its cells, written for one example, under `jax.vmap` inside one scan.

`jax.vmap` around the scan gives nearly the same program, and about the same times.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from experiments.benchmark.peers.work import JaxNetwork, Layer, Work, refusal, stack

CELLS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}


def why_not(work: Work) -> str | None:
    """Its cells only."""
    return refusal(work, CELLS)


def build(work: Work) -> JaxNetwork:
    """One scan a layer and direction."""

    def make_layer(input_size: int, reverse: bool) -> Layer:
        cell = CELLS[work.cell](input_size, work.hidden, dtype=work.dtype, key=jax.random.key(0))
        hidden = jax.ShapeDtypeStruct((work.batch, work.hidden), work.dtype)
        state = (hidden, hidden) if work.cell == "lstm" else hidden

        def apply(cell, state, xs):
            def body(state, x):
                state = jax.vmap(cell)(x, state)
                return state, state[0] if work.cell == "lstm" else state

            return jax.lax.scan(body, state, xs, reverse=reverse)

        return Layer(apply, work.fill(cell, "weights"), work.fill(state, "state"))

    return stack(work, make_layer, jnp.asarray(work.draw_inputs(), work.dtype))
