"""IndRNN, BRC and ParaGRU: diagonal recurrences, without a product with the state."""

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import gates, gradients, hoisted
from jaxrnn.cells import ElmanState, GRUState

sigmoid = jax.nn.sigmoid


def _sum(*products):
    return jnp.concatenate([product.sum((0, 1)) for product in products])


def _ind_steps(params):  # of rectified linear units
    def forward(state, z):
        (h,) = state
        return ElmanState(jnp.maximum(z[0] + params.recurrent_kernel * h, 0)), ()

    def backward(dstate, before, after, saved):
        dz = jnp.where(after.hidden > 0, dstate.hidden, 0)
        return ElmanState(dz * params.recurrent_kernel), (dz,)

    return forward, backward


def _brc_inputs(params, xs):
    a, z, n = jnp.split(xs @ params.input_kernel, 3, axis=-1)
    b_a, b_z = jnp.split(params.bias, 2)
    return a + b_a, z + b_z, n


def _brc_steps(params):
    w_a, w_z = jnp.split(params.recurrent_kernel, 2)

    def forward(state, inputs):
        (h,) = state
        a = 1 + jnp.tanh(inputs[0] + w_a * h)
        z = sigmoid(inputs[1] + w_z * h)
        n = jnp.tanh(inputs[2] + a * h)
        return GRUState(z * h + (1 - z) * n), (a, z, n)

    def backward(dstate, before, after, saved):
        (dh,), (h,), (a, z, n) = dstate, before, saved
        dn = dh * (1 - z) * (1 - n * n)
        da = dn * h * (1 - (a - 1) * (a - 1))
        dz = dh * (h - n) * z * (1 - z)
        return GRUState(dh * z + dn * a + da * w_a + dz * w_z), (da, dz, dn)

    return forward, backward


def _para_steps(params):
    a_r, a_z, a_n = jnp.split(params.recurrent_kernel, 3)

    def forward(state, inputs):
        (h,) = state
        r, z = sigmoid(inputs[0] + a_r * h), sigmoid(inputs[1] + a_z * h)
        n = jnp.tanh(inputs[2] + a_n * (h * r))
        return GRUState((1 - z) * h + z * n), (r, z, n)

    def backward(dstate, before, after, saved):
        (dh,), (h,), (r, z, n) = dstate, before, saved
        dn = dh * z * (1 - n * n)
        dz = dh * (n - h) * z * (1 - z)
        dr = dn * a_n * h * r * (1 - r)
        return GRUState(dh * (1 - z) + dn * a_n * r + dr * a_r + dz * a_z), (dr, dz, dn)

    return forward, backward


def _ind_recurrent(before, after, saved, dzs):
    return _sum(dzs[0] * before.hidden)


def _brc_recurrent(before, after, saved, dzs):
    return _sum(dzs[0] * before.hidden, dzs[1] * before.hidden)


def _para_recurrent(before, after, saved, dzs):
    h = before.hidden
    return _sum(dzs[0] * h, dzs[1] * h, dzs[2] * h * saved[0])


indrnn = hoisted(gates(1), _ind_steps, gradients(_ind_recurrent))
brc = hoisted(_brc_inputs, _brc_steps, gradients(_brc_recurrent))
para_gru = hoisted(gates(3), _para_steps, gradients(_para_recurrent))
