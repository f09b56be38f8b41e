"""Training on a mixture of what is right and what the model itself would have said."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_key, check_positive, is_number
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import unroll
from jaxrnn.decoding._sample import draw
from jaxrnn.decoding._step import Work, check_logits, prepare_step
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
    """Reads a sequence of tokens, some of which the model's own guesses replace.

        x_t = tokens_t with probability 1 - rate (and for t = 0), else a draw from
              softmax(logits_{t-1} / temperature)
        state, logits_t = step(params, state, x_t)

    A decoder that is trained on correct prefixes alone never learns to go on from its own mistakes;
    ``rate`` is raised from 0 as training goes on, and may be traced. Gradients flow through the
    states, not through the draws.

    Args:
        step: see `greedy`.
        params: see `greedy`.
        state: see `greedy`.
        tokens: the correct inputs, the first of which is always taken.
        key: randomness; None takes the correct inputs alone (teacher forcing).
        rate: the probability with which an input is replaced, at each step and row for itself.
        temperature: that of the draws.
        engine: how to run, a value from `jaxrnn.engines`; None is ``Auto()``.

    Shapes:
        tokens int ``[time, *batch]``, state leaves ``[*batch, ...]``, logits
        ``[time, *batch, vocabulary]``.

    Returns:
        ``(final_state, logits)``.

    Raises:
        TypeError: as in `greedy`.
        ValueError: as in `greedy`; or ``rate`` is not in [0, 1], or the temperature not positive.

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
    own = jnp.zeros(tokens.shape, bool)
    if key is not None:
        check_key(key)
        key, coins = jax.random.split(key)
        own = jax.random.bernoulli(coins, rate, tokens.shape).at[:1].set(False)
    leaves, structure = jax.tree.flatten((state, tokens.sum(0, dtype=tokens.dtype)))
    forms = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    cell = _Fed(Work(step, explicit, 1, None), float(temperature), structure, forms)
    state = jax.tree.unflatten(structure, leaves)
    (state, _), logits = unroll(cell, params, _Input(tokens, own), state, key=key, engine=engine)
    return state, logits


class _Input(NamedTuple):
    token: Array
    own: Array


@dataclasses.dataclass(frozen=True)
class _Fed:
    """A decoder's step as a cell, whose state holds the token that it would have said next."""

    work: Work
    temperature: float
    structure: Any
    forms: tuple[jax.ShapeDtypeStruct, ...]

    input_rank = 0
    output_size = None
    stochastic = True

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        raise TypeError("the parameters are the caller's own")

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        leaves = [jnp.zeros(form.shape, form.dtype) for form in self.forms]
        return jax.tree.unflatten(self.structure, leaves)

    def step(self, params: PyTree, state: PyTree, x: _Input, *, key: Array | None = None):
        state, said = state
        token = jnp.where(x.own, said, x.token)
        state, logits = self.work.function()(params, state, token)
        if key is not None:
            said = draw(key, jax.lax.stop_gradient(logits), self.temperature, None, None)
            said = said.astype(token.dtype)
        return (state, said), logits
