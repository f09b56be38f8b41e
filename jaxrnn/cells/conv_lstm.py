"""The convolutional LSTM, in one to three spatial dimensions."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, state_dtype, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells.lstm import LSTMState


class ConvLSTMParams(NamedTuple):
    """Parameters of `ConvLSTM`; gates on the last axis in the order i, f, g, o."""

    input_kernel: Array  # [*kernel_shape, input, 4 * features]
    recurrent_kernel: Array  # [*kernel_shape, features, 4 * features]
    bias: Array  # [4 * features]


def _convolution(
    x: Array, kernel: Array, spatial_shape: tuple[int, ...], padding: str = "SAME"
) -> Array:
    """``x * kernel`` in the kernel's dtype, accumulated in the state's."""
    wanted = (*spatial_shape, kernel.shape[-2])
    batch_shape = x.shape[: max(0, x.ndim - len(wanted))]
    if x.shape[len(batch_shape) :] != wanted:
        raise ValueError(
            f"x has shape {x.shape}, but its last axes must be {wanted}: spatial_shape and the "
            "features the kernel takes; make the cell with the spatial_shape of the input, or pass "
            "its number of features to init"
        )
    wide = state_dtype(kernel.dtype)
    if x.dtype not in (kernel.dtype, wide):
        raise TypeError(
            f"x has dtype {x.dtype}, the kernel {kernel.dtype}; they must agree, because nothing "
            f"is promoted silently: cast one of them, e.g. x.astype('{kernel.dtype}')"
        )
    axes = "DHW"[-len(spatial_shape) :]
    result = jax.lax.conv_general_dilated(
        x.astype(kernel.dtype).reshape(math.prod(batch_shape), *wanted),
        kernel,
        window_strides=(1,) * len(spatial_shape),
        padding=padding,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        preferred_element_type=wide,
    )
    return result.reshape(*batch_shape, *result.shape[1:])


def _check_shape(name: str, shape: Any) -> None:
    if not isinstance(shape, tuple):
        raise TypeError(f"{name} must be a tuple of one to three ints, got {shape!r}")
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"{name} must have one to three spatial axes, got {shape!r}")
    for axis, size in enumerate(shape):
        check_size(f"{name}[{axis}]", size)


@frozen
class ConvLSTM:
    """The convolutional LSTM: the products of an LSTM are convolutions (*).

        i, f, o = σ(x * W + b + h * U)        (the blocks i, f, o)
        g = tanh(x * W + b + h * U)           (the block g)
        c' = f c + i g
        h' = o tanh(c')

    Args:
        features: features of the hidden state, the cell state and the output, at every point.
        kernel_shape: the spatial shape of W and U, one to three ints.
        spatial_shape: the spatial shape of the input, of the same length.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        kernel_init: initializer of W ``[*kernel_shape, input, features]``, drawn per gate; default:
            Glorot uniform.
        recurrent_init: initializer of U ``[*kernel_shape, features, features]``, drawn per gate;
            default: Glorot uniform.
        bias_init: initializer of b as ``[4, features]``, overriding ``forget_bias``.
        input_padding: the padding of x * W: ``"SAME"`` pads the input with zeros, ``"VALID"`` does
            not. h * U always has zero padding.

    Shapes:
        x ``[*batch, *spatial_shape, input]``, state ``LSTMState(hidden, cell)``, both ``[*batch,
        *state_shape, features]``, as is y; ``state_shape`` is ``spatial_shape``, or with
        ``"VALID"`` smaller by ``kernel_shape - 1``.

    Raises:
        TypeError, ValueError: ``features`` is not a positive int; ``kernel_shape`` or
            ``spatial_shape`` is not a tuple of one to three of them, or they differ in length;
            ``input_padding`` is neither of the two, or leaves no points.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.ConvLSTM(features=4, kernel_shape=(3, 3), spatial_shape=(8, 6))
        >>> params = cell.init(jax.random.key(0), input_size=2)
        >>> final, ys = rnn.unroll(cell, params, jnp.ones((5, 1, 8, 6, 2)))
        >>> ys.shape, params.input_kernel.shape
        ((5, 1, 8, 6, 4), (3, 3, 2, 16))

    References:
        X. Shi, Z. Chen, H. Wang, D.-Y. Yeung, W.-K. Wong and W.-C. Woo, "Convolutional LSTM
        network: a machine learning approach for precipitation nowcasting", 2015, eq. 3.

    Note:
        The paper's peepholes are omitted, as in Keras' `ConvLSTM1D`, `ConvLSTM2D` and
        `ConvLSTM3D`, which pack the gates in the same order. Flax packs i, g, f, o and adds 1 to f
        at run time. Kernels are not flipped: the usual cross-correlation.
    """

    features: int
    kernel_shape: tuple[int, ...]
    spatial_shape: tuple[int, ...]
    forget_bias: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.GlorotUniform()
    bias_init: Initializer | None = None
    input_padding: str = "SAME"

    def __post_init__(self):
        check_size("features", self.features)
        _check_shape("kernel_shape", self.kernel_shape)
        _check_shape("spatial_shape", self.spatial_shape)
        if len(self.kernel_shape) != len(self.spatial_shape):
            raise ValueError(
                "kernel_shape and spatial_shape must name the same axes, got "
                f"{self.kernel_shape} and {self.spatial_shape}"
            )
        if self.input_padding not in ("SAME", "VALID"):
            raise ValueError(f"input_padding must be 'SAME' or 'VALID', got {self.input_padding!r}")
        if min(self.state_shape) < 1:
            raise ValueError(
                f"spatial_shape must be at least kernel_shape={self.kernel_shape} with "
                f"input_padding='VALID', got {self.spatial_shape}"
            )

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The spatial shape of the state and the output."""
        if self.input_padding == "SAME":
            return self.spatial_shape
        pairs = zip(self.spatial_shape, self.kernel_shape, strict=True)
        return tuple(size - kernel + 1 for size, kernel in pairs)

    @property
    def output_size(self) -> int:
        """The number of output features at every point: ``features``."""
        return self.features

    @property
    def input_rank(self) -> int:
        """The spatial axes and the feature axis of an input."""
        return len(self.spatial_shape) + 1

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ConvLSTMParams:
        """Draws the parameters; ``input_size`` counts the features at every point."""
        dtype = check_init(key, input_size, dtype)
        kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
        bias_init = self.bias_init or initializers.ForgetBias(self.forget_bias)

        def packed(initializer, key, rows):
            shape = (*self.kernel_shape, rows, self.features)
            gates = [initializer(k, shape, dtype) for k in jax.random.split(key, 4)]
            return jnp.concatenate(gates, axis=-1)

        return ConvLSTMParams(
            packed(self.kernel_init, kernel_key, input_size),
            packed(self.recurrent_init, recurrent_key, self.features),
            packed_bias(bias_init, bias_key, self.features, 4, dtype),
        )

    def init_state(self, params: ConvLSTMParams, batch_shape: tuple[int, ...] = ()) -> LSTMState:
        """Returns zeros."""
        shape = (*batch_shape, *self.state_shape, self.features)
        dtype = state_dtype(params.bias.dtype)
        return LSTMState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def step(self, params: ConvLSTMParams, state: LSTMState, x: Array) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        h, c = state
        from_input = _convolution(x, params.input_kernel, self.spatial_shape, self.input_padding)
        from_state = _convolution(h, params.recurrent_kernel, self.state_shape)
        i, f, g, o = jnp.split(from_input + widen(params.bias) + from_state, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return LSTMState(h, c), h.astype(params.bias.dtype)
