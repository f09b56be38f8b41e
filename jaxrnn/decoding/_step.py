"""What all decoders share: the step function, the argument checks and the result."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import _validation as checks
from jaxrnn._arguments import check_size
from jaxrnn._cell import can_step
from jaxrnn._numerics import state_dtype
from jaxrnn._typing import Array, PyTree


class Decoded(NamedTuple):
    """Decoded sequences.

    Attributes:
        tokens: ``[length, *batch]``, or ``[length, *batch, width]`` with beams, best first; padded
            after the end of a row.
        lengths: the number of tokens before the end token, or of all tokens if there is none.
        scores: the log-probability of each sequence including its end token, unless the function
            documents another score.
    """

    tokens: Array
    lengths: Array
    scores: Array


class Decoder(NamedTuple):
    """The static arguments of a call: equal values share one compilation."""

    step: Any
    explicit: bool
    length: int
    end: int | None

    def function(self) -> Callable[[PyTree, PyTree, Array], tuple[PyTree, Array]]:
        """The step as ``(params, state, token) -> (state, logits)``."""
        step = getattr(self.step, "step", self.step)
        return step if self.explicit else lambda _, state, token: step(state, token)


def prepare(
    step: Any, params: PyTree, state: PyTree, token: Any, length: Any, end: Any
) -> tuple[Decoder, PyTree, PyTree, Array]:
    """Checks the arguments that all decoders have, and converts them to arrays."""
    explicit = params is not None
    function, params, state, token = prepare_step(step, params, state, token, "token", 0)
    check_size("length", length)
    decoder = Decoder(step, explicit, int(length), None if end is None else check_token("end", end))
    logits = check_logits(function, params, state, token)
    if decoder.end is not None and decoder.end >= logits.shape[-1]:
        raise ValueError(
            f"end must be one of the {logits.shape[-1]} tokens that step returns logits for, "
            f"0 to {logits.shape[-1] - 1}, got {end}"
        )
    return decoder, params, state, token


def prepare_step(
    step: Any, params: PyTree, state: PyTree, token: Any, name: str, skip: int
) -> tuple[Callable, PyTree, PyTree, Array]:
    """The step as a function, and its arguments as arrays; tokens have ``skip`` time axes."""
    is_cell = hasattr(step, "step")
    if isinstance(step, type) or not (can_step(step) if is_cell else callable(step)):
        raise TypeError(
            "step must be a function (params, state, token) -> (state, logits), or a cell that "
            f"takes tokens, got {step!r}"
        )
    try:
        hash(step)
    except TypeError as error:
        raise TypeError(
            f"step must be hashable, but {error}; use a plain function, and pass arrays as params"
        ) from error
    token = checks.as_array(name, token)
    if not jnp.issubdtype(token.dtype, jnp.integer):
        raise TypeError(f"{name} must be an array of integers, got {token.dtype}")
    if token.ndim < skip:
        raise ValueError(f"{name} must have shape [time, *batch], got {token.shape}")
    function = Decoder(step, params is not None, 1, None).function()
    params = checks.as_arrays("params", params)
    batch = token.shape[skip:]
    if state is None and is_cell and hasattr(step, "init_state"):
        state = step.init_state(params, batch)
    state = checks.as_arrays("state", state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.shape[: len(batch)] != batch:
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} must have shape [*batch, ...] with the batch "
                f"shape {batch} of {name}, got {leaf.shape}; pass arrays without leading batch "
                "axes in params"
            )
    return function, params, jax.tree.map(_strong, state), token


def check_logits(
    function: Callable, params: PyTree, state: PyTree, token: Array
) -> jax.ShapeDtypeStruct:
    """Raises unless a step returns a state like its input and logits; returns their spec."""
    results = jax.eval_shape(function, params, state, token)
    if not isinstance(results, tuple) or len(results) != 2:
        raise TypeError(f"step must return a pair (state, logits), got a {type(results).__name__}")
    after, logits = results
    checks.check_same(
        "state", after, state, "as step took it, and must return it", "fix the step, or the state"
    )
    if not isinstance(logits, jax.ShapeDtypeStruct) or not jnp.issubdtype(
        logits.dtype, jnp.floating
    ):
        raise TypeError(f"step must return floating-point logits after the state, got {logits}")
    if logits.shape[:-1] != token.shape or not logits.shape[-1:] > (0,):
        raise ValueError(
            f"step must return logits of shape [*batch, vocabulary] with the batch shape "
            f"{token.shape} of the tokens, got {logits.shape}"
        )
    return logits


def check_token(name: str, value: Any) -> int:
    """Returns a token as an int."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, the index of a token, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, the index of a token, got {value}")
    return int(value)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities in float32 or float64."""
    return jax.nn.log_softmax(logits.astype(state_dtype(logits.dtype)), axis=-1)


def pick(values: Array, where: Array) -> Array:
    """``values[..., where]`` row by row."""
    return jnp.take_along_axis(values, where[..., None], axis=-1)[..., 0]


def _strong(leaf: Array) -> Array:
    return jax.lax.convert_element_type(leaf, leaf.dtype)
