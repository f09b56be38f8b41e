"""ResetBeforeGRU, MinimalGatedUnit and LEM: two products with the state per step, in sequence."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import Run, gates, gradients, hoisted, over_time
from jaxrnn.cells import GRUState, LEMState

sigmoid = jax.nn.sigmoid


def _two_products(count: int, steps: Callable, second: Callable) -> Run:
    """A cell whose recurrent kernel ends with a block of its own, for the second product.

    Args:
        count: gates.
        steps: ``(first, last, first_transposed, last_transposed) -> (forward, backward)``.
        second: ``(before, after, saved)`` to what the last block multiplies.
    """

    def dense(params):
        rows, columns = params.recurrent_kernel.shape
        first, last = jnp.split(params.recurrent_kernel, [columns - rows], axis=-1)
        return steps(first, last, first.T, last.T)

    def recurrent(before, after, saved, dzs):
        parts = (before.hidden, dzs[0]), (second(before, after, saved), dzs[1])
        return jnp.concatenate([over_time(*part) for part in parts], axis=-1)

    return hoisted(gates(count), dense, gradients(recurrent))


def _reset_hidden(before, after, saved):
    return saved[0] * before.hidden


def _reset_steps(first, last, first_transposed, last_transposed):
    def forward(state, inputs):
        (h,) = state
        u_r, u_z = jnp.split(h @ first, 2, axis=-1)
        r, z = sigmoid(inputs[0] + u_r), sigmoid(inputs[1] + u_z)
        n = jnp.tanh(inputs[2] + (r * h) @ last)
        return GRUState((1 - z) * n + z * h), (r, z, n)

    def backward(dstate, before, after, saved):
        (dh,), (h,), (r, z, n) = dstate, before, saved
        dn = dh * (1 - z) * (1 - n * n)
        d_reset = dn @ last_transposed
        d_gates = [d_reset * h * r * (1 - r), dh * (h - n) * z * (1 - z)]
        d_gates = jnp.concatenate(d_gates, axis=-1)
        return GRUState(dh * z + d_reset * r + d_gates @ first_transposed), (d_gates, dn)

    return forward, backward


def _minimal_steps(first, last, first_transposed, last_transposed):
    def forward(state, inputs):
        (h,) = state
        f = sigmoid(inputs[0] + h @ first)
        n = jnp.tanh(inputs[1] + (f * h) @ last)
        return GRUState((1 - f) * h + f * n), (f, n)

    def backward(dstate, before, after, saved):
        (dh,), (h,), (f, n) = dstate, before, saved
        dn = dh * f * (1 - n * n)
        d_reset = dn @ last_transposed
        df = (dh * (n - h) + d_reset * h) * f * (1 - f)
        return GRUState(dh * (1 - f) + d_reset * f + df @ first_transposed), (df, dn)

    return forward, backward


def _lem_steps(first, last, first_transposed, last_transposed):  # with Δt = 1
    def forward(state, inputs):
        y, z = state
        u_1, u_2, u_z = jnp.split(y @ first, 3, axis=-1)
        a, b, n = sigmoid(inputs[0] + u_1), sigmoid(inputs[1] + u_2), jnp.tanh(inputs[2] + u_z)
        z = (1 - a) * z + a * n
        q = jnp.tanh(inputs[3] + z @ last)
        return LEMState((1 - b) * y + b * q, z), (a, b, n, q)

    def backward(dstate, before, after, saved):
        (dy, dz), (y, z), (a, b, n, q) = dstate, before, saved
        dq = dy * b * (1 - q * q)
        dz = dz + dq @ last_transposed
        d_gates = (dz * (n - z) * a * (1 - a), dy * (q - y) * b * (1 - b), dz * a * (1 - n * n))
        d_gates = jnp.concatenate(d_gates, axis=-1)
        return LEMState(dy * (1 - b) + d_gates @ first_transposed, dz * (1 - a)), (d_gates, dq)

    return forward, backward


reset_before_gru = _two_products(3, _reset_steps, _reset_hidden)
minimal_gated_unit = _two_products(2, _minimal_steps, _reset_hidden)
lem = _two_products(4, _lem_steps, lambda before, after, saved: after.memory)
