"""Text that a character model writes, and how much of it is copied."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.char_lm.data import Corpus, longest_copy

PROMPT = 400
"""Characters that a model reads before it writes."""


class Sample(NamedTuple):
    """A text that a model wrote, and its longest run of characters out of the training text."""

    temperature: float
    text: str
    copied: str


def write(
    model: Any,
    params: Any,
    corpus: Corpus,
    key: jax.Array,
    temperatures: Sequence[float],
    length: int,
) -> tuple[Sample, ...]:
    """Lets a model write at each temperature, as at the beginning of a line.

    It reads the end of the training text first: a state of zeros, which it has hardly met, leads
    one sample in sixteen astray for good.

    Args:
        model: a value with `init_state(params, rows)` and `apply(params, state, tokens)`, which
            gives a state and logits `[time, rows, vocabulary]` for tokens `[time, rows]`.
        params: its parameters.
        corpus: what it was trained on.
        key: randomness.
        temperatures: 0 always takes the likeliest character, 1 follows the model.
        length: how many characters to write.
    """
    first = max(0, corpus.vocabulary.find("\n"))
    read = corpus.text[: len(corpus.train)]
    before = corpus.train[max(0, read.rfind("\n") - PROMPT) : max(0, read.rfind("\n"))]
    tokens = draw(model, params, key, jnp.array(temperatures), first, length, jnp.array(before))
    texts = [corpus.decode(column) for column in np.asarray(tokens).T]
    return tuple(
        Sample(temperature, text, longest_copy(text, read))
        for temperature, text in zip(temperatures, texts, strict=True)
    )


@partial(jax.jit, static_argnames=("model", "length"))
def draw(
    model: Any,
    params: Any,
    key: jax.Array,
    temperatures: jax.Array,
    first: int,
    length: int,
    before: jax.Array | None = None,
) -> jax.Array:
    """Draws tokens one after another, `[length, temperatures]`, after a first one.

    `before [n]` is read before the first.
    """

    def step(carry, key):
        state, tokens = carry
        state, logits = model.apply(params, state, tokens[None])
        # The largest of logits / temperature + Gumbel noise is a draw from their softmax; times the
        # temperature it holds for 0 as well.
        noise = jax.random.gumbel(key, logits[0].shape)
        tokens = jnp.argmax(logits[0] + temperatures[:, None] * noise, -1).astype(tokens.dtype)
        return (state, tokens), tokens

    rows = len(temperatures)
    state = model.init_state(params, rows)
    if before is not None and before.size:
        prompt = jnp.broadcast_to(before.astype(jnp.int32)[:, None], (before.size, rows))
        state, _ = model.apply(params, state, prompt)
    carry = state, jnp.full(rows, first, jnp.int32)
    return jax.lax.scan(step, carry, jax.random.split(key, length))[1]


def describe(samples: Sequence[Sample], corpus: Corpus) -> str:
    """Shows samples with what they copy, beside what the held-out text shares by chance."""
    read = corpus.text[: len(corpus.train)]
    parts = []
    for temperature, text, copied in samples:
        held_out = corpus.text[len(read) :][: len(text)]
        parts.append(
            f"--- temperature {temperature:g}; longest run that stands in the training text: "
            f"{len(copied)} characters, {copied!r} (in as much of the held-out text: "
            f"{len(longest_copy(held_out, read))})\n\n{text}\n"
        )
    return "\n".join(parts)
