"""Beam search against exhaustive enumeration, against greedy, and against a loop in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import decoding
from tests.support import decoding_models as models

V, H, END = 3, 4, 2
PARAMS = models.draw(V, H, seed=5)


def normalized(h, first, tokens, penalty):
    return models.score(PARAMS, h, first, tokens) / len(tokens) ** penalty


@pytest.mark.parametrize(
    "end, penalty",
    [
        (None, 0.0),
        (END, 0.7),
        (END, 1.0),
        *(pytest.param(*case, marks=pytest.mark.thorough) for case in ((None, 0.7), (END, 0.0))),
    ],
)
def test_exhaustive_beams_rank_all_sequences(end, penalty):
    length, batch = 4, (2, 2)
    state = models.states(batch, H)
    first = np.random.default_rng(2).integers(0, V, batch)
    found = list(models.sequences(V, length, end))
    width = len(found) + 3
    beams = decoding.beam_search(
        models.step,
        PARAMS,
        state,
        first,
        length=length,
        width=width,
        end=end,
        length_penalty=penalty,
    )
    assert beams.tokens.shape == (length, *batch, width)
    for row in np.ndindex(batch):
        h = state[0][row]
        best = sorted(found, key=lambda tokens: -normalized(h, first[row], tokens, penalty))
        scores = [normalized(h, first[row], tokens, penalty) for tokens in best]
        np.testing.assert_allclose(beams.scores[row][: len(best)], scores, rtol=1e-9)
        assert (beams.scores[row][len(best) :] == -np.inf).all()
        for number, want in enumerate(best):
            got = tuple(np.asarray(beams.tokens)[(slice(None), *row, number)])
            assert got == want + (end,) * (length - len(want))
            assert beams.lengths[row][number] == len(want) - (want[-1] == end)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_one_beam_is_greedy(penalty):
    state, first = models.states((20,), H), np.arange(20) % V
    greedy = decoding.greedy(models.step, PARAMS, state, first, length=6, end=END)
    beam = decoding.beam_search(
        models.step, PARAMS, state, first, length=6, width=1, end=END, length_penalty=penalty
    )
    np.testing.assert_array_equal(beam.tokens[..., 0], greedy.tokens)
    np.testing.assert_array_equal(beam.lengths[..., 0], greedy.lengths)
    counts = np.minimum(np.asarray(greedy.lengths) + 1, 6) ** penalty
    np.testing.assert_allclose(beam.scores[..., 0], greedy.scores / counts, rtol=1e-9)


def search(h, first, length, width, end, penalty):
    """Beam search of a row, over tuples of tokens."""
    kept = [()]
    for _ in range(length):
        offers = []
        for tokens in kept:
            ended = tokens[-1:] == (end,)
            offers += [tokens] if ended else [(*tokens, token) for token in range(V)]
        kept = sorted(offers, key=lambda tokens: -normalized(h, first, tokens, penalty))[:width]
    return kept


@pytest.mark.parametrize("width", [2, 4])
def test_narrow_beams_match_a_plain_loop(width):
    state, first = models.states((6,), H), np.arange(6) % V
    beams = decoding.beam_search(
        models.step, PARAMS, state, first, length=5, width=width, end=END, length_penalty=0.6
    )
    wide = decoding.beam_search(
        models.step, PARAMS, state, first, length=5, width=99, end=END, length_penalty=0.6
    )
    for row in range(6):
        for number, want in enumerate(search(state[0][row], first[row], 5, width, END, 0.6)):
            got = tuple(np.asarray(beams.tokens)[:, row, number])
            assert got == want + (END,) * (5 - len(want))
    assert (beams.scores[:, 0] <= wide.scores[:, 0] + 1e-12).all()
    assert (np.diff(beams.scores, axis=-1) <= 0).all()


def test_a_length_penalty_favors_longer_sequences():
    table = jnp.log(jnp.array([[0.5, 0.0, 0.5], [0.1, 0.1, 0.8], [1, 1, 1]]) + 1e-9)

    def step(table, state, token):
        return state, table[token]

    def best(penalty):
        beams = decoding.beam_search(
            step, table, (), jnp.array(0), length=6, width=30, end=2, length_penalty=penalty
        )
        return int(beams.lengths[0])

    assert best(0.0) == 0
    assert best(jnp.float64(1.0)) >= best(0.0)
    assert best(3.0) == 6


def test_a_step_sees_its_batch_axes_without_beams():
    """As in attention: rows of a memory in params, and rows of the state."""
    memory = np.random.default_rng(4).normal(size=(3, 7, H))  # [batch, time, features]

    def step(params, state, token):
        weights, memory = params
        (h, count), logits = models.step(weights, state, token)
        weights = jax.nn.softmax(jnp.einsum("bh,bth->bt", h, memory))
        h = h + jnp.einsum("bt,bth->bh", weights, memory)
        return (h, count), logits

    state, first = models.states((3,), H), np.zeros(3, int)
    together = decoding.beam_search(
        step, (PARAMS, memory), state, first, length=4, width=3, end=END
    )
    for row in range(3):
        one = slice(row, row + 1)
        alone = decoding.beam_search(
            step,
            (PARAMS, memory[one]),
            jax.tree.map(lambda leaf, one=one: leaf[one], state),
            first[one],
            length=4,
            width=3,
            end=END,
        )
        np.testing.assert_array_equal(alone.tokens[:, 0], together.tokens[:, row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-9)


def test_an_empty_batch():
    state = models.states((0,), H)
    beams = decoding.beam_search(
        models.step, PARAMS, state, np.zeros(0, int), length=3, width=2, end=END
    )
    assert beams.tokens.shape == (3, 0, 2) and beams.scores.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be a positive int, got 0"),
        ({"length_penalty": "long"}, TypeError, "length_penalty must be a number, got 'long'"),
    ],
)
def test_errors(change, error, message):
    state, first = models.states((2,), H), np.zeros(2, int)
    with pytest.raises(error, match=re.escape(message)):
        decoding.beam_search(
            models.step, PARAMS, state, first, **({"length": 2, "width": 2} | change)
        )
