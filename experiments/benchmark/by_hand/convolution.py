"""ConvLSTM in one, two and three space dimensions: one convolution with the state per step."""

import jax
import jax.numpy as jnp

from experiments.benchmark.by_hand.hoisted import hoisted
from experiments.benchmark.by_hand.one_product import lstm_steps


def _convolve(x, kernel):
    """``[batch, *space, features]`` by ``[*extent, features, channels]``, zero-padded."""
    axes = "DHW"[5 - kernel.ndim :]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1,) * len(axes),
        padding="SAME",
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def _merge_time(x):
    """Time and batch as one axis."""
    return x.reshape(-1, *x.shape[2:])


def _kernel_gradient(x, kernel, dz):
    """The gradient of a kernel from all steps at once."""
    return jax.linear_transpose(lambda k: _convolve(_merge_time(x), k), kernel)(_merge_time(dz))[0]


def _input_gradient(kernel, dz):
    x = jax.ShapeDtypeStruct((*dz.shape[:-1], kernel.shape[-2]), dz.dtype)
    return jax.linear_transpose(lambda x: _convolve(x, kernel), x)(dz)[0]


def _inputs(params, xs):
    z = _convolve(_merge_time(xs), params.input_kernel) + params.bias
    return tuple(jnp.split(z.reshape(*xs.shape[:2], *z.shape[1:]), 4, axis=-1))


def _steps(params):
    kernel = params.recurrent_kernel
    return lstm_steps(lambda h: _convolve(h, kernel), lambda dz: _input_gradient(kernel, dz))


def _gradients(params, xs, before, after, saved, dzs):
    (dz,) = dzs
    dparams = params._replace(
        input_kernel=_kernel_gradient(xs, params.input_kernel, dz),
        recurrent_kernel=_kernel_gradient(before.hidden, params.recurrent_kernel, dz),
        bias=dz.sum(tuple(range(dz.ndim - 1))),
    )
    dxs = _input_gradient(params.input_kernel, _merge_time(dz))
    return dparams, dxs.reshape(xs.shape)


conv_lstm = hoisted(_inputs, _steps, _gradients)
