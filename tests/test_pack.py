"""Packed sequences behave as each does alone."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.helpers import assert_near, weighted_sum

INPUT, ROWS, LONGEST, COUNT = 2, 4, 6, 5
LENGTHS = st.lists(st.integers(0, LONGEST), min_size=COUNT, max_size=COUNT)
examples = hypothesis.settings(max_examples=15, deadline=None, derandomize=True)

LAYER = rnn.layers.Bidirectional(
    rnn.wrappers.EmitState(rnn.wrappers.LearnedInitialState(rnn.LSTM(3))),
    rnn.wrappers.EmitState(rnn.GRU(3)),
    merge=lambda forward, backward: (forward, backward),
)


@functools.cache
def drawn():
    rng = np.random.default_rng(0)
    params = LAYER.init(jax.random.key(0), INPUT)
    return jax.tree.map(lambda leaf: leaf + 0.5 * rng.normal(size=leaf.shape), params)


@jax.jit
def run(params, xs, mask, starts, weights):
    """Every state of both directions, and gradients of their sum with these weights."""

    def objective(params, xs):
        _, ys = LAYER.apply(params, None, xs, mask=mask, starts=starts)
        return sum(jax.tree.leaves(jax.tree.map(lambda w, y: (w * y).sum(), weights, ys))), ys

    return jax.grad(objective, argnums=(0, 1), has_aux=True)(params, xs)


@jax.jit
def run_alone(params, xs, length, weights):
    """One sequence, padded to one length so that a single compilation serves all."""

    def objective(params, xs):
        final, ys = LAYER.apply(params, None, xs, lengths=length)
        return sum(jax.tree.leaves(jax.tree.map(lambda w, y: (w * y).sum(), weights, ys))), (
            final,
            ys,
        )

    return jax.grad(objective, argnums=(0, 1), has_aux=True)(params, xs)


def state_like(make):
    """What the layer gives out, each leaf by ``make()``."""
    return rnn.LSTMState(make(), make()), rnn.GRUState(make())


@examples
@hypothesis.given(LENGTHS, st.integers(0, 99))
def test_packed_as_alone(lengths, seed):
    """Values, final states and gradients, forward and in reverse."""
    params, rng = drawn(), np.random.default_rng(seed)
    sequences = [rng.normal(size=(n, INPUT)) for n in lengths]
    packed = rnn.pack(sequences, row_length=LONGEST + 2, rows=ROWS)
    xs = np.where(packed.mask[..., None], packed.xs, np.nan)
    weights = state_like(lambda: rng.normal(size=(*packed.mask.shape, 3)))
    out = run(params, xs, packed.mask, packed.starts, weights)
    (grads, grad_xs), ys = jax.device_get(out)

    unpacked, finals = packed.unpack(ys), (packed.final(ys[0]), packed.final(ys[1], reverse=True))
    weights, grads_xs = packed.unpack(weights), packed.unpack(grad_xs)
    total = jax.tree.map(np.zeros_like, grads)
    for i, n in enumerate(lengths):
        pad = lambda leaf: np.pad(leaf, ((0, LONGEST - n), (0, 0)))  # noqa: B023, E731
        alone = jax.tree.map(pad, (sequences[i], weights[i]))
        (own, own_xs), (final, own_ys) = jax.device_get(
            run_alone(params, alone[0], np.int32(n), alone[1])
        )
        cut = functools.partial(jax.tree.map, lambda leaf: leaf[:n])  # noqa: B023
        assert_near(unpacked[i], cut(own_ys), 1e-12)
        assert_near(grads_xs[i], cut(own_xs), 1e-12)
        if n > 0:
            assert_near(jax.tree.map(lambda leaf: leaf[i], finals), tuple(final), 1e-12)  # noqa: B023
        else:
            assert not any(np.any(leaf[i]) for leaf in jax.tree.leaves(finals))
        total = jax.tree.map(np.add, total, own)
    assert_near(grads, total, 1e-11)


@examples
@hypothesis.given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(9, 14), st.integers(0, 3)
)
def test_the_layout_holds_each_sequence_once(lengths, row_length, spare):
    """And no more rows than first-fit would ever need: no two rows would fit into one."""
    rng = np.random.default_rng(1)
    sequences = [
        {"x": rng.normal(size=(n, 2)).astype("float32"), "token": rng.integers(1, 9, size=n)}
        for n in lengths
    ]
    packed = rnn.pack(sequences, row_length=row_length)
    for back, sequence in zip(packed.unpack(packed.xs), sequences, strict=True):
        assert_near(back, jax.tree.map(np.asarray, sequence), 0)
    assert packed.mask.sum() == sum(lengths)
    assert packed.starts.sum() == sum(n > 0 for n in lengths)
    assert not packed.xs["token"][~packed.mask].any()
    assert (packed.xs["x"].dtype, packed.mask.shape[0]) == ("float32", row_length)
    filled = np.sort(packed.mask.sum(axis=0))
    assert len(filled) < 2 or filled[0] + filled[1] > row_length or filled[0] == 0

    wider = rnn.pack(sequences, row_length=row_length, rows=packed.mask.shape[1] + spare)
    assert not wider.mask[:, packed.mask.shape[1] :].any()
    np.testing.assert_array_equal(wider.rows, packed.rows)


def test_a_row_is_as_long_as_the_longest_sequence_by_default():
    packed = rnn.pack([np.ones(n) for n in (3, 7, 4)])
    assert packed.mask.shape == (7, 2)
    assert rnn.pack([np.ones((0, 2))]).mask.shape == (1, 1)


def test_outputs_are_unpacked_under_transformations():
    packed = rnn.pack([np.ones((n, 1)) for n in (2, 0, 3)])

    @jax.jit
    @jax.grad
    def gradient(ys):
        first, empty, last = packed.unpack(ys)
        return weighted_sum(first) + 3 * weighted_sum(last) + weighted_sum(packed.final(ys))

    ys = jnp.ones(packed.mask.shape + (1,))
    assert (np.asarray(gradient(ys) != 0)[..., 0] == packed.mask).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: rnn.pack(np.ones((3, 2))), r"sequences must be a list .* got ndarray"),
        (lambda: rnn.pack([]), "sequences must hold at least one"),
        (lambda: rnn.pack([np.ones(2), 3.0]), r"sequences\[1\] must hold arrays whose first axis"),
        (lambda: rnn.pack([()]), r"sequences\[0\] must hold arrays"),
        (lambda: rnn.pack([np.ones(2), (np.ones(2),)]), r"sequences\[1\] must have the structure"),
        (lambda: rnn.pack([np.ones((2, 3)), np.ones((2, 4))]), r"sequences\[1\] has shapes"),
        (lambda: rnn.pack([np.ones(2), np.ones(2, int)]), r"sequences\[1\] has shapes and dtypes"),
        (lambda: rnn.pack([(np.ones(2), np.ones(3))]), r"sequences\[0\] .* must agree in time"),
        (lambda: rnn.pack([np.ones(5)], row_length=4), r"row_length .* sequences\[0\] has 5 steps"),
        (lambda: rnn.pack([np.ones(5)], row_length=0), "row_length must be a positive int, got 0"),
        (lambda: rnn.pack([np.ones(5)] * 3, rows=2), "rows must be at least 3 .* got 2"),
        (lambda: rnn.pack([np.ones(5)], rows=True), "rows must be a positive int, got True"),
        (lambda: jax.jit(lambda x: rnn.pack([x]).xs)(np.ones(3)), r"sequences\[0\] is traced"),
        (lambda: rnn.pack([np.ones(3)]).unpack(np.ones((2, 1))), r"ys must begin .* \(3, 1\)"),
    ],
)
def test_errors_name_the_argument(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bad()
