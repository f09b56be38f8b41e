"""The loops that all handwritten cells share, with their derivative."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Run = Callable[..., tuple[Any, Any]]
"""``(params, state, xs) -> (final_state, ys)``."""


def hoisted(
    inputs: Callable[[Any, Any], Any],
    steps: Callable[[Any], tuple[Callable, Callable]],
    gradients: Callable[..., tuple[Any, Any]],
) -> Run:
    """A cell over time, with a handwritten derivative. Its output is the first part of its state.

    Args:
        inputs: ``(params, xs) -> zs``: what does not depend on the state, for all steps; arrays
            ``[time, ...]``.
        steps: ``params -> (forward, backward)``, with ``forward(state, z) -> (state, saved)`` and
            ``backward(dstate, before, after, saved) -> (dstate, dz)``, where ``saved`` holds the
            activations that the backward pass needs.
        gradients: ``(params, xs, before, after, saved, dzs) -> (dparams, dxs)``, for all steps at
            once.
    """

    @jax.custom_vjp
    def run(params, state, xs):
        return loop(params, state, xs, save=False)

    def loop(params, state, xs, save):
        step, _ = steps(params)

        def body(state, z):
            state, saved = step(state, z)
            return state, (state, saved) if save else state[0]

        return jax.lax.scan(body, state, inputs(params, xs))

    def forward(params, state, xs):
        final, (states, saved) = loop(params, state, xs, save=True)
        return (final, states[0]), (params, state, xs, states, saved)

    def backward(residuals, cotangents):
        params, state, xs, after, saved = residuals
        dfinal, dys = cotangents
        _, step = steps(params)
        before = jax.tree.map(lambda s, f: jnp.concatenate([f[None], s[:-1]]), after, state)

        def body(dstate, at):
            dy, *rest = at
            dstate = type(dstate)(dstate[0] + dy, *dstate[1:])
            return step(dstate, *rest)

        dstate, dzs = jax.lax.scan(body, dfinal, (dys, before, after, saved), reverse=True)
        dparams, dxs = gradients(params, xs, before, after, saved, dzs)
        return dparams, dstate, dxs

    run.defvjp(forward, backward)
    return run


def gates(count: int) -> Callable[[Any, Any], Sequence[jax.Array]]:
    """The input product of all steps, one array per gate.

    The split is outside the loop because XLA's CPU compiler would fuse a slice of one packed array
    into the gates and no longer vectorize them (31 ms instead of 56 ms at 128,32,128,256).
    """
    return lambda params, xs: tuple(
        jnp.split(xs @ params.input_kernel + params.bias, count, axis=-1)
    )


def gradients(recurrent: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Gradients of a cell with a dense input kernel; ``dzs`` has one array per group of gates.

    Args:
        recurrent: ``(before, after, saved, dzs) -> drecurrent_kernel``.
    """

    def of_all_steps(params, xs, before, after, saved, dzs):
        dz = jnp.concatenate(dzs, axis=-1)
        dparams = params._replace(
            input_kernel=over_time(xs, dz),
            recurrent_kernel=recurrent(before, after, saved, dzs),
            bias=dz[..., : len(params.bias)].sum((0, 1)),  # the last gate may have no bias
        )
        return dparams, dz @ params.input_kernel.T

    return of_all_steps


def over_time(left: jax.Array, right: jax.Array) -> jax.Array:
    """The sum of outer products over time and batch, ``[features, gates]``."""
    return jnp.einsum("tbi,tbg->ig", left, right)
