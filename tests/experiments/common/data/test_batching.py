"""Vocabularies, batches of pairs, length buckets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.data.batching import (
    BEGIN,
    END,
    PAD,
    UNKNOWN,
    Size,
    Vocabulary,
    bucketed_loss,
    chunks,
    pad,
    pair_batches,
)

# Numbers ------------------------------------------------------------------------------------------


def test_token_ids_of_known_and_unknown_symbols():
    vocabulary = Vocabulary.build(["banana", "ab"])
    assert vocabulary.symbols == ("a", "b", "n") and len(vocabulary) == 7
    numbers = vocabulary.encode("nab?")
    assert numbers == [6, 4, 5, UNKNOWN]
    assert vocabulary.decode([*numbers, END, 4]) == ["n", "a", "b", "<?>"]


def random_pairs(count=57, seed=0):
    random = np.random.default_rng(seed)
    draw = lambda: [list(random.integers(4, 9, random.integers(1, 12))) for _ in range(count)]  # noqa: E731
    return draw(), draw()


def read(batch):
    """The pairs of a batch, read back from its arrays."""
    assert (batch.target[0] == BEGIN).all()
    rows = []
    for source, target in zip(batch.source.T, batch.target[1:].T, strict=True):
        x, y = list(source).index(END), list(target).index(END)
        assert (source[x + 1 :] == PAD).all() and (target[y + 1 :] == PAD).all()
        rows.append((tuple(source[:x]), tuple(target[:y])))
    return rows


def test_an_epoch_contains_every_pair_and_few_repeats():
    sources, targets = random_pairs()
    pairs = {(tuple(x), tuple(y)) for x, y in zip(sources, targets, strict=True)}
    batches = pair_batches(sources, targets, batch_size=5, seed=3)
    assert batches.sizes[-1] == (11, 11) and len(batches.sizes) > 1
    orders = []
    steps = batches.epoch_steps
    for epoch in range(2):
        seen = [read(batches(epoch * steps + i)) for i in range(steps)]
        orders.append(seen)
        assert {pair for rows in seen for pair in rows} == pairs
        assert sum(map(len, seen)) < len(pairs) + 5 * 5
        for rows in seen:  # alike in length
            lengths = [[len(side) for side in pair] for pair in rows]
            fits = (np.array(lengths)[:, None] <= np.array(batches.sizes)).all(2)
            assert len(set(fits.argmax(1))) == 1 and fits.any(1).all()
    assert orders[0] != orders[1]
    again = pair_batches(sources, targets, batch_size=5, seed=3)
    np.testing.assert_array_equal(again(7).source, batches(7).source)


def test_shares_that_end_at_the_same_length_have_one_size():
    batches = pair_batches([[4], [4, 5], [4, 5], [5, 5]], [[4]] * 4, batch_size=2, seed=0)
    assert batches.sizes == ((2, 1),)
    batches = pair_batches([[4], [5], [4, 5], [5] * 9], [[4]] * 4, batch_size=2, seed=0)
    assert batches.sizes == ((1, 1), (2, 1), (9, 1))


def test_a_few_pairs_fill_a_batch_by_repeats():
    batches = pair_batches([[4], [5]], [[6], [7, 8]], batch_size=4, seed=0)
    assert sorted(set(read(batches(0)) + read(batches(1)))) == [((4,), (6,)), ((5,), (7, 8))]


def test_chunks_hold_all_pairs_once_at_the_smallest_size():
    sources, targets = random_pairs()
    found, sizes = {}, (Size(4, 5), Size(8, 9), Size(11, 11))
    for indices, batch in chunks(sources, targets, 10, sizes):
        assert Size(len(batch.source) - 1, len(batch.target) - 2) in sizes
        found |= dict(zip(map(int, indices), read(batch), strict=False))
    assert found == {
        i: (tuple(x), tuple(y)) for i, (x, y) in enumerate(zip(sources, targets, strict=True))
    }


def test_pairs_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="broadcast"):
        pad([[4, 5, 6]], [[4]], Size(2, 2))


# The loss of a bucket ----------------------------------------------------------------------------

XS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
PARAMS = {"a": np.float32(0.7), "b": np.array([0.3, -1.2, 0.5], np.float32)}


def loss(size, params, xs, key):
    noise = jax.random.normal(key, xs.shape)[:size]
    return (jnp.sin(params["a"] * xs[:size] + params["b"]) * (1 + noise)).sum() / size


LOSSES = [lambda *given, size=size: loss(size, *given) for size in (2, 4, 7)]


def test_value_and_gradient_are_those_of_the_size_that_is_chosen():
    key = jax.random.key(0)

    def chosen(params, index):
        return 3 * bucketed_loss(index, LOSSES, params, XS, key)

    differentiated = jax.jit(jax.value_and_grad(chosen))
    for index, loss in enumerate(LOSSES):
        want = jax.value_and_grad(lambda params, loss=loss: 3 * loss(params, XS, key))(PARAMS)
        found = differentiated(PARAMS, index)
        jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5), found, want)
    np.testing.assert_allclose(chosen(PARAMS, 2), want[0], rtol=1e-5)


def test_several_seeds_side_by_side_choose_one_size_and_get_gradients_of_their_own():
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    several = jax.tree.map(lambda leaf: jnp.stack([leaf * (1 + k) for k in range(4)]), PARAMS)
    gradient = jax.grad(lambda params, key: bucketed_loss(1, LOSSES, params, XS, key))
    found = jax.jit(jax.vmap(gradient))(several, keys)
    expected = jax.vmap(jax.grad(lambda params, key: LOSSES[1](params, XS, key)))(several, keys)
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5), found, expected)


def test_nothing_is_kept_of_sizes_that_are_not_taken():
    """Residuals of all branches would be 7 + 4 + 2 rows; here only gradients leave the switch."""

    def chosen(params, index):
        return bucketed_loss(index, LOSSES, params, XS, jax.random.key(0))

    kept = jax.eval_shape(lambda params: jax.vjp(lambda p: chosen(p, 1), params)[1], PARAMS)
    leaves = [leaf for leaf in jax.tree.leaves(kept) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert sum(leaf.size for leaf in leaves) <= sum(np.size(leaf) for leaf in PARAMS.values())
