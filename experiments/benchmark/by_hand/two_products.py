"""ResetBeforeGRU, MinimalGatedUnit and LEM: two products in the loop, one after the other."""

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import Parts, hoisted, over_time
from jaxrnn.cells import GRUState, LEMState

sigmoid = jax.nn.sigmoid


def _gates(number):
    """The input product of all steps, an array a gate."""

    def inputs(params, xs):
        return tuple(jnp.split(xs @ params.input_kernel + params.bias, number, axis=-1))

    return inputs


def _last(params):
    """The recurrent kernel without its last block, and that block."""
    rows, columns = params.recurrent_kernel.shape
    return jnp.split(params.recurrent_kernel, [columns - rows], axis=-1)


def _gradients(second):
    """Weight gradients, where ``second`` gives what the second product multiplies."""

    def gradients(params, xs, before, after, kept, dzs):
        d_first, d_last = dzs
        dz = jnp.concatenate([d_first, d_last], axis=-1)
        recurrent = [
            over_time(before.hidden, d_first),
            over_time(second(before, after, kept), d_last),
        ]
        dparams = params._replace(
            input_kernel=over_time(xs, dz),
            recurrent_kernel=jnp.concatenate(recurrent, axis=-1),
            bias=dz.sum((0, 1)),
        )
        return dparams, dz @ params.input_kernel.T

    return gradients


# ResetBeforeGRU -----------------------------------------------------------------------------------


def _reset_forward(params):
    gates, candidate = _last(params)

    def step(state, inputs):
        (h,) = state
        u_r, u_z = jnp.split(h @ gates, 2, axis=-1)
        r, z = sigmoid(inputs[0] + u_r), sigmoid(inputs[1] + u_z)
        n = jnp.tanh(inputs[2] + (r * h) @ candidate)
        return GRUState((1 - z) * n + z * h), (r, z, n)

    return step


def _reset_backward(params):
    gates, candidate = (kernel.T for kernel in _last(params))

    def step(dstate, before, after, kept):
        (dh,), (h,), (r, z, n) = dstate, before, kept
        dn = dh * (1 - z) * (1 - n * n)
        d_reset = dn @ candidate
        d_gates = [d_reset * h * r * (1 - r), dh * (h - n) * z * (1 - z)]
        d_gates = jnp.concatenate(d_gates, axis=-1)
        return GRUState(dh * z + d_reset * r + d_gates @ gates), (d_gates, dn)

    return step


reset_before_gru = hoisted(
    Parts(
        _gates(3),
        _reset_forward,
        _reset_backward,
        _gradients(lambda before, after, kept: kept[0] * before.hidden),
    )
)


# MinimalGatedUnit ---------------------------------------------------------------------------------


def _minimal_forward(params):
    gate, candidate = _last(params)

    def step(state, inputs):
        (h,) = state
        f = sigmoid(inputs[0] + h @ gate)
        n = jnp.tanh(inputs[1] + (f * h) @ candidate)
        return GRUState((1 - f) * h + f * n), (f, n)

    return step


def _minimal_backward(params):
    gate, candidate = (kernel.T for kernel in _last(params))

    def step(dstate, before, after, kept):
        (dh,), (h,), (f, n) = dstate, before, kept
        dn = dh * f * (1 - n * n)
        d_reset = dn @ candidate
        df = (dh * (n - h) + d_reset * h) * f * (1 - f)
        return GRUState(dh * (1 - f) + d_reset * f + df @ gate), (df, dn)

    return step


minimal_gated_unit = hoisted(
    Parts(
        _gates(2),
        _minimal_forward,
        _minimal_backward,
        _gradients(lambda before, after, kept: kept[0] * before.hidden),
    )
)


# LEM, with its Δt of 1 ----------------------------------------------------------------------------


def _lem_forward(params):
    first, last = _last(params)

    def step(state, inputs):
        y, z = state
        u_1, u_2, u_z = jnp.split(y @ first, 3, axis=-1)
        a, b, n = sigmoid(inputs[0] + u_1), sigmoid(inputs[1] + u_2), jnp.tanh(inputs[2] + u_z)
        z = (1 - a) * z + a * n
        q = jnp.tanh(inputs[3] + z @ last)
        return LEMState((1 - b) * y + b * q, z), (a, b, n, q)

    return step


def _lem_backward(params):
    first, last = (kernel.T for kernel in _last(params))

    def step(dstate, before, after, kept):
        (dy, dz), (y, z), (a, b, n, q) = dstate, before, kept
        dq = dy * b * (1 - q * q)
        dz = dz + dq @ last
        gates = (dz * (n - z) * a * (1 - a), dy * (q - y) * b * (1 - b), dz * a * (1 - n * n))
        gates = jnp.concatenate(gates, axis=-1)
        return LEMState(dy * (1 - b) + gates @ first, dz * (1 - a)), (gates, dq)

    return step


lem = hoisted(
    Parts(
        _gates(4),
        _lem_forward,
        _lem_backward,
        _gradients(lambda before, after, kept: after.memory),
    )
)
