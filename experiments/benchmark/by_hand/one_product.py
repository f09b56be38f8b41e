"""LSTM, CoupledLSTM and JANET: one product of the state in the loop, then pointwise."""

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import Parts, hoisted, over_time
from jaxrnn.cells import GRUState, LSTMState

sigmoid = jax.nn.sigmoid


def _gates(number):
    """The input product of all steps, an array a gate."""

    def inputs(params, xs):
        return tuple(jnp.split(xs @ params.input_kernel + params.bias, number, axis=-1))

    return inputs


def _gradients(params, xs, before, after, kept, dzs):
    dparams = params._replace(
        input_kernel=over_time(xs, dzs),
        recurrent_kernel=over_time(before.hidden, dzs),
        bias=dzs.sum((0, 1)),
    )
    return dparams, dzs @ params.input_kernel.T


# LSTM ---------------------------------------------------------------------------------------------


def _lstm_forward(params):
    def step(state, z):
        h, c = state
        u = jnp.split(h @ params.recurrent_kernel, 4, axis=-1)
        i, f, o = sigmoid(z[0] + u[0]), sigmoid(z[1] + u[1]), sigmoid(z[3] + u[3])
        g = jnp.tanh(z[2] + u[2])
        c = f * c + i * g
        t = jnp.tanh(c)
        return LSTMState(o * t, c), (i, f, g, o, t)

    return step


def _lstm_backward(params):
    transposed = params.recurrent_kernel.T

    def step(dstate, before, after, kept):
        dh, dc = dstate
        i, f, g, o, t = kept
        dc = dc + dh * o * (1 - t * t)
        gates = (
            dc * g * i * (1 - i),
            dc * before.cell * f * (1 - f),
            dc * i * (1 - g * g),
            dh * t * o * (1 - o),
        )
        dz = jnp.concatenate(gates, axis=-1)
        return LSTMState(dz @ transposed, dc * f), dz

    return step


lstm = hoisted(Parts(_gates(4), _lstm_forward, _lstm_backward, _gradients))


# CoupledLSTM --------------------------------------------------------------------------------------


def _coupled_forward(params):
    def step(state, z):
        h, c = state
        u = jnp.split(h @ params.recurrent_kernel, 3, axis=-1)
        f, o, g = sigmoid(z[0] + u[0]), sigmoid(z[2] + u[2]), jnp.tanh(z[1] + u[1])
        c = f * c + (1 - f) * g
        t = jnp.tanh(c)
        return LSTMState(o * t, c), (f, g, o, t)

    return step


def _coupled_backward(params):
    transposed = params.recurrent_kernel.T

    def step(dstate, before, after, kept):
        dh, dc = dstate
        f, g, o, t = kept
        dc = dc + dh * o * (1 - t * t)
        gates = (
            dc * (before.cell - g) * f * (1 - f),
            dc * (1 - f) * (1 - g * g),
            dh * t * o * (1 - o),
        )
        dz = jnp.concatenate(gates, axis=-1)
        return LSTMState(dz @ transposed, dc * f), dz

    return step


coupled_lstm = hoisted(Parts(_gates(3), _coupled_forward, _coupled_backward, _gradients))


# JANET, with its β of 1 ---------------------------------------------------------------------------


def _janet_forward(params):
    def step(state, z):
        (h,) = state
        u = jnp.split(h @ params.recurrent_kernel, 2, axis=-1)
        s = z[0] + u[0]
        keep, write, n = sigmoid(s), sigmoid(1 - s), jnp.tanh(z[1] + u[1])
        return GRUState(keep * h + write * n), (keep, write, n)

    return step


def _janet_backward(params):
    transposed = params.recurrent_kernel.T

    def step(dstate, before, after, kept):
        (dh,) = dstate
        keep, write, n = kept
        ds = dh * (before.hidden * keep * (1 - keep) - n * write * (1 - write))
        dz = jnp.concatenate([ds, dh * write * (1 - n * n)], axis=-1)
        return GRUState(dh * keep + dz @ transposed), dz

    return step


janet = hoisted(Parts(_gates(2), _janet_forward, _janet_backward, _gradients))
