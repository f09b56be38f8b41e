"""Activations of other frameworks, as module-level functions so that cells pickle."""

from collections.abc import Callable
from typing import Any

import jax

from jaxrnn._typing import Array
from jaxrnn.activations import identity, relu, tanh


def sigmoid(x: Array) -> Array:
    """The logistic function."""
    return jax.nn.sigmoid(x)


def silu(x: Array) -> Array:
    """X σ(x), also called swish."""
    return jax.nn.silu(x)


def selu(x: Array) -> Array:
    """The scaled exponential linear unit."""
    return jax.nn.selu(x)


def leaky_relu(x: Array) -> Array:
    """X where x ≥ 0, 0.01 x elsewhere."""
    return jax.nn.leaky_relu(x)


def gelu(x: Array) -> Array:
    """The Gaussian error linear unit, exact."""
    return jax.nn.gelu(x, approximate=False)


def tanh_gelu(x: Array) -> Array:
    """The Gaussian error linear unit, by its tanh approximation."""
    return jax.nn.gelu(x, approximate=True)


def squared_relu(x: Array) -> Array:
    """max(x, 0)²."""
    return relu(x) ** 2


TORCHRECURRENT = {"tanh": tanh, "relu": relu, "identity": identity, "sigmoid": sigmoid}
XLSTM = {
    "gelu": gelu,
    "relu": relu,
    "relu^2": squared_relu,
    "sigmoid": sigmoid,
    "swish": silu,
    "selu": selu,
}
TRANSFORMERS = {"gelu_pytorch_tanh": tanh_gelu, "gelu": gelu, "relu": relu, "silu": silu}


def named(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function of this module for one of JAX's that computes the same; others stay."""
    known = {
        jax.nn.tanh: tanh,
        jax.nn.relu: relu,
        jax.nn.sigmoid: sigmoid,
        jax.nn.silu: silu,
        jax.nn.selu: selu,
        jax.nn.leaky_relu: leaky_relu,
        jax.nn.gelu: tanh_gelu,
    }
    return known.get(function, function)
