"""Cells with layer normalization inside the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import relu
from jaxrnn.cells._dense import zeros
from jaxrnn.cells.gru import GRUState
from jaxrnn.cells.lstm import LSTMState


class LayerNormLSTMParams(NamedTuple):
    """Parameters of `LayerNormLSTM`; gates in the order i, f, g, o."""

    input_kernel: Array  # [input, 4 * hidden]
    recurrent_kernel: Array  # [hidden, 4 * hidden]
    bias: Array  # [4 * hidden]
    input_scale: Array  # [4 * hidden]
    recurrent_scale: Array  # [4 * hidden]
    cell_scale: Array  # [hidden]
    cell_bias: Array  # [hidden]


class LightGRUParams(NamedTuple):
    """Parameters of `LightGRU`; gates in the order z, n."""

    input_kernel: Array  # [input, 2 * hidden]
    recurrent_kernel: Array  # [hidden, 2 * hidden]
    bias: Array  # [2 * hidden]
    input_scale: Array  # [2 * hidden]


def layer_norm(x: Array, epsilon: float) -> Array:
    """(x - μ) / √(σ² + epsilon), with the mean μ and the variance σ² of the last axis."""
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centered * centered, axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + epsilon)


@frozen
class LayerNormLSTM:
    """LSTM with layer normalization of both products and of the cell state.

        i, f, o = σ(α₁ N(x W) + b + α₂ N(h U))      (the blocks i, f, o)
        g = tanh(α₁ N(x W) + b + α₂ N(h U))         (the block g)
        c' = f c + i g
        h' = o tanh(α₃ N(c') + β₃)
        N(a) = (a - mean(a)) / √(var(a) + ε)

    Mean and variance are taken over all four gates.

    Args:
        hidden_size: features of the hidden state, the cell state and the output.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        epsilon: ε.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[4, hidden]``, overriding ``forget_bias``.
        scale_init: initializer of α₁ and α₂ as ``[4, hidden]`` and of α₃ as ``[1, hidden]``;
            default: ones. β₃ is initialized to zero.

    Shapes:
        As for `LSTM`.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LayerNormLSTM(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.random.normal(jax.random.key(1), (5, 3))
        >>> small, _ = rnn.unroll(cell, params, xs)
        >>> large, _ = rnn.unroll(cell, params, 1000 * xs)  # equal up to ε
        >>> bool(abs(small.hidden - large.hidden).max() < 1e-3)
        True

    References:
        J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", 2016, eqs. 15, 16
        and 20 to 22 (supplementary material).

    Note:
        The paper's text calls α additive, but eq. 15 multiplies by it, as here. The paper adds a
        shift in each normalization as well as b; only the sum matters, and it is b here. ε = 1e-5
        and the normalization over all four gates follow the authors' code; TensorFlow's
        ``LayerNormBasicLSTMCell`` normalizes the sum of both products, per gate.
    """

    hidden_size: int
    forget_bias: float = 1.0
    epsilon: float = 1e-5
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None
    scale_init: Initializer = initializers.Constant(1.0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LayerNormLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 6)
        hidden = self.hidden_size
        bias_init = self.bias_init or initializers.ForgetBias(self.forget_bias)
        return LayerNormLSTMParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 4, dtype),
            packed_kernel(self.recurrent_init, keys[1], (hidden, hidden), 4, dtype),
            packed_bias(bias_init, keys[2], hidden, 4, dtype),
            packed_bias(self.scale_init, keys[3], hidden, 4, dtype),
            packed_bias(self.scale_init, keys[4], hidden, 4, dtype),
            packed_bias(self.scale_init, keys[5], hidden, 1, dtype),
            jnp.zeros(hidden, dtype),
        )

    def init_state(
        self, params: LayerNormLSTMParams, batch_shape: tuple[int, ...] = ()
    ) -> LSTMState:
        """Returns zeros."""
        return LSTMState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(
        self, params: LayerNormLSTMParams, state: LSTMState, x: Array
    ) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        from_input = layer_norm(product(x, params.input_kernel), self.epsilon)
        from_state = layer_norm(product(state.hidden, params.recurrent_kernel), self.epsilon)
        z = widen(params.input_scale) * from_input + widen(params.bias)
        z = z + widen(params.recurrent_scale) * from_state
        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        seen = widen(params.cell_scale) * layer_norm(c, self.epsilon) + widen(params.cell_bias)
        h = jax.nn.sigmoid(o) * jnp.tanh(seen)
        return LSTMState(h, c), h.astype(params.bias.dtype)


@frozen
class LightGRU:
    """A GRU for speech recognition: no reset gate, ReLU candidate, normalized input product.

        z = σ(α N(x W) + β + h U)         (the block z)
        n = max(0, α N(x W) + β + h U)    (the block n)
        h' = (1 - z) n + z h
        N(a) = (a - mean(a)) / √(var(a) + ε)

    Mean and variance are taken over both gates.

    Args:
        hidden_size: features of the state and of the output.
        epsilon: ε.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of β as ``[2, hidden]``; default: zeros.
        scale_init: initializer of α as ``[2, hidden]``; default: ones.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden [*batch, hidden])``, y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LightGRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.random.normal(jax.random.key(1), (7, 2, 3)))
        >>> bool((ys >= 0).all())
        True

    References:
        M. Ravanelli, P. Brakel, M. Omologo and Y. Bengio, "Light gated recurrent units for speech
        recognition", 2018. Code of the authors: mravanelli/pytorch-kaldi, neural_networks.py.

    Note:
        The paper uses batch normalization of x W over batch and time, which makes a step depend on
        other rows, on padding and on running averages. Here x W is normalized over its features, as
        in the authors' SpeechBrain with ``normalization="layernorm"``, which packs the candidate
        first.
    """

    hidden_size: int
    epsilon: float = 1e-5
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.Constant()
    scale_init: Initializer = initializers.Constant(1.0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LightGRUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 4)
        hidden = self.hidden_size
        return LightGRUParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 2, dtype),
            packed_kernel(self.recurrent_init, keys[1], (hidden, hidden), 2, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 2, dtype),
            packed_bias(self.scale_init, keys[3], hidden, 2, dtype),
        )

    def init_state(self, params: LightGRUParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: LightGRUParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        from_input = layer_norm(product(x, params.input_kernel), self.epsilon)
        from_input = widen(params.input_scale) * from_input + widen(params.bias)
        z, n = jnp.split(from_input + product(state.hidden, params.recurrent_kernel), 2, axis=-1)
        z = jax.nn.sigmoid(z)
        h = (1 - z) * relu(n) + z * state.hidden
        return GRUState(h), h.astype(params.bias.dtype)
