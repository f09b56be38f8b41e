"""The antisymmetric recurrent network: a discretized stable ordinary differential equation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_positive, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import dense_params, zeros


class AntisymmetricRNNParams(NamedTuple):
    """Parameters of `AntisymmetricRNN`; with a gate, blocks in the order z, n."""

    input_kernel: Array  # [input, hidden], or [input, 2 * hidden] with a gate
    recurrent_kernel: Array  # [hidden, hidden], from which the antisymmetric one is made
    bias: Array  # [hidden], or [2 * hidden] with a gate


class AntisymmetricRNNState(NamedTuple):
    """State of `AntisymmetricRNN`."""

    hidden: Array  # [*batch, hidden]


@frozen
class AntisymmetricRNN:
    """The antisymmetric recurrent network, with or without its input gate.

        M = W - Wᵀ - γ I
        z = σ(x V_z + b_z + h M)                     (1 without a gate)
        h' = h + ε z tanh(x V_n + b_n + h M)

    One step of Euler's method for an ordinary differential equation whose Jacobian has eigenvalues
    near the imaginary axis: those of W - Wᵀ are imaginary, and γ > 0 compensates for the
    instability of the method.

    Args:
        hidden_size: features of the state and of the output.
        gated: whether to use the input gate z, which shares M with the candidate.
        step_size: ε, the time step of Euler's method.
        diffusion: γ, which stabilizes the method.
        kernel_init: initializer of V, drawn per block; default: normal with variance 1 / input.
        recurrent_init: initializer of W; default: normal with variance 1 / hidden.
        bias_init: initializer of b, as ``[1, hidden]`` or ``[2, hidden]``; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``AntisymmetricRNNState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int, ``step_size`` not positive,
            ``diffusion`` negative.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.AntisymmetricRNN(hidden_size=4, diffusion=0.01)
        >>> matrix = cell.recurrent_matrix(cell.init(jax.random.key(0), input_size=3))
        >>> print(jax.numpy.diagonal(matrix))
        [-0.01 -0.01 -0.01 -0.01]

    References:
        B. Chang, M. Chen, E. Haber and E. H. Chi, "AntisymmetricRNN: a dynamical system view on
        recurrent neural networks", 2019, eqs. 12 and 13.

    Note:
        States are row vectors here and column vectors in the paper: this W is the transpose of the
        paper's.
    """

    hidden_size: int
    gated: bool = False
    step_size: float = 0.1
    diffusion: float = 0.01
    kernel_init: Initializer = initializers.LecunNormal()
    recurrent_init: Initializer = initializers.LecunNormal()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_positive("step_size", self.step_size)
        if self.diffusion != 0:  # without diffusion the eigenvalues are imaginary
            check_positive("diffusion", self.diffusion)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> AntisymmetricRNNParams:
        """Draws the parameters."""
        gates = (1 + self.gated, 1, 1 + self.gated)
        return AntisymmetricRNNParams(*dense_params(self, key, input_size, dtype, gates))

    def init_state(
        self, params: AntisymmetricRNNParams, batch_shape: tuple[int, ...] = ()
    ) -> AntisymmetricRNNState:
        """Returns zeros."""
        return AntisymmetricRNNState(*zeros(params, batch_shape, self.hidden_size))

    def recurrent_matrix(self, params: AntisymmetricRNNParams) -> Array:
        """Returns M = W - Wᵀ - γ I."""
        kernel = params.recurrent_kernel
        return kernel - kernel.T - self.diffusion * jnp.eye(self.hidden_size, dtype=kernel.dtype)

    def step(
        self, params: AntisymmetricRNNParams, state: AntisymmetricRNNState, x: Array
    ) -> tuple[AntisymmetricRNNState, Array]:
        """One step of the equations above."""
        from_input = product(x, params.input_kernel) + widen(params.bias)
        from_state = product(state.hidden, self.recurrent_matrix(params))
        if self.gated:
            i_z, i_n = jnp.split(from_input, 2, axis=-1)
            change = jax.nn.sigmoid(i_z + from_state) * jnp.tanh(i_n + from_state)
        else:
            change = jnp.tanh(from_input + from_state)
        h = state.hidden + self.step_size * change
        return AntisymmetricRNNState(h), h.astype(params.bias.dtype)
