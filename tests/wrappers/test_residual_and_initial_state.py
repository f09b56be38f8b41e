"""Residual sums, learned initial states, and states given out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.wrappers import EmitState, LearnedInitialState, Residual, Zoneout
from tests.support import sequence_loop
from tests.support.drawing import draw
from tests.support.helpers import assert_near, weighted_sum
from tests.support.numpy_cells import GRU, LSTM

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
MASK, STARTS = RNG.integers(0, 2, size=(2, 6, 4)).astype(bool)


def test_a_residual_cell_adds_its_input():
    cell = Residual(rnn.GRU(3))
    params, state, xs = draw(cell, time=6)
    poisoned = np.where(MASK[..., None], xs, np.nan)

    def step(p, s, x):
        s, y = GRU.step(p, s, x)
        return s, x + y

    @jax.jit
    def run(params, xs, state):
        def loss(xs):
            out = rnn.unroll(cell, params, xs, state, mask=MASK, starts=STARTS)
            return weighted_sum(out), out

        return jax.grad(loss, has_aux=True)(xs)

    grad, got = run(params, poisoned, state)
    oracle = GRU._replace(step=step)
    assert_near(got, sequence_loop.run(oracle, params, xs, state, MASK, STARTS), 1e-12)
    assert (grad[~MASK] == 0).all()
    assert (grad[MASK] != 0).all()


def test_every_sequence_begins_in_the_learned_state():
    """Values, and the gradient of the initial state by the complex-step derivative."""
    cell = LearnedInitialState(rnn.LSTM(4))
    params, _, xs = draw(cell, time=6)

    @jax.jit
    def run(params):
        def loss(params):
            out = rnn.unroll(EmitState(cell), params, xs, mask=MASK, starts=STARTS)
            return weighted_sum(out), out

        return jax.grad(loss, has_aux=True)(params)

    def in_numpy(initial):
        def step(p, s, x):
            s, _ = LSTM.step(p, s, x)
            return s, s

        oracle = sequence_loop.Oracle(step, lambda p: initial)
        state = jax.tree.map(lambda leaf: np.stack([leaf] * 4), initial)
        return sequence_loop.run(oracle, params.cell, xs, state, MASK, STARTS)

    grads, got = run(params)
    assert_near(got, in_numpy(params.initial), 1e-12)
    directions = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), params.initial)
    tilted = jax.tree.map(lambda leaf, d: leaf + 1e-30j * d, params.initial, directions)
    slope = weighted_sum(jax.tree.map(np.imag, in_numpy(tilted))) / 1e-30
    along = sum(
        jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), grads.initial, directions))
    )
    np.testing.assert_allclose(along, slope, rtol=1e-10)


def test_learning_starts_where_the_cell_does():
    for cell in (rnn.GRU(3), rnn.LRU(3), rnn.SLSTM(4), rnn.ClockworkRNN(4, periods=(1, 2))):
        wrapped = LearnedInitialState(cell)
        params = wrapped.init(KEY, 3)
        assert_near(wrapped.init_state(params, (2,)), cell.init_state(params.cell, (2,)), 0.0)


def test_complex_numbers_are_learned_and_counters_are_not():
    cell = LearnedInitialState(rnn.LRU(3))
    params, _, _ = draw(cell)
    (learned,) = jax.tree.leaves(params.initial)
    (state,) = jax.tree.leaves(cell.init_state(params, (2,)))
    np.testing.assert_array_equal(state, np.stack([learned[0] + 1j * learned[1]] * 2))

    counting = rnn.from_step(
        lambda p, s, x: ((s[0] + x.astype("float32"), s[1] + 1), s[0]),
        init=lambda key, size, dtype: (),
        init_state=lambda p, b: (jnp.zeros((*b, 3), "float32"), jnp.full(b, 7, "int32")),
    )
    cell = LearnedInitialState(counting)
    params = cell.init(KEY, 3, "bfloat16")
    assert params.initial[1] is None
    params = params._replace(initial=(params.initial[0] + 2, None))
    (total, count), _ = rnn.unroll(cell, params, jnp.ones((4, 3), "bfloat16"))
    assert (total == 6).all()
    assert (total.dtype, int(count)) == ("float32", 11)


def test_a_state_is_emitted_as_the_step_leaves_it():
    cell = EmitState(Zoneout(rnn.LSTM(4), 0.5))
    params, state, xs = draw(cell, time=6)
    final, states = rnn.unroll(cell, params, xs, state, mask=MASK, starts=STARTS, key=KEY)
    for row in range(4):
        last = np.flatnonzero(MASK[:, row])[-1]
        assert_near(
            jax.tree.map(lambda s: s[last, row], states),  # noqa: B023
            jax.tree.map(lambda s: s[row], final),  # noqa: B023
            0.0,
        )
    assert not any(leaf[~MASK].any() for leaf in states)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Residual(rnn.GRU(3)).init(KEY, 4), "got 4 features and 3 for GRU"),
        (
            lambda: rnn.unroll(Residual(rnn.GRU(3)), rnn.GRU(3).init(KEY, 4), np.ones((2, 4))),
            r"got \(4,\) and \(3,\) for GRU; change the sizes",
        ),
        (lambda: Residual(3), "cell must have the methods step and init_state, got 3"),
        (lambda: LearnedInitialState(rnn.GRU), "cell must be an instance, got the class GRU"),
    ],
)
def test_errors_name_the_argument(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bad()
