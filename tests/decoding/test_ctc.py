"""CTC decoding against the enumeration of all paths."""

import collections
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import decoding

LABELS, TIME = 3, 5


def collapse(path, blank):
    """The labeling of a path."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def labelings(probabilities, blank):
    """The probability of every labeling, summed over all paths ``[time, labels]``."""
    totals = collections.Counter()
    for path in itertools.product(range(probabilities.shape[1]), repeat=len(probabilities)):
        probability = np.prod([p[label] for p, label in zip(probabilities, path, strict=True)])
        totals[collapse(path, blank)] += probability
    return totals


def draw(shape, seed=0):
    logits = 2 * np.random.default_rng(seed).normal(size=shape)
    return logits, np.asarray(jax.nn.softmax(logits))


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_has_the_exact_probability_of_every_labeling(blank):
    batch, width = (2, 2), 70
    logits, probabilities = draw((TIME, *batch, LABELS))
    lengths = np.array([[5, 3], [1, 0]])
    logits[3:, 0, 1] = np.nan  # what padding holds changes nothing
    beams = decoding.ctc_beam_search(logits, width=width, lengths=lengths, blank=blank)
    assert beams.tokens.shape == (TIME, *batch, width)
    for row in np.ndindex(batch):
        want = labelings(probabilities[(slice(lengths[row]), *row)], blank)
        best = sorted(want, key=lambda said: -want[said])
        assert len(best) < width
        for number, said in enumerate(best):
            got = np.asarray(beams.tokens)[(slice(None), *row, number)]
            assert tuple(got) == said + (blank,) * (TIME - len(said))
            assert beams.lengths[row][number] == len(said)
            np.testing.assert_allclose(np.exp(beams.scores[row][number]), want[said], rtol=1e-9)
        assert (beams.scores[row][len(best) :] == -np.inf).all()


def of_labels(params, state, label):
    """A language model whose probabilities depend on the whole prefix."""
    state = jnp.tanh(state @ params["again"] + params["label"][label])
    return state, state @ params["logits"]


def draw_model(seed, weight, bonus):
    random = np.random.default_rng(seed)
    sizes = {"again": (4, 4), "label": (LABELS, 4), "logits": (4, LABELS)}
    params = {name: 1.5 * random.normal(size=size) for name, size in sizes.items()}
    return decoding.LanguageModel(of_labels, params, random.normal(size=4), weight, bonus)


def likely(model, said, blank):
    """The model's probability of labels and their end."""
    state, probability = model.state, 1.0
    for label, following in itertools.pairwise((blank, *said, blank)):
        state, logits = of_labels(model.params, state, label)
        probability *= np.asarray(jax.nn.softmax(logits))[following]
    return probability


@pytest.mark.parametrize("blank", [pytest.param(0, marks=pytest.mark.thorough), 2])
def test_shallow_fusion_in_a_wide_beam_is_exact(blank):
    logits, probabilities = draw((TIME, 2, LABELS), seed=5)
    model = draw_model(6, weight=0.7, bonus=0.4)
    lengths = np.array([5, 2])
    beams = decoding.ctc_beam_search(
        logits, width=70, lengths=lengths, blank=blank, language_model=model
    )
    for row in range(2):
        paths = labelings(probabilities[: lengths[row], row], blank)
        want = {
            said: p * likely(model, said, blank) ** 0.7 * np.exp(0.4 * len(said))
            for said, p in paths.items()
        }
        best = sorted(want, key=lambda said: -want[said])
        for number, said in enumerate(best):
            n = int(beams.lengths[row, number])
            assert tuple(np.asarray(beams.tokens)[:n, row, number]) == said
            np.testing.assert_allclose(np.exp(beams.scores[row, number]), want[said], rtol=1e-8)
        assert (beams.scores[row, len(best) :] == -np.inf).all()


def test_a_cell_is_a_language_model_and_a_uniform_one_changes_nothing():
    logits, _ = draw((6, 3, LABELS), seed=7)
    plain = decoding.ctc_beam_search(logits, width=4)

    def even(state, label):
        return state, jnp.zeros((*label.shape, LABELS))

    # The bonus cancels the log 3 that every label costs; the end costs log 3 in all beams.
    model = decoding.LanguageModel(even, None, jnp.zeros(()), 1.0, np.log(3.0))
    advised = decoding.ctc_beam_search(logits, width=4, language_model=model)
    np.testing.assert_array_equal(advised.tokens, plain.tokens)
    np.testing.assert_allclose(advised.scores, plain.scores - np.log(3.0), rtol=1e-6)

    cell = rnn.GRU(LABELS)
    params = cell.init(jax.random.key(0), LABELS)

    def spelled(params, state, label):
        return cell.step(params, state, jax.nn.one_hot(label, LABELS))

    by_step = decoding.LanguageModel(spelled, params, cell.init_state(params))
    found = decoding.ctc_beam_search(logits, width=4, language_model=by_step)
    assert found.tokens.shape == plain.tokens.shape and np.isfinite(found.scores[:, 0]).all()
    assert not np.allclose(found.scores, plain.scores)


def test_narrow_beams_are_lower_bounds():
    logits, probabilities = draw((6, 8, LABELS), seed=3)
    for width in (1, 3):
        beams = decoding.ctc_beam_search(logits, width=width)
        assert (np.diff(beams.scores, axis=-1) <= 0).all()
        for row in range(8):
            want = labelings(probabilities[:, row], 0)
            seen = set()
            for number in range(width):
                n = int(beams.lengths[row, number])
                said = tuple(int(token) for token in beams.tokens[:n, row, number])
                assert said not in seen, "the same beam twice"
                seen.add(said)
                assert np.exp(beams.scores[row, number]) <= want[said] * (1 + 1e-9)


def test_a_maximum_length_keeps_the_short_labelings():
    logits, probabilities = draw((TIME, LABELS))
    beams = decoding.ctc_beam_search(logits, width=20, length=2)
    want = {said: p for said, p in labelings(probabilities, 0).items() if len(said) <= 2}
    assert beams.tokens.shape == (2, 20)
    found = {
        tuple(int(t) for t in beams.tokens[: int(n), number]): np.exp(score)
        for number, (n, score) in enumerate(zip(beams.lengths, beams.scores, strict=True))
        if np.isfinite(score)
    }
    assert found.keys() == want.keys()
    for said in want:
        np.testing.assert_allclose(found[said], want[said], rtol=1e-9)


@pytest.mark.parametrize("blank", [0, 1])
def test_greedy_collapses_the_most_probable_path(blank):
    logits, probabilities = draw((9, 4, 3, LABELS), seed=1)
    lengths = np.random.default_rng(2).integers(0, 10, (4, 3))
    decoded = decoding.ctc_greedy(logits, lengths=lengths, blank=blank)
    for row in np.ndindex(4, 3):
        n = lengths[row]
        said = collapse(probabilities[(slice(n), *row)].argmax(-1), blank)
        got = np.asarray(decoded.tokens)[(slice(None), *row)]
        assert tuple(got) == said + (blank,) * (9 - len(said))
        assert decoded.lengths[row] == len(said)
        best = probabilities[(slice(n), *row)].max(-1)
        np.testing.assert_allclose(decoded.scores[row], np.log(best).sum(), rtol=1e-9)


@pytest.mark.parametrize("shape", [(0, 2, LABELS), (4, 0, LABELS)])
def test_no_frames_and_an_empty_batch(shape):
    greedy = decoding.ctc_greedy(np.zeros(shape))
    beams = decoding.ctc_beam_search(np.zeros(shape), width=2)
    assert greedy.tokens.shape == shape[:2] and beams.tokens.shape == (*shape[:2], 2)
    assert (np.asarray(beams.lengths) == 0).all() and (np.asarray(beams.scores[:, :1]) == 0).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": np.zeros((3, 2), int)}, TypeError, "logits must be a floating-point array"),
        ({"logits": np.zeros(3)}, ValueError, "logits must have shape [time, *batch, labels]"),
        ({"blank": 3}, ValueError, "blank must be one of the 3 labels, got 3"),
        ({"lengths": [9]}, ValueError, "lengths must lie between 0 and the 4 steps"),
        ({"width": 0}, ValueError, "width must be a positive int, got 0"),
        ({"length": -1}, ValueError, "length must be a positive int, got -1"),
        ({"language_model": 3}, TypeError, "language_model must be a LanguageModel, got 3"),
        (
            {"language_model": decoding.LanguageModel(lambda s, t: (s, jnp.ones(2)), None, 0.0)},
            ValueError,
            "must return logits for the 3 labels of the frames, got 2",
        ),
    ],
)
def test_errors(change, error, message):
    arguments = {"logits": np.zeros((4, 1, 3)), "width": 2} | change
    with pytest.raises(error, match=re.escape(message)):
        decoding.ctc_beam_search(**arguments)
