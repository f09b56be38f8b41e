"""LSTM, CoupledLSTM, JANET and TwoSpeed: one product with the state per step, then pointwise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import Run, gates, gradients, hoisted, over_time
from experiments.benchmark.peers.two_speed import TwoSpeedState
from jaxrnn.cells import GRUState, LSTMState

sigmoid = jax.nn.sigmoid


def _one_product(count: int, steps: Callable) -> Run:
    """A cell whose steps are ``steps(product, transposed)``, the products with its kernel."""

    def dense(params):
        kernel, transposed = params.recurrent_kernel, params.recurrent_kernel.T
        return steps(lambda h: h @ kernel, lambda dz: dz @ transposed)

    recurrent = gradients(lambda before, after, saved, dzs: over_time(before.hidden, dzs[0]))
    return hoisted(gates(count), dense, recurrent)


def lstm_steps(product, transposed):
    """Both steps of an LSTM, for products that are dense or convolutions."""

    def forward(state, z):
        h, c = state
        u = jnp.split(product(h), 4, axis=-1)
        i, f, o = sigmoid(z[0] + u[0]), sigmoid(z[1] + u[1]), sigmoid(z[3] + u[3])
        g = jnp.tanh(z[2] + u[2])
        c = f * c + i * g
        t = jnp.tanh(c)
        return LSTMState(o * t, c), (i, f, g, o, t)

    def backward(dstate, before, after, saved):
        (dh, dc), (i, f, g, o, t) = dstate, saved
        dc = dc + dh * o * (1 - t * t)
        di, df, dg = dc * g * i * (1 - i), dc * before.cell * f * (1 - f), dc * i * (1 - g * g)
        dz = jnp.concatenate([di, df, dg, dh * t * o * (1 - o)], axis=-1)
        return LSTMState(transposed(dz), dc * f), (dz,)

    return forward, backward


def _coupled_steps(product, transposed):
    def forward(state, z):
        h, c = state
        u = jnp.split(product(h), 3, axis=-1)
        f, o, g = sigmoid(z[0] + u[0]), sigmoid(z[2] + u[2]), jnp.tanh(z[1] + u[1])
        c = f * c + (1 - f) * g
        t = jnp.tanh(c)
        return LSTMState(o * t, c), (f, g, o, t)

    def backward(dstate, before, after, saved):
        (dh, dc), (f, g, o, t) = dstate, saved
        dc = dc + dh * o * (1 - t * t)
        df, dg = dc * (before.cell - g) * f * (1 - f), dc * (1 - f) * (1 - g * g)
        dz = jnp.concatenate([df, dg, dh * t * o * (1 - o)], axis=-1)
        return LSTMState(transposed(dz), dc * f), (dz,)

    return forward, backward


def _janet_steps(product, transposed):  # with β = 1
    def forward(state, z):
        (h,) = state
        u = jnp.split(product(h), 2, axis=-1)
        s = z[0] + u[0]
        keep, write, n = sigmoid(s), sigmoid(1 - s), jnp.tanh(z[1] + u[1])
        return GRUState(keep * h + write * n), (keep, write, n)

    def backward(dstate, before, after, saved):
        (dh,), (keep, write, n) = dstate, saved
        ds = dh * (before.hidden * keep * (1 - keep) - n * write * (1 - write))
        dz = jnp.concatenate([ds, dh * write * (1 - n * n)], axis=-1)
        return GRUState(dh * keep + transposed(dz)), (dz,)

    return forward, backward


def _two_speed_steps(product, transposed):
    def forward(state, z):
        h, m = state
        u = jnp.split(product(h), 3, axis=-1)
        f, o, n = sigmoid(z[0] + u[0]), sigmoid(z[1] + u[1]), jnp.tanh(z[2] + u[2])
        m = (1 - f) * m + f * n
        return TwoSpeedState((1 - o) * h + o * m, m), (f, o, n)

    def backward(dstate, before, after, saved):
        (dh, dm), (h, m), (f, o, n) = dstate, before, saved
        dm = dm + dh * o
        df, do = dm * (n - m) * f * (1 - f), dh * (after.memory - h) * o * (1 - o)
        dz = jnp.concatenate([df, do, dm * f * (1 - n * n)], axis=-1)
        return TwoSpeedState(dh * (1 - o) + transposed(dz), dm * (1 - f)), (dz,)

    return forward, backward


lstm = _one_product(4, lstm_steps)
coupled_lstm = _one_product(3, _coupled_steps)
janet = _one_product(2, _janet_steps)
two_speed = _one_product(3, _two_speed_steps)
