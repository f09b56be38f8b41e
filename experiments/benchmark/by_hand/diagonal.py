"""IndRNN, BRC and ParaGRU: no product of the state at all; each unit sees itself alone."""

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import Parts, hoisted, over_time
from jaxrnn.cells import ElmanState, GRUState

sigmoid = jax.nn.sigmoid


def _gradients(d_recurrent):
    """Gradients, where ``d_recurrent`` gives that of the diagonals from all steps."""

    def gradients(params, xs, before, after, kept, dzs):
        dz = jnp.concatenate(dzs, axis=-1)
        biases = params.bias.shape[0]
        dparams = params._replace(
            input_kernel=over_time(xs, dz),
            recurrent_kernel=d_recurrent(before.hidden, kept, dzs),
            bias=dz[..., :biases].sum((0, 1)),
        )
        return dparams, dz @ params.input_kernel.T

    return gradients


def _sum(*products):
    return jnp.concatenate([product.sum((0, 1)) for product in products])


# IndRNN, of rectified linear units ----------------------------------------------------------------


def _ind_inputs(params, xs):
    return xs @ params.input_kernel + params.bias


def _ind_forward(params):
    def step(state, z):
        (h,) = state
        return ElmanState(jnp.maximum(z + params.recurrent_kernel * h, 0)), ()

    return step


def _ind_backward(params):
    def step(dstate, before, after, kept):
        dz = jnp.where(after.hidden > 0, dstate.hidden, 0)
        return ElmanState(dz * params.recurrent_kernel), (dz,)

    return step


indrnn = hoisted(
    Parts(
        _ind_inputs, _ind_forward, _ind_backward, _gradients(lambda h, kept, dzs: _sum(dzs[0] * h))
    )
)


# BRC ----------------------------------------------------------------------------------------------


def _brc_inputs(params, xs):
    a, z, n = jnp.split(xs @ params.input_kernel, 3, axis=-1)
    b_a, b_z = jnp.split(params.bias, 2)
    return a + b_a, z + b_z, n


def _brc_forward(params):
    w_a, w_z = jnp.split(params.recurrent_kernel, 2)

    def step(state, inputs):
        (h,) = state
        a = 1 + jnp.tanh(inputs[0] + w_a * h)
        z = sigmoid(inputs[1] + w_z * h)
        n = jnp.tanh(inputs[2] + a * h)
        return GRUState(z * h + (1 - z) * n), (a, z, n)

    return step


def _brc_backward(params):
    w_a, w_z = jnp.split(params.recurrent_kernel, 2)

    def step(dstate, before, after, kept):
        (dh,), (h,), (a, z, n) = dstate, before, kept
        dn = dh * (1 - z) * (1 - n * n)
        da = dn * h * (1 - (a - 1) * (a - 1))
        dz = dh * (h - n) * z * (1 - z)
        return GRUState(dh * z + dn * a + da * w_a + dz * w_z), (da, dz, dn)

    return step


brc = hoisted(
    Parts(
        _brc_inputs,
        _brc_forward,
        _brc_backward,
        _gradients(lambda h, kept, dzs: _sum(dzs[0] * h, dzs[1] * h)),
    )
)


# ParaGRU ------------------------------------------------------------------------------------------


def _para_inputs(params, xs):
    return tuple(jnp.split(xs @ params.input_kernel + params.bias, 3, axis=-1))


def _para_forward(params):
    a_r, a_z, a_n = jnp.split(params.recurrent_kernel, 3)

    def step(state, inputs):
        (h,) = state
        r, z = sigmoid(inputs[0] + a_r * h), sigmoid(inputs[1] + a_z * h)
        n = jnp.tanh(inputs[2] + a_n * (h * r))
        return GRUState((1 - z) * h + z * n), (r, z, n)

    return step


def _para_backward(params):
    a_r, a_z, a_n = jnp.split(params.recurrent_kernel, 3)

    def step(dstate, before, after, kept):
        (dh,), (h,), (r, z, n) = dstate, before, kept
        dn = dh * z * (1 - n * n)
        dz = dh * (n - h) * z * (1 - z)
        dr = dn * a_n * h * r * (1 - r)
        return GRUState(dh * (1 - z) + dn * a_n * r + dr * a_r + dz * a_z), (dr, dz, dn)

    return step


para_gru = hoisted(
    Parts(
        _para_inputs,
        _para_forward,
        _para_backward,
        _gradients(
            lambda h, kept, dzs: _sum(dzs[0] * h, dzs[1] * h, dzs[2] * h * kept[0]),
        ),
    )
)
