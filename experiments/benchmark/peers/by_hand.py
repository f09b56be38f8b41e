"""Two cells as a good engineer would hoist them by hand, in plain JAX.

The input product is taken for all steps before the loop, as one array a gate. A hand-written
derivative saves the activations of every step, leaves one product a step in the backward loop (two
for the cell that has two in its step), and takes each weight gradient in one product over time and
batch after it.
"""

import jax
import jax.numpy as jnp

from experiments.benchmark.peers import plain
from experiments.benchmark.peers.two_speed import TwoSpeedState
from experiments.benchmark.peers.work import JaxNetwork, Work, refusal
from jaxrnn.cells import GRUState


def _gate_inputs(params, xs):
    """The input product of all steps, an array a gate.

    Split here, not in the loop: there XLA's CPU compiler would fuse a slice of one packed array
    into the gates, and no longer vectorise them (measured: 31 ms for 56 ms at 128,32,128,256).
    """
    return tuple(jnp.split(xs @ params.input_kernel + params.bias, 3, axis=-1))


def _before(hs, first):
    """The value before each step, of values after each step `[time, ...]`."""
    return jnp.concatenate([first[None], hs[:-1]])


def _weight_gradient(inputs, dz):
    """Sum over time and batch of outer products, `[features, gates]`."""
    return jnp.einsum("tbi,tbg->ig", inputs, dz)


# Two-speed cell -----------------------------------------------------------------------------------


@jax.custom_vjp
def two_speed(params, state, xs):
    """Runs `TwoSpeed` over time: `(params, state, xs) -> (final_state, ys)`."""
    (hidden, memory), (ys, *_) = _two_speed_loop(params, state, xs)
    return TwoSpeedState(hidden, memory), ys


def _two_speed_loop(params, state, xs):
    def body(carry, z):
        hidden, memory = carry
        z_f, z_o, z_n = z
        u_f, u_o, u_n = jnp.split(hidden @ params.recurrent_kernel, 3, axis=-1)
        f, o, n = jax.nn.sigmoid(z_f + u_f), jax.nn.sigmoid(z_o + u_o), jnp.tanh(z_n + u_n)
        memory = (1 - f) * memory + f * n
        hidden = (1 - o) * hidden + o * memory
        return (hidden, memory), (hidden, memory, f, o, n)

    return jax.lax.scan(body, (state.hidden, state.memory), _gate_inputs(params, xs))


def _two_speed_forward(params, state, xs):
    (hidden, memory), saved = _two_speed_loop(params, state, xs)
    return (TwoSpeedState(hidden, memory), saved[0]), (params, state, xs, saved)


def _two_speed_backward(residuals, cotangents):
    params, state, xs, (hs, ms, fs, os, ns) = residuals
    d_final, dys = cotangents
    hs_before, ms_before = _before(hs, state.hidden), _before(ms, state.memory)
    transposed = params.recurrent_kernel.T

    def body(carry, step):
        dh, dm = carry
        dy, f, o, n, h, m, m_new = step
        dh = dh + dy
        dm = dm + dh * o
        dz = jnp.concatenate(
            [
                dm * (n - m) * f * (1 - f),
                dh * (m_new - h) * o * (1 - o),
                dm * f * (1 - n * n),
            ],
            axis=-1,
        )
        return (dh * (1 - o) + dz @ transposed, dm * (1 - f)), dz

    steps = (dys, fs, os, ns, hs_before, ms_before, ms)
    (dh, dm), dzs = jax.lax.scan(body, (d_final.hidden, d_final.memory), steps, reverse=True)
    d_params = params._replace(
        input_kernel=_weight_gradient(xs, dzs),
        recurrent_kernel=_weight_gradient(hs_before, dzs),
        bias=dzs.sum((0, 1)),
    )
    return d_params, TwoSpeedState(dh, dm), dzs @ params.input_kernel.T


two_speed.defvjp(_two_speed_forward, _two_speed_backward)


# Gated recurrent unit with its reset gate before the product --------------------------------------


@jax.custom_vjp
def reset_before_gru(params, state, xs):
    """Runs `ResetBeforeGRU` over time: `(params, state, xs) -> (final_state, ys)`."""
    hidden, (ys, *_) = _reset_loop(params, state, xs)
    return GRUState(hidden), ys


def _reset_kernels(params):
    hidden = params.recurrent_kernel.shape[0]
    return jnp.split(params.recurrent_kernel, [2 * hidden], axis=-1)


def _reset_loop(params, state, xs):
    gates, candidate = _reset_kernels(params)

    def body(h, inputs):
        z_r, z_z, z_n = inputs
        u_r, u_z = jnp.split(h @ gates, 2, axis=-1)
        r, z = jax.nn.sigmoid(z_r + u_r), jax.nn.sigmoid(z_z + u_z)
        n = jnp.tanh(z_n + (r * h) @ candidate)
        h = (1 - z) * n + z * h
        return h, (h, r, z, n)

    return jax.lax.scan(body, state.hidden, _gate_inputs(params, xs))


def _reset_forward(params, state, xs):
    hidden, saved = _reset_loop(params, state, xs)
    return (GRUState(hidden), saved[0]), (params, state, xs, saved)


def _reset_backward(residuals, cotangents):
    params, state, xs, (hs, rs, zs, ns) = residuals
    d_final, dys = cotangents
    hs_before = _before(hs, state.hidden)
    gates, candidate = (kernel.T for kernel in _reset_kernels(params))

    def body(dh, step):
        dy, r, z, n, h = step
        dh = dh + dy
        dn = dh * (1 - z) * (1 - n * n)
        d_reset = dn @ candidate
        dr = d_reset * h * r * (1 - r)
        dz = dh * (h - n) * z * (1 - z)
        d_gates = jnp.concatenate([dr, dz], axis=-1)
        return dh * z + d_reset * r + d_gates @ gates, (d_gates, dn)

    dh, (d_gates, dn) = jax.lax.scan(
        body, d_final.hidden, (dys, rs, zs, ns, hs_before), reverse=True
    )
    d_all = jnp.concatenate([d_gates, dn], axis=-1)
    d_recurrent = jnp.concatenate(
        [_weight_gradient(hs_before, d_gates), _weight_gradient(rs * hs_before, dn)], axis=-1
    )
    d_params = params._replace(
        input_kernel=_weight_gradient(xs, d_all),
        recurrent_kernel=d_recurrent,
        bias=d_all.sum((0, 1)),
    )
    return d_params, GRUState(dh), d_all @ params.input_kernel.T


reset_before_gru.defvjp(_reset_forward, _reset_backward)


CELLS = {"two-speed": two_speed, "reset-before-gru": reset_before_gru}


def why_not(work: Work) -> str | None:
    """Only what is written above: one layer forwards, in single precision."""
    if work.layers > 1 or work.bidirectional or work.dtype != "float32":
        return "is written for one layer in float32"
    return refusal(work, CELLS)


def build(work: Work) -> JaxNetwork:
    """The function of the cell, with the weights that the library's engines get."""
    weights, state = plain.draw(work, work.inputs)
    return JaxNetwork(
        work, CELLS[work.cell], weights, state, jnp.asarray(work.draw_inputs(), work.dtype)
    )
