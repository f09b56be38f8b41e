"""The structurally constrained recurrent network."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import joined_kernel, packed_kernel, product, split_columns
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros


class SCRNParams(NamedTuple):
    """Parameters of `SCRN`."""

    input_kernel: Array  # [input, hidden + context], A before B
    recurrent_kernel: Array  # [hidden + context, hidden], R before P


class SCRNState(NamedTuple):
    """State of `SCRN`."""

    hidden: Array  # [*batch, hidden]
    context: Array  # [*batch, context]


@frozen
class SCRN:
    """A simple recurrent network with a context layer of slowly changing units.

        s' = (1 - α) x B + α s
        h' = σ(x A + s' P + h R)
        y = [h', s']

    Args:
        hidden_size: features of the hidden layer h.
        context_size: features of the context layer s.
        alpha: α, the decay of the context in one step, in [0, 1].
        kernel_init: initializer of A, B and P, drawn separately; default: Glorot uniform.
        recurrent_init: initializer of R; default: orthogonal.

    Shapes:
        x ``[*batch, input]``, state ``SCRNState(hidden, context)``, y ``[*batch, hidden +
        context]``.

    Raises:
        TypeError, ValueError: a size is not a positive int, or ``alpha`` is not in [0, 1].

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.SCRN(hidden_size=100, context_size=40)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> ys.shape
        (7, 2, 140)

    References:
        T. Mikolov, A. Joulin, S. Chopra, M. Mathieu and M. Ranzato, "Learning longer memory in
        recurrent neural networks", 2014. Code of the authors: facebookarchive/SCRNNs,
        mfactory.lua.

    Note:
        The paper's output layer reads h' and s', so y holds both. The paper has no biases. In the
        authors' code h' sees s instead of s', and α may be a learned matrix.
    """

    hidden_size: int
    context_size: int = 40
    alpha: float = 0.95
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("context_size", self.context_size)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha}")

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size + context_size``."""
        return self.hidden_size + self.context_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> SCRNParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 3)
        hidden, context = self.hidden_size, self.context_size
        columns = (hidden, context)
        r = packed_kernel(self.recurrent_init, keys[1], (hidden, hidden), 1, dtype)
        p = packed_kernel(self.kernel_init, keys[2], (context, hidden), 1, dtype)
        return SCRNParams(
            joined_kernel(self.kernel_init, keys[0], input_size, columns, dtype),
            jnp.concatenate([r, p]),
        )

    def init_state(self, params: SCRNParams, batch_shape: tuple[int, ...] = ()) -> SCRNState:
        """Returns zeros."""
        return SCRNState(*zeros(params, batch_shape, self.hidden_size, self.context_size))

    def step(self, params: SCRNParams, state: SCRNState, x: Array) -> tuple[SCRNState, Array]:
        """One step of the equations above."""
        columns = (self.hidden_size, self.context_size)
        i_h, i_s = split_columns(product(x, params.input_kernel), columns)
        s = (1 - self.alpha) * i_s + self.alpha * state.context
        both = jnp.concatenate([state.hidden, s], axis=-1)
        h = jax.nn.sigmoid(i_h + product(both, params.recurrent_kernel))
        y = jnp.concatenate([h, s], axis=-1)
        return SCRNState(h, s), y.astype(params.input_kernel.dtype)
