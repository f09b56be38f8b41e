"""Scheduled sampling."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_key, check_positive, is_number
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import unroll
from jaxrnn.decoding._sample import draw
from jaxrnn.decoding._step import Decoder, check_logits, prepare_step
from jaxrnn.engines import Engine


def scheduled_sampling(
    step: Any,
    params: PyTree,
    state: PyTree,
    tokens: Any,
    key: Array | None,
    *,
    rate: Any,
    temperature: float = 1.0,
    engine: Engine | None = None,
) -> tuple[PyTree, Array]:
    """Runs a decoder on target tokens, some of them replaced by samples from the model.

        x_t = tokens_t with probability 1 - rate (and for t = 0), else a sample from
              softmax(logits_{t-1} / temperature)
        state, logits_t = step(params, state, x_t)

    With teacher forcing alone, a decoder never learns to recover from its own mistakes. ``rate``
    usually increases from 0 during training, and may be traced. Gradients flow through the states,
    not through the samples.

    Args:
        step: see `greedy`.
        params: see `greedy`.
        state: see `greedy`.
        tokens: the target inputs; the first one is never replaced.
        key: the random key; None is teacher forcing.
        rate: the probability of replacing an input, independently for each step and row.
        temperature: the sampling temperature.
        engine: how to run, a value from `jaxrnn.engines`; None is ``Auto()``.

    Shapes:
        tokens int ``[time, *batch]``, state leaves ``[*batch, ...]``, logits
        ``[time, *batch, vocabulary]``.

    Returns:
        ``(final_state, logits)``.

    Raises:
        TypeError: as in `greedy`.
        ValueError: as in `greedy`, or ``rate`` is not in [0, 1] or the temperature not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> def step(table, state, token):
        ...     return state, table[token]
        >>> tokens, key = jnp.array([[0, 0], [1, 1], [2, 2]]), jax.random.key(0)
        >>> _, logits = decoding.scheduled_sampling(step, jnp.eye(3), (), tokens, key, rate=0.25)
        >>> logits.shape
        (3, 2, 3)

    References:
        S. Bengio, O. Vinyals, N. Jaitly and N. Shazeer, "Scheduled sampling for sequence prediction
        with recurrent neural networks", 2015, section 2.4; ``rate`` is its 1 - ε.
    """
    explicit = params is not None
    function, params, state, tokens = prepare_step(step, params, state, tokens, "tokens", 1)
    check_logits(function, params, state, tokens[0] if len(tokens) else tokens.sum(0))
    check_positive("temperature", temperature)
    if not isinstance(rate, jax.Array):
        if not is_number(rate):
            raise TypeError(f"rate must be a number, got {rate!r}")
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be in [0, 1], got {rate}")
    replaced = jnp.zeros(tokens.shape, bool)
    if key is not None:
        check_key(key)
        key, coins = jax.random.split(key)
        replaced = jax.random.bernoulli(coins, rate, tokens.shape).at[:1].set(False)
    leaves, structure = jax.tree.flatten((state, tokens.sum(0, dtype=tokens.dtype)))
    specs = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    cell = _SamplingCell(Decoder(step, explicit, 1, None), float(temperature), structure, specs)
    state = jax.tree.unflatten(structure, leaves)
    (state, _), logits = unroll(
        cell, params, _Input(tokens, replaced), state, key=key, engine=engine
    )
    return state, logits


class _Input(NamedTuple):
    token: Array
    replaced: Array


@dataclasses.dataclass(frozen=True)
class _SamplingCell:
    """A decoder's step as a cell, whose state includes a sample of the next token."""

    decoder: Decoder
    temperature: float
    structure: Any
    specs: tuple[jax.ShapeDtypeStruct, ...]

    input_rank = 0
    output_size = None
    stochastic = True

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        raise TypeError("the caller passes the parameters")

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        leaves = [jnp.zeros(spec.shape, spec.dtype) for spec in self.specs]
        return jax.tree.unflatten(self.structure, leaves)

    def step(self, params: PyTree, state: PyTree, x: _Input, *, key: Array | None = None):
        state, sampled = state
        token = jnp.where(x.replaced, sampled, x.token)
        state, logits = self.decoder.function()(params, state, token)
        if key is not None:
            sampled = draw(key, jax.lax.stop_gradient(logits), self.temperature, None, None)
            sampled = sampled.astype(token.dtype)
        return (state, sampled), logits
