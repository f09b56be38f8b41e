"""Weights of trained modules: state dicts, and their dense layers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, state_dtype, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.convert._arrays import Source
from jaxrnn.convert._network import Part
from jaxrnn.convert._state_files import state_dict
from jaxrnn.layers import Stack


def named_arrays(source: Any, prefix: str = "") -> dict[str, Any]:
    """The arrays of a PyTorch module or state dict whose names begin with the prefix."""
    arrays = state_dict(source)
    for name in arrays:
        if not isinstance(name, str):
            raise TypeError(f"source must map names to arrays, got the key {name!r}")
    chosen = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    if not chosen:
        names = ", ".join(list(arrays)[:6]) or "nothing"
        raise ValueError(f"source must hold arrays under prefix={prefix!r}, got {names}")
    return chosen


def numbered(arrays: Mapping[str, Any], stem: str) -> list[tuple[str, dict[str, Any]]]:
    """The arrays of each layer ``stem0.``, ``stem1.``, ... with its prefix.

    A mapping without such names is one layer, with an empty prefix.
    """
    pattern = re.compile(re.escape(stem) + r"(\d+)\.")
    layers: dict[int, dict[str, Any]] = {}
    for name, array in arrays.items():
        if match := pattern.match(name):
            layers.setdefault(int(match[1]), {})[name[match.end() :]] = array
    if not layers:
        return [("", dict(arrays))]
    if sorted(layers) != list(range(len(layers))):
        raise ValueError(f"{stem}* must be numbered from 0 without gaps, got {sorted(layers)}")
    return [(f"{stem}{number}.", layers[number]) for number in sorted(layers)]


def check_zero(name: str, array: Any, why: str) -> None:
    """Raises unless an array that the jaxrnn cell lacks is zero."""
    if isinstance(array, jax.core.Tracer):
        raise TypeError(f"{name} must be zero, which cannot be checked within jax.jit; {why}")
    if bool((jnp.asarray(array) != 0).any()):
        raise ValueError(f"{name} must be zero, because {why}")


# Dense layers of models, in a stack with cells ---------------------------------------------------


class DenseParams(NamedTuple):
    """Parameters of `Dense`."""

    input_kernel: Array  # [input, output]
    bias: Array | None = None  # [output], None for a layer without


@frozen
class Dense:
    """A dense layer as a cell without state, for the dense layers of a trained model in a stack.

        y = φ(N(x W + b)),   N(a) = (a - mean(a)) / √(var(a) + ε)

    Args:
        output_size: features of y.
        epsilon: ε of the normalization; None omits N.
        activation: φ; None omits it.
        kernel_init: initializer of W; default: LeCun normal. b is initialized to zero.
    """

    output_size: int
    epsilon: float | None = None
    activation: Callable[[Array], Array] | None = None
    kernel_init: Initializer = initializers.LecunNormal()

    def init(self, key: Array, input_size: int, dtype: Any = None) -> DenseParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        kernel = self.kernel_init(key, (input_size, self.output_size), dtype)
        return DenseParams(kernel, jnp.zeros(self.output_size, dtype))

    def init_state(self, params: DenseParams, batch_shape: tuple[int, ...] = ()) -> tuple[()]:
        """Returns the empty state."""
        return ()

    def step(self, params: DenseParams, state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """One step of the equations above."""
        y = dense(params, x)
        if self.epsilon is not None:
            y = normalize(y, self.epsilon)
        if self.activation is not None:
            y = self.activation(y)
        return (), y.astype(params.input_kernel.dtype)


class NormalizeParams(NamedTuple):
    """Parameters of `Normalize`."""

    scale: Array | None = None  # [features]


@frozen
class Normalize:
    """Normalization of the features of each group, as a cell without state.

        y = s (x - mean(x)) / √(var(x) + ε)

    Args:
        output_size: features of x and of y.
        groups: the number of groups, each with its own mean and variance.
        epsilon: ε.
    """

    output_size: int
    groups: int = 1
    epsilon: float = 1e-5

    def init(self, key: Array, input_size: int, dtype: Any = None) -> NormalizeParams:
        """Returns a scale of 1."""
        return NormalizeParams(jnp.ones(self.output_size, check_init(key, input_size, dtype)))

    def init_state(self, params: NormalizeParams, batch_shape: tuple[int, ...] = ()) -> tuple[()]:
        """Returns the empty state."""
        return ()

    def step(self, params: NormalizeParams, state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """One step of the equation above."""
        y = normalize(widen(x), self.epsilon, self.groups)
        if params.scale is not None:
            y = widen(params.scale) * y
        return (), y.astype(x.dtype)


@frozen
class Gated:
    """The product of two halves, φ(a) b for the input [a, b], as a cell without state.

    Args:
        output_size: features of a, of b and of the output.
        activation: φ.
    """

    output_size: int
    activation: Callable[[Array], Array]

    def init(self, key: Array, input_size: int, dtype: Any = None) -> tuple[()]:
        """Returns no parameters."""
        return ()

    def init_state(self, params: tuple[()], batch_shape: tuple[int, ...] = ()) -> tuple[()]:
        """Returns the empty state."""
        return ()

    def step(self, params: tuple[()], state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """One step of the equation above."""
        a, b = jnp.split(x, 2, axis=-1)
        return (), self.activation(a) * b


class ConvolutionParams(NamedTuple):
    """Parameters of `CausalConvolution`."""

    kernel: Array  # [width, features]; the last row acts on the current input
    bias: Array | None = None  # [features]


class ConvolutionState(NamedTuple):
    """State of `CausalConvolution`."""

    window: Array  # [*batch, width - 1, features], the inputs before, the oldest first


@frozen
class CausalConvolution:
    """A convolution over time of the first features, each with its own kernel.

        c_t = φ(b + Σ_j w_j u_{t - width + 1 + j})      for the input [u, r]

    Args:
        features: the number of features of u.
        input_size: the number of features of [u, r].
        activation: φ; None omits it.
        keep: whether the output is [c, u, r] instead of [c, r].

    Shapes:
        x ``[*batch, input_size]``, state ``ConvolutionState(window)``, y ``[*batch, input_size]``
        or, with ``keep``, ``[*batch, features + input_size]``.
    """

    features: int
    input_size: int
    activation: Callable[[Array], Array] | None = None
    keep: bool = False
    width: int = 4

    @property
    def output_size(self) -> int:
        """The number of output features."""
        return self.input_size + self.features * self.keep

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ConvolutionParams:
        """Draws the kernel, uniform in ±1/√width; the bias is zero."""
        dtype = check_init(key, input_size, dtype)
        limit = 1 / math.sqrt(self.width)
        shape = (self.width, self.features)
        kernel = jax.random.uniform(key, shape, dtype, -limit, limit)
        return ConvolutionParams(kernel, jnp.zeros(self.features, dtype))

    def init_state(
        self, params: ConvolutionParams, batch_shape: tuple[int, ...] = ()
    ) -> ConvolutionState:
        """Returns zeros."""
        shape = (*batch_shape, self.width - 1, self.features)
        return ConvolutionState(jnp.zeros(shape, state_dtype(params.kernel.dtype)))

    def step(
        self, params: ConvolutionParams, state: ConvolutionState, x: Array
    ) -> tuple[ConvolutionState, Array]:
        """One step of the equation above."""
        u, rest = jnp.split(x, [self.features], axis=-1)
        inputs = jnp.concatenate([state.window, widen(u)[..., None, :]], axis=-2)
        y = jnp.sum(inputs * widen(params.kernel), axis=-2)
        if params.bias is not None:
            y = y + widen(params.bias)
        if self.activation is not None:
            y = self.activation(y)
        y = y.astype(params.kernel.dtype)
        parts = [y, x] if self.keep else [y, rest]
        return ConvolutionState(inputs[..., 1:, :]), jnp.concatenate(parts, axis=-1)


def dense(params: DenseParams, x: Array) -> Array:
    """``x W + b``, in the dtype of a state."""
    y = product(x, params.input_kernel)
    return y if params.bias is None else y + widen(params.bias)


def block_dense(kernel: Array, bias: Array | None, x: Array) -> Array:
    """``x W + b`` for a block-diagonal W, with its blocks in ``[blocks, input, output]``."""
    blocks, inputs, _ = kernel.shape
    rows = x.astype(kernel.dtype).reshape(*x.shape[:-1], blocks, inputs)
    wide = state_dtype(kernel.dtype)
    y = jnp.einsum("...bi,bij->...bj", rows, kernel, preferred_element_type=wide)
    y = y.reshape(*x.shape[:-1], -1)
    return y if bias is None else y + widen(bias)


def normalize(x: Array, epsilon: float, groups: int = 1) -> Array:
    """Mean 0 and variance 1 over each group of features."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    centered = grouped - jnp.mean(grouped, axis=-1, keepdims=True)
    variance = jnp.mean(centered**2, axis=-1, keepdims=True)
    return (centered / jnp.sqrt(variance + epsilon)).reshape(x.shape)


def take_dense(weights: Source, name: str, inputs: int, outputs: int) -> DenseParams:
    """Reads ``name.weight [output, input]`` and, where there is one, ``name.bias``."""
    kernel = weights.take(f"{name}.weight", outputs, inputs).T
    biased = f"{name}.bias" in weights
    return DenseParams(kernel, weights.take(f"{name}.bias", outputs) if biased else None)


def take_convolution(weights: Source, name: str, features: int) -> ConvolutionParams:
    """Reads the weights of a ``torch.nn.Conv1d`` with one group for each feature."""
    width = weights.shape(f"{name}.weight", "features", "1", "width")[2]
    kernel = weights.take(f"{name}.weight", features, 1, width)[:, 0].T
    biased = f"{name}.bias" in weights
    return ConvolutionParams(kernel, weights.take(f"{name}.bias", features) if biased else None)


def stack(parts: Sequence[Part], residual: bool = False) -> Part:
    """A stack as one part of a larger one."""
    network = Stack(tuple(part.cell for part in parts), residual=residual)
    return Part(network, tuple(part.params for part in parts))
