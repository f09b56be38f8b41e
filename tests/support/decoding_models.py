"""Small language models with random weights, in JAX and in NumPy, and all their sequences."""

import itertools

import jax.numpy as jnp
import numpy as np


def draw(vocabulary, hidden, seed=0):
    """Parameters of `step`, biases among them."""
    random = np.random.default_rng(seed)
    shapes = (
        (vocabulary, hidden),
        (hidden, hidden),
        (hidden,),
        (hidden, vocabulary),
        (vocabulary,),
    )
    return tuple(1.5 * random.normal(size=shape) for shape in shapes)


def step(params, state, token):
    """An Elman network with an embedding, an output layer and a step counter."""
    embedding, kernel, bias, readout, offset = params
    h, count = state
    h = jnp.tanh(jnp.asarray(embedding)[token] + h @ kernel + bias)
    return (h, count + 1), h @ readout + offset


def states(batch, hidden, seed=1):
    """Random states for `step`, leaves [*batch, ...]."""
    h = np.random.default_rng(seed).normal(size=(*batch, hidden))
    return h, np.zeros(batch, np.int32)


def log_probs(params, h, tokens):
    """The log-probabilities of every continuation of a row's tokens, the first given: [vocab]."""
    embedding, kernel, bias, readout, offset = params
    for token in tokens:
        h = np.tanh(embedding[token] + h @ kernel + bias)
    logits = h @ readout + offset
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def score(params, h, first, tokens):
    """The log-probability of a row's tokens."""
    return sum(log_probs(params, h, (first, *tokens[:t]))[token] for t, token in enumerate(tokens))


def sequences(vocabulary, length, end):
    """All sequences that can be decoded: those with an end token, and unfinished ones."""
    for n in range(1, length + 1):
        for tokens in itertools.product(range(vocabulary), repeat=n):
            ended = tokens[-1] == end
            if end not in tokens[:-1] and (ended or n == length):
                yield tokens
