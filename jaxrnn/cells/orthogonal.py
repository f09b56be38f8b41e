"""A recurrent network with an orthogonal recurrent kernel."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros
from jaxrnn.cells._rotation import rotation


class OrthogonalRNNParams(NamedTuple):
    """Parameters of `OrthogonalRNN`."""

    input_kernel: Array  # [input, hidden]
    generator: Array  # [hidden, hidden], A
    bias: Array  # [hidden], b of modReLU


class OrthogonalRNNState(NamedTuple):
    """State of `OrthogonalRNN`."""

    hidden: Array  # [*batch, hidden]


@frozen
class OrthogonalRNN:
    """The orthogonal recurrent network with an exponential parametrization (expRNN).

        U = exp(A - Aᵀ)
        h' = modReLU(x W + h U),   modReLU(z) = sign(z) max(|z| + b, 0)

    A is unconstrained, and U is a rotation for every A: U stays orthogonal under any optimizer.

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of W; default: Glorot uniform.
        generator_init: initializer of A ``[hidden, hidden]``; default: a rotation of each pair of
            units by an angle uniform in ±π, see `jaxrnn.initializers.RandomRotations`.
        bias_init: initializer of b as ``[1, hidden]``; default: uniform in ±0.01.

    Shapes:
        x ``[*batch, input]``, state ``OrthogonalRNNState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.OrthogonalRNN(hidden_size=4)
        >>> U = cell.recurrent_matrix(cell.init(jax.random.key(0), input_size=3))
        >>> bool(jnp.abs(U.T @ U - jnp.eye(4)).max() < 1e-6)
        True

    References:
        M. Lezcano-Casado and D. Martínez-Rubio, "Cheap orthogonal constraints in neural networks: a
        simple parametrization of the orthogonal and unitary group", 2019. Code of the authors:
        Lezcano/expRNN, orthogonal.py.
        M. Arjovsky, A. Shah and Y. Bengio, "Unitary evolution recurrent neural networks", 2016,
        eq. 8 (modReLU).

    Note:
        With bfloat16 parameters U and its product stay in float32, because a rounded U is not
        orthogonal. The authors build A - Aᵀ from the upper triangle of A only, and have a variant
        that moves the base point of the exponential during training; this is the static form.
        States are row vectors here and column vectors in the paper: this U is the transpose of the
        paper's.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    generator_init: Initializer = initializers.RandomRotations()
    bias_init: Initializer = initializers.Uniform(-0.01, 0.01)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> OrthogonalRNNParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 3)
        hidden = self.hidden_size
        return OrthogonalRNNParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 1, dtype),
            packed_kernel(self.generator_init, keys[1], (hidden, hidden), 1, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 1, dtype),
        )

    def init_state(
        self, params: OrthogonalRNNParams, batch_shape: tuple[int, ...] = ()
    ) -> OrthogonalRNNState:
        """Returns zeros."""
        return OrthogonalRNNState(*zeros(params, batch_shape, self.hidden_size))

    def recurrent_matrix(self, params: OrthogonalRNNParams) -> Array:
        """Returns U = exp(A - Aᵀ), in the dtype of the state."""
        generator = widen(params.generator)
        return rotation(generator - generator.T)

    def step(
        self, params: OrthogonalRNNParams, state: OrthogonalRNNState, x: Array
    ) -> tuple[OrthogonalRNNState, Array]:
        """One step of the equations above."""
        from_state = product(state.hidden, self.recurrent_matrix(params))
        z = product(x, params.input_kernel) + from_state
        h = jnp.sign(z) * jnp.maximum(jnp.abs(z) + widen(params.bias), 0)
        return OrthogonalRNNState(h), h.astype(params.bias.dtype)
