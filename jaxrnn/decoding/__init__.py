"""Decoding: token sequences from a step function that returns logits.

A step is a function ``(params, state, token) -> (state, logits)`` around any cell or stack of
cells, with an embedding and an output layer:

    >>> import jax, jax.numpy as jnp, jaxrnn as rnn
    >>> stack = rnn.layers.Stack((rnn.LSTM(8), rnn.GRU(8)))
    >>> def step(params, state, token):
    ...     embedding, layers, output_kernel = params
    ...     state, y = stack.step(layers, state, embedding[token])
    ...     return state, y @ output_kernel
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

All functions are batched and jitted. Arrays that do not change from step to step, such as the
encoder outputs that a decoder attends to, are best passed in ``params``, which is not copied per
beam or reordered with the beams.
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
