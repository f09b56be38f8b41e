"""The CTC loss against all paths, padding, phonemes, SpecAugment."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.data.batching import Size
from experiments.speech import train as speech
from experiments.speech.data import Labels, pad
from experiments.speech.model import spec_augment


def make(**changes):
    sizes = dict(hidden=3, bands=4, stacked=1, dropout=0.0, letters=0)
    model = speech.make_model(speech.Config(**sizes | changes))
    return model, jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape),
        jax.jit(model.init)(jax.random.key(0)),
    )


def all_paths_loss(logits, text):
    """Minus the logarithm of the sum over all paths that collapse to a text."""
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    total = 0.0
    for path in itertools.product({0, *text}, repeat=len(logits)):
        if [label for label, _ in itertools.groupby(path) if label] == text:
            total += np.prod([p[label] for p, label in zip(probabilities, path, strict=True)])
    return -np.log(total)


def test_the_loss_is_that_of_all_paths_and_ignores_padding():
    model, params = make(layers=1, phonemes=0.0)
    random = np.random.default_rng(0)
    features = [random.normal(size=(n, 4)).astype(np.float32) for n in (4, 3, 2)]
    texts = [[1, 3], [2, 2], [5]]
    apply, wanted = jax.jit(model.apply), 0.0
    for frames, text in zip(features, texts, strict=True):
        padded = np.full((4, 1, 4), np.nan, np.float32)
        padded[: len(frames), 0] = frames
        logits, _ = apply(params, padded, jnp.array([len(frames)]))
        wanted += all_paths_loss(logits[: len(frames), 0], text)
    labels = [Labels(text) for text in texts]
    sizes = (Size(4, 2), Size(9, 5))
    for size in sizes:  # the batch is cut to the smaller size, or padded to the larger one
        cut = jax.jit(lambda *given, size=size: model.bucketed_loss(*given, (size, sizes[1])))
        found = cut(params, pad(features, labels, sizes[1]), None)
        np.testing.assert_allclose(found, wanted / 5, rtol=1e-4)


def test_a_key_turns_on_dropout_and_spec_augment():
    xs, lengths = jnp.ones((20, 2, 4)), jnp.array([20, 16])
    key = jax.random.key(4)

    def applied(dropout, xs, key):
        model, params = make(layers=2, phonemes=0.7, dropout=dropout)
        return jax.jit(model.apply)(params, xs, lengths, key)

    masked = spec_augment(jax.random.split(key, 5)[0], xs, 4, lengths)
    chex.assert_trees_all_close(applied(0.0, xs, key), applied(0.0, masked, None), rtol=1e-6)
    for dropped, kept in zip(applied(0.5, xs, key), applied(0.0, xs, key), strict=True):
        assert not np.allclose(dropped, kept)


def test_the_loss_of_the_phonemes_is_added_in_training():
    """By its weight, per letter; an utterance without phonemes adds nothing."""
    model, params = make(layers=2, phonemes=0.7)
    key = jax.random.key(2)
    features = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    labels = [Labels([1, 3], [7, 2, 2]), Labels([4]), Labels([5, 2], [39])]
    batch = pad(list(features), labels, Size(5, 3))
    letters, phonemes = jax.jit(model.apply)(params, batch.features, jnp.array([5] * 3), key)
    wanted = sum(all_paths_loss(letters[:, i], labels[i].letters) for i in range(3))
    wanted += 0.7 * sum(all_paths_loss(phonemes[:, i], labels[i].phonemes) for i in (0, 2))
    # The smaller size holds the letters but not the phonemes.
    loss = jax.jit(lambda *given: model.bucketed_loss(*given, (Size(5, 2), Size(5, 3))))
    value, gradient = jax.value_and_grad(loss)(params, batch, key)
    np.testing.assert_allclose(value, wanted / 5, rtol=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_spec_augment_masks_time_and_bands_of_each_row():
    lengths = jnp.array([40, 24])
    xs = jnp.ones((40, 2, 30))
    hidden = np.asarray(spec_augment(jax.random.key(3), xs, 10, lengths)) == 0
    whole = hidden.all(2)
    assert (whole.sum(0) <= lengths / 4 + 2).all() and whole.any()
    bands = hidden[~whole[:, 0], 0].all(0).reshape(3, 10)
    assert (bands == bands[0]).all() and bands.sum() <= 9
    assert (hidden[:, 0] != hidden[:, 1]).any()
    empty = spec_augment(jax.random.key(3), xs, 10, jnp.zeros(2, jnp.int32))
    assert np.isfinite(empty).all()
