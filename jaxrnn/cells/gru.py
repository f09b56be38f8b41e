"""Gated recurrent units (GRU) in their two common forms.

Gates are packed on the last axis in the order r, z, n.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, split_columns, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import tanh
from jaxrnn.cells._dense import dense_params, zeros


class GRUParams(NamedTuple):
    """Parameters of `GRU`."""

    input_kernel: Array  # [input, 3 * hidden]
    recurrent_kernel: Array  # [hidden, 3 * hidden]
    bias: Array  # [3 * hidden]
    candidate_bias: Array  # [hidden], inside the product that r gates


class ResetBeforeGRUParams(NamedTuple):
    """Parameters of `ResetBeforeGRU`."""

    input_kernel: Array  # [input, 3 * hidden]
    recurrent_kernel: Array  # [hidden, 3 * hidden]
    bias: Array  # [3 * hidden]


class GRUState(NamedTuple):
    """State of `GRU` and related cells."""

    hidden: Array  # [*batch, hidden]


@frozen
class GRU:
    """The gated recurrent unit with the reset gate applied after the product, as in cuDNN.

        r, z = σ(x W + b + h U)               (the blocks r, z)
        n = tanh(x W_n + b_n + r (h U_n + b_hn))
        h' = (1 - z) n + z h

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[3, hidden]``, and of b_hn as the last row of another such
            draw; default: zeros.
        candidate_activation: the activation of n; default: tanh.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden [*batch, hidden])``, y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> bool((final.hidden == ys[-1]).all())
        True

    References:
        K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
        machine translation", 2014, eqs. 5 to 8 of its third version, with the reset gate as in
        its first version and in cuDNN.

    Note:
        The same as PyTorch's `nn.GRU`, Keras' ``reset_after=True`` and ONNX's
        ``linear_before_reset=1``. The paper has z h + (1 - z) n, as here, and no biases; in Haiku z
        and 1 - z are exchanged.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.Constant()
    candidate_activation: Callable[[Array], Array] = tanh

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> GRUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        key, bias_key = jax.random.split(key)
        # An initializer that knows the gates, such as Chrono, must see all three rows.
        candidate_bias = self.bias_init(bias_key, (3, self.hidden_size), dtype)[2]
        return GRUParams(*dense_params(self, key, input_size, dtype, (3, 3, 3)), candidate_bias)

    def init_state(self, params: GRUParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: GRUParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        h = state.hidden
        from_input = product(x, params.input_kernel) + widen(params.bias)
        from_state = product(h, params.recurrent_kernel)
        i_r, i_z, i_n = jnp.split(from_input, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(from_state, 3, axis=-1)
        r = jax.nn.sigmoid(i_r + h_r)
        z = jax.nn.sigmoid(i_z + h_z)
        n = self.candidate_activation(i_n + r * (h_n + widen(params.candidate_bias)))
        h = (1 - z) * n + z * h
        return GRUState(h), h.astype(params.bias.dtype)


@frozen
class ResetBeforeGRU:
    """The gated recurrent unit of the paper: the reset gate is applied before the product.

        r, z = σ(x W + b + h U)               (the blocks r, z)
        n = tanh(x W_n + b_n + (r h) U_n)
        h' = (1 - z) n + z h

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[3, hidden]``; default: zeros.
        candidate_activation: the activation of n; default: tanh.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden [*batch, hidden])``, y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.ResetBeforeGRU(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.recurrent_kernel.shape
        (4, 12)

    References:
        K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
        machine translation", 2014, third version, eqs. 5 to 8.

    Note:
        The same as Keras' ``reset_after=False`` and ONNX's ``linear_before_reset=0``. The paper has
        z h + (1 - z) n and no biases, as here; the first version of the paper is `GRU`.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.Constant()
    candidate_activation: Callable[[Array], Array] = tanh

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ResetBeforeGRUParams:
        """Draws the parameters."""
        return ResetBeforeGRUParams(*dense_params(self, key, input_size, dtype, (3, 3, 3)))

    def init_state(
        self, params: ResetBeforeGRUParams, batch_shape: tuple[int, ...] = ()
    ) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(
        self, params: ResetBeforeGRUParams, state: GRUState, x: Array
    ) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        h = state.hidden
        gate_kernel, candidate_kernel = split_columns(
            params.recurrent_kernel, (2 * self.hidden_size, self.hidden_size)
        )
        from_input = product(x, params.input_kernel) + widen(params.bias)
        i_r, i_z, i_n = jnp.split(from_input, 3, axis=-1)
        h_r, h_z = jnp.split(product(h, gate_kernel), 2, axis=-1)
        r = jax.nn.sigmoid(i_r + h_r)
        z = jax.nn.sigmoid(i_z + h_z)
        n = self.candidate_activation(i_n + product(r * h, candidate_kernel))
        h = (1 - z) * n + z * h
        return GRUState(h), h.astype(params.bias.dtype)
