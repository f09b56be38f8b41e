"""Decoding: from logits to sequences of tokens, one step at a time, for any step function.

A step is ``(params, state, token) -> (state, logits)``, a function of one's own around any cell or
stack of cells, with its embedding and its read-out:

    >>> import jax, jax.numpy as jnp, jaxrnn as rnn
    >>> stack = rnn.layers.Stack((rnn.LSTM(8), rnn.GRU(8)))
    >>> def step(params, state, token):
    ...     embedding, layers, readout = params
    ...     state, y = stack.step(layers, state, embedding[token])
    ...     return state, y @ readout
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> params = (
    ...     jax.random.normal(keys[0], (10, 4)),
    ...     stack.init(keys[1], input_size=4),
    ...     jax.random.normal(keys[2], (8, 10)),
    ... )
    >>> state, first = stack.init_state(params[1], (3,)), jnp.zeros(3, "int32")
    >>> best = rnn.decoding.beam_search(step, params, state, first, length=7, width=4, end=0)
    >>> best.tokens.shape, best.scores.shape  # best first
    ((7, 3, 4), (3, 4))

Everything is batched and jitted. What is no parameter and does not change from step to step, such
as the encoder's outputs that a decoder attends to, is best put among ``params``: it is neither
copied nor moved when beams change places.
"""

from jaxrnn.decoding._beam import beam_search
from jaxrnn.decoding._ctc import LanguageModel, ctc_beam_search, ctc_greedy
from jaxrnn.decoding._sample import greedy, sample
from jaxrnn.decoding._scheduled import scheduled_sampling
from jaxrnn.decoding._step import Decoded

__all__ = [
    "Decoded",
    "LanguageModel",
    "beam_search",
    "ctc_beam_search",
    "ctc_greedy",
    "greedy",
    "sample",
    "scheduled_sampling",
]
