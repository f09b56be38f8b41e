"""Simple recurrent units (SRU), with and without peepholes.

Blocks are packed on the last axis in the order f, c (candidate), r and, if input and hidden sizes
differ, the projection of x for the highway.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
from jaxrnn._frozen import frozen
from jaxrnn._numerics import joined_kernel, packed_bias, product, split_columns, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros


class SRUParams(NamedTuple):
    """Parameters of `SRU`."""

    input_kernel: Array  # [input, 3 * hidden], or 4 with a projection for the highway
    bias: Array  # [2 * hidden], in the order f, r


class PeepholeSRUParams(NamedTuple):
    """Parameters of `PeepholeSRU`."""

    input_kernel: Array  # [input, 3 * hidden], or 4 with a projection for the highway
    bias: Array  # [2 * hidden], in the order f, r
    peephole_kernel: Array  # [2 * hidden], in the order f, r


class SRUState(NamedTuple):
    """State of `SRU` and of `PeepholeSRU`."""

    cell: Array  # [*batch, hidden]


def _init(cell, key: Array, input_size: int, dtype: Any) -> SRUParams:
    keys, hidden = jax.random.split(key), cell.hidden_size
    blocks = 4 if cell.highway and input_size != hidden else 3
    return SRUParams(
        joined_kernel(cell.kernel_init, keys[0], input_size, (hidden,) * blocks, dtype),
        packed_bias(cell.bias_init, keys[1], hidden, 2, dtype),
    )


def _output(cell, c: Array, r: Array, skip: Array, x: Array) -> Array:
    """The output from the new state, the gate's pre-activation and the projection of x, if any."""
    y = jax.nn.sigmoid(r) * c
    if cell.highway:
        skip = skip if skip.shape[-1] else widen(x)
        y = y + jax.nn.sigmoid(-r) * (cell.highway_scale * skip)
    return y.astype(x.dtype)


@frozen
class SRU:
    """The simple recurrent unit with gates from the input only: affine in its state.

        f = σ(x W_f + b_f)
        c' = f c + (1 - f) (x W_c)
        r = σ(x W_r + b_r)
        y = r c' + (1 - r) α x

    If input and state differ in size, x in the last equation is x W_x, with W_x as a fourth block
    of the kernel.

    Args:
        hidden_size: features of the state and of the output.
        highway: whether to add the term (1 - r) α x; otherwise y = r c'.
        highway_scale: α; default √3, the paper's √(1 + 2 e^(b_r)) for b_r = 0.
        kernel_init: initializer of W, drawn per block; default: LeCun uniform.
        bias_init: initializer of b as ``[2, hidden]``, in the order f, r; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``SRUState(cell)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.SRU(hidden_size=4)
        >>> same, other = (cell.init(jax.random.key(0), input_size=n) for n in (4, 3))
        >>> same.input_kernel.shape, other.input_kernel.shape
        ((4, 12), (3, 16))

    References:
        T. Lei, Y. Zhang, S. Wang, H. Dai and Y. Artzi, "Simple recurrent units for highly
        parallelizable recurrence", 2018.

    Note:
        This is the unit of the paper's first version, and of its last version with v = 0;
        `PeepholeSRU` is the last version's, whose gates see the state.
    """

    hidden_size: int
    highway: bool = True
    highway_scale: float = math.sqrt(3)
    kernel_init: Initializer = initializers.LecunUniform()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> SRUParams:
        """Draws the parameters."""
        return _init(self, key, input_size, check_init(key, input_size, dtype))

    def init_state(self, params: SRUParams, batch_shape: tuple[int, ...] = ()) -> SRUState:
        """Returns zeros."""
        return SRUState(*zeros(params, batch_shape, self.hidden_size))

    def _blocks(self, params: SRUParams) -> list[Array]:
        """The kernels of f and c, and of r and the highway."""
        first = 2 * self.hidden_size
        return split_columns(params.input_kernel, (first, params.input_kernel.shape[1] - first))

    def affine(self, params: SRUParams, x: Array) -> tuple[SRUState, SRUState]:
        """Returns f and (1 - f) (x W_c)."""
        kernel, _ = self._blocks(params)
        f, candidate = jnp.split(product(x, kernel), 2, axis=-1)
        f = f + widen(params.bias[: self.hidden_size])
        # 1 - σ(f) is σ(-f).
        return SRUState(jax.nn.sigmoid(f)), SRUState(jax.nn.sigmoid(-f) * candidate)

    def readout(self, params: SRUParams, state: SRUState, x: Array) -> Array:
        """Returns r c' + (1 - r) α x."""
        _, kernel = self._blocks(params)
        r, skip = jnp.split(product(x, kernel), [self.hidden_size], axis=-1)
        return _output(self, state.cell, r + widen(params.bias[self.hidden_size :]), skip, x)

    def step(self, params: SRUParams, state: SRUState, x: Array) -> tuple[SRUState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)


@frozen
class PeepholeSRU:
    """The simple recurrent unit with peepholes: the gates of each unit see its old state.

        f = σ(x W_f + v_f ⊙ c + b_f)
        c' = f c + (1 - f) (x W_c)
        r = σ(x W_r + v_r ⊙ c + b_r)
        y = r c' + (1 - r) α x

    Its recurrence is elementwise, but not affine: f depends on c. With v = 0 it is `SRU`.

    Args:
        hidden_size: features of the state and of the output.
        highway: whether to add the term (1 - r) α x; otherwise y = r c'.
        highway_scale: α; default √3, the paper's √(1 + 2 e^(b_r)) for b_r = 0.
        kernel_init: initializer of W, drawn per block, those of the gates divided by √2; default:
            LeCun uniform.
        bias_init: initializer of b as ``[2, hidden]``, in the order f, r; default: zeros.
        peephole_init: initializer of v as ``[2, hidden]``, in the order f, r; default: uniform with
            variance 1/2.

    Shapes:
        As for `SRU`; ``peephole_kernel`` is ``[2 * hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.PeepholeSRU(hidden_size=4)
        >>> cell.init(jax.random.key(0), input_size=4).peephole_kernel.shape
        (8,)

    References:
        T. Lei, Y. Zhang, S. Wang, H. Dai and Y. Artzi, "Simple recurrent units for highly
        parallelizable recurrence", 2018. Code of the authors: asappresearch/sru, sru/ops.py.
    """

    hidden_size: int
    highway: bool = True
    highway_scale: float = math.sqrt(3)
    kernel_init: Initializer = initializers.LecunUniform()
    bias_init: Initializer = initializers.Constant()
    peephole_init: Initializer = initializers.Uniform(-math.sqrt(1.5), math.sqrt(1.5))

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PeepholeSRUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        key, peephole_key = jax.random.split(key)
        kernel, bias = _init(self, key, input_size, dtype)
        f, candidate, rest = jnp.split(kernel, [self.hidden_size, 2 * self.hidden_size], axis=-1)
        r, skip = jnp.split(rest, [self.hidden_size], axis=-1)
        half = math.sqrt(0.5)
        kernel = jnp.concatenate([half * f, candidate, half * r, skip], axis=-1)
        v = packed_bias(self.peephole_init, peephole_key, self.hidden_size, 2, dtype)
        return PeepholeSRUParams(kernel, bias, v)

    def init_state(self, params: PeepholeSRUParams, batch_shape: tuple[int, ...] = ()) -> SRUState:
        """Returns zeros."""
        return SRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: PeepholeSRUParams, state: SRUState, x: Array) -> tuple[SRUState, Array]:
        """One step of the equations above."""
        hidden = self.hidden_size
        z = product(x, params.input_kernel)
        f, candidate, r, skip = jnp.split(z, [hidden, 2 * hidden, 3 * hidden], axis=-1)
        b_f, b_r = jnp.split(widen(params.bias), 2)
        v_f, v_r = jnp.split(widen(params.peephole_kernel), 2)
        f = f + b_f + v_f * state.cell
        r = r + b_r + v_r * state.cell
        c = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(-f) * candidate
        return SRUState(c), _output(self, c, r, skip, x)
