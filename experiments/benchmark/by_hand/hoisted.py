"""The frame that all cells by hand share: two loops, and what stands before and after them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Run = Callable[..., tuple[Any, Any]]
"""``(params, state, xs) -> (final_state, ys)``."""


class Parts(NamedTuple):
    """A cell whose output is the first part of its state, taken apart by hand."""

    inputs: Callable[[Any, Any], Any]
    """``(params, xs) -> zs``: what needs no state, for all steps; arrays ``[time, ...]``."""
    forward: Callable[[Any], Callable]
    """``params -> step``, with ``step(state, z) -> (state, kept)``; kept for the backward pass."""
    backward: Callable[[Any], Callable]
    """``params -> step``, with ``step(dstate, before, after, kept) -> (dstate, dz)``."""
    gradients: Callable[..., tuple[Any, Any]]
    """``(params, xs, before, after, kept, dzs) -> (dparams, dxs)``, for all steps at once."""


def before(states: Any, first: Any) -> Any:
    """The states before each step, of the states after each step."""
    return jax.tree.map(lambda s, f: jnp.concatenate([f[None], s[:-1]]), states, first)


def over_time(left: Any, right: Any) -> Any:
    """The sum over time and batch of outer products, ``[features, gates]``."""
    return jnp.einsum("tbi,tbg->ig", left, right)


def hoisted(parts: Parts) -> Run:
    """The cell over time, with its derivative."""

    @jax.custom_vjp
    def run(params, state, xs):
        return loop(params, state, xs, keep=False)

    def loop(params, state, xs, keep):
        step = parts.forward(params)

        def body(state, z):
            state, kept = step(state, z)
            return state, (state, kept) if keep else state[0]

        return jax.lax.scan(body, state, parts.inputs(params, xs))

    def forward(params, state, xs):
        final, (states, kept) = loop(params, state, xs, keep=True)
        return (final, states[0]), (params, state, xs, states, kept)

    def backward(residuals, cotangents):
        params, state, xs, after, kept = residuals
        dfinal, dys = cotangents
        step = parts.backward(params)
        first = before(after, state)

        def body(dstate, at):
            dy, *rest = at
            dstate = type(dstate)(dstate[0] + dy, *dstate[1:])
            return step(dstate, *rest)

        dstate, dzs = jax.lax.scan(body, dfinal, (dys, first, after, kept), reverse=True)
        dparams, dxs = parts.gradients(params, xs, first, after, kept, dzs)
        return dparams, dstate, dxs

    run.defvjp(forward, backward)
    return run
