"""Weight drop: the same weights are missing at every step of every row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.wrappers import LearnedInitialState, WeightDrop, Zoneout
from tests.support import sequence_loop
from tests.support.drawing import assert_drawn_apart, assert_rate, draw
from tests.support.helpers import assert_near
from tests.support.numpy_cells import GRU

KEY, RATE = jax.random.key(3), 0.4

SHOWN = rnn.from_step(
    lambda params, state, x: (state, x + params["recurrent_kernel"]),
    init=lambda key, size, dtype: {"recurrent_kernel": jnp.ones(size, dtype), "bias": jnp.ones(2)},
    init_state=lambda params, batch: (),
)


def test_weights_are_dropped_once_a_sequence_for_the_whole_batch():
    cell = WeightDrop(SHOWN, RATE)
    params, xs = cell.init(KEY, 1000, "float64"), np.zeros((4, 2, 1000))
    starts = np.eye(4, 2, dtype=bool)
    ys = np.asarray(rnn.unroll(cell, params, xs, starts=starts, key=KEY)[1])
    np.testing.assert_array_equal(ys, np.broadcast_to(ys[0, 0], ys.shape))
    np.testing.assert_allclose(np.unique(ys), [0, 1 / (1 - RATE)])
    assert_rate(ys[0, 0] == 0, RATE)
    assert (rnn.unroll(cell, params, xs)[1] == 1).all()


def test_against_a_loop_with_the_weights_that_are_left():
    cell = WeightDrop(rnn.GRU(6), RATE)
    params, state, xs = draw(cell, time=5, batch=(3,))
    mask, starts = np.random.default_rng(0).integers(0, 2, size=(2, 5, 3)).astype(bool)
    bound = jax.tree.map(np.asarray, cell.bind(params, KEY, (3,)))
    dropped = bound.recurrent_kernel == 0
    np.testing.assert_allclose(
        bound.recurrent_kernel, np.where(dropped, 0, params.recurrent_kernel / (1 - RATE))
    )
    assert_rate(dropped, RATE)
    assert_drawn_apart(dropped)
    assert_near(bound._replace(recurrent_kernel=params.recurrent_kernel), params, 0.0)

    poisoned = np.where(mask[..., None], xs, np.nan)
    got = rnn.unroll(cell, bound, poisoned, state, mask=mask, starts=starts)
    assert_near(got, sequence_loop.run(GRU, bound, xs, state, mask, starts), 1e-12)


def test_dropped_weights_have_no_gradient():
    cell = WeightDrop(rnn.GRU(6), RATE)
    params, state, xs = draw(cell, time=3, batch=(2,))

    @jax.jit
    def both(params):
        def loss(params, key):
            return rnn.unroll(cell, params, xs, state, key=key)[1].sum()

        return jax.grad(loss)(params, KEY), jax.grad(loss)(params, None)

    some, every = both(params)
    assert_rate(some.recurrent_kernel == 0, RATE)
    assert (every.recurrent_kernel != 0).all()


def test_kernels_are_found_inside_of_wrappers_and_stacks():
    nest = WeightDrop(LearnedInitialState(Zoneout(rnn.LSTM(8), 0.1)), RATE)
    bound = nest.bind(nest.init(KEY, 3), KEY, ())
    assert_rate(bound.cell.recurrent_kernel == 0, RATE)
    stack = WeightDrop(rnn.layers.Stack((rnn.LSTM(8), rnn.LSTM(8))), RATE)
    first, second = stack.bind(stack.init(KEY, 3), KEY, ())
    assert_rate(second.recurrent_kernel == 0, RATE)
    assert ((first.recurrent_kernel == 0) != (second.recurrent_kernel == 0)).any()
    both = WeightDrop(rnn.LSTM(8), RATE, kernels=("input_kernel", "recurrent_kernel"))
    bound = both.bind(both.init(KEY, 8), KEY, ())
    assert_rate(bound.input_kernel == 0, RATE)
    assert ((bound.input_kernel == 0) != (bound.recurrent_kernel == 0)).any()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: WeightDrop(rnn.GRU(3), 1), r"rate .* must lie in \[0, 1\), got 1"),
        (lambda: WeightDrop(rnn.GRU(3), 0.1, "bias"), "kernels must be a tuple of field names"),
        (lambda: WeightDrop(rnn.GRU(3), 0.1, ()), "kernels must be a tuple of field names"),
        (lambda: WeightDrop(rnn.LRU(3), 0.1).init(KEY, 3), "kernels must name .* fields are log_"),
    ],
)
def test_errors_name_the_argument(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bad()
