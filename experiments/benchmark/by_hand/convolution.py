"""ConvLSTM in one, two and three space dimensions: one convolution in the loop."""

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import Parts, hoisted
from jaxrnn.cells import LSTMState

sigmoid = jax.nn.sigmoid


def _convolve(x, kernel):
    """``[batch, *space, features]`` by ``[*extent, features, channels]``, zeros around x."""
    axes = "DHW"[5 - kernel.ndim :]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1,) * len(axes),
        padding="SAME",
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def _together(x):
    """Time and batch as one axis."""
    return x.reshape(-1, *x.shape[2:])


def _kernel_gradient(x, kernel, dz):
    """The gradient of a kernel from all steps at once."""
    _, pull_back = jax.vjp(lambda k: _convolve(_together(x), k), kernel)
    return pull_back(_together(dz))[0]


def _input_gradient(x, kernel, dz):
    _, pull_back = jax.vjp(lambda x: _convolve(x, kernel), x)
    return pull_back(dz)[0]


def _inputs(params, xs):
    z = _convolve(_together(xs), params.input_kernel) + params.bias
    return tuple(jnp.split(z.reshape(*xs.shape[:2], *z.shape[1:]), 4, axis=-1))


def _forward(params):
    def step(state, z):
        h, c = state
        u = jnp.split(_convolve(h, params.recurrent_kernel), 4, axis=-1)
        i, f, o = sigmoid(z[0] + u[0]), sigmoid(z[1] + u[1]), sigmoid(z[3] + u[3])
        g = jnp.tanh(z[2] + u[2])
        c = f * c + i * g
        t = jnp.tanh(c)
        return LSTMState(o * t, c), (i, f, g, o, t)

    return step


def _backward(params):
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
        return LSTMState(_input_gradient(before.hidden, params.recurrent_kernel, dz), dc * f), dz

    return step


def _gradients(params, xs, before, after, kept, dzs):
    dparams = params._replace(
        input_kernel=_kernel_gradient(xs, params.input_kernel, dzs),
        recurrent_kernel=_kernel_gradient(before.hidden, params.recurrent_kernel, dzs),
        bias=dzs.sum(tuple(range(dzs.ndim - 1))),
    )
    dxs = _input_gradient(_together(xs), params.input_kernel, _together(dzs))
    return dparams, dxs.reshape(xs.shape)


conv_lstm = hoisted(Parts(_inputs, _forward, _backward, _gradients))
