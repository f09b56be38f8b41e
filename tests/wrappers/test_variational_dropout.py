"""Variational dropout: one mask a row, a kernel and a sequence, on what the kernel multiplies."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.wrappers import EmitState, VariationalDropout, WeightDrop, Zoneout
from tests.support import sequence_loop
from tests.support.drawing import assert_drawn_apart, assert_rate, draw
from tests.support.helpers import assert_near
from tests.support.numpy_cells import ELMAN, GRU, LSTM

KEY = jax.random.key(3)
IN, REC = 0.25, 0.5


class Kernels(NamedTuple):
    input_kernel: jax.Array
    recurrent_kernel: jax.Array


@dataclasses.dataclass(frozen=True)
class Mirror:
    """A user's cell whose kernels are identities: for ones, its output shows both masks."""

    output_size: int

    def init(self, key, input_size, dtype=None):
        return Kernels(jnp.eye(input_size, dtype=dtype), jnp.eye(input_size, dtype=dtype))

    def init_state(self, params, batch_shape=()):
        return jnp.ones((*batch_shape, self.output_size), params.input_kernel.dtype)

    def step(self, params, state, x):
        return jnp.ones_like(state), (x @ params.input_kernel, state @ params.recurrent_kernel)


def test_masks_stay_the_same_over_a_sequence_and_its_starts():
    cell = VariationalDropout(Mirror(64), IN, REC)
    params, xs = cell.init(KEY, 64), np.ones((6, 16, 64))
    starts = np.zeros((6, 16), bool)
    starts[3] = True
    _, (of_x, of_h) = rnn.unroll(cell, params, xs, starts=starts, key=KEY)
    for seen, rate in ((of_x, IN), (of_h, REC)):
        np.testing.assert_array_equal(seen, np.broadcast_to(seen[:1], seen.shape))
        np.testing.assert_allclose(np.unique(seen), [0, 1 / (1 - rate)])
        assert_rate(seen[0] == 0, rate)
        assert_drawn_apart(np.asarray(seen[0] == 0))
    assert not ((of_x == 0) == (of_h == 0)).all()
    _, (other, _) = rnn.unroll(cell, params, xs, key=jax.random.key(4))
    assert (other != of_x).any()
    assert_near(rnn.unroll(cell, params, xs)[1], (xs, xs), 0.0)


@pytest.mark.parametrize(
    ("cell", "oracle"),
    [(rnn.LSTM(4), LSTM), (rnn.GRU(4), GRU), (rnn.Elman(4), ELMAN)],
    ids=["LSTM", "GRU", "Elman"],
)
def test_against_a_loop_whose_kernels_have_rows_of_zeros(cell, oracle):
    """A mask on what a kernel multiplies is the same as one on the kernel's rows."""
    wrapped = VariationalDropout(cell, IN, REC)
    params, state, xs = draw(wrapped, time=5, batch=(3,))
    bound = wrapped.bind(params, KEY, (3,))
    got = jax.jit(lambda *work: rnn.unroll(wrapped, *work))(bound, xs, state)

    nothing = np.zeros((5, 1), bool)
    for row in range(3):
        own = params._replace(
            input_kernel=np.diag(bound.input_kernel.mask[row]) @ params.input_kernel,
            recurrent_kernel=np.diag(bound.recurrent_kernel.mask[row]) @ params.recurrent_kernel,
        )
        one = slice(row, row + 1)
        first = jax.tree.map(lambda leaf: leaf[one], state)  # noqa: B023
        want = sequence_loop.run(oracle, own, xs[:, one], first, ~nothing, nothing)
        final, ys = got
        assert_near((jax.tree.map(lambda leaf: leaf[one], final), ys[:, one]), want, 1e-12)  # noqa: B023
    assert not np.allclose(got[1], rnn.unroll(cell, params, xs, state)[1])


def test_reset_before_gru_drops_what_the_reset_gate_lets_through():
    cell = VariationalDropout(rnn.ResetBeforeGRU(4), 0.0, REC)
    params, state, xs = draw(cell, time=1, batch=(1,))
    bound = cell.bind(params, KEY, (1,))
    mask = np.diag(bound.recurrent_kernel.mask[0])
    assert 0 < (np.diag(mask) == 0).mean() < 1
    own = params._replace(recurrent_kernel=mask @ params.recurrent_kernel)
    assert_near(cell.step(bound, state, xs[0]), cell.cell.step(own, state, xs[0]), 1e-12)


def test_gradients_reach_what_stands_below_the_masks():
    cell = VariationalDropout(rnn.GRU(4), IN, REC)
    params, state, xs = draw(cell, time=3, batch=(2,))
    rng = np.random.default_rng(0)
    directions = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)

    @jax.jit
    def along(params):
        def loss(size):
            moved = jax.tree.map(lambda p, d: p + size * d, params, directions)
            return (rnn.unroll(cell, moved, xs, state, key=KEY)[1] ** 2).sum()

        steps = 1e-4 * jnp.array([-2.0, -1.0, 1.0, 2.0])
        return jax.grad(loss)(0.0), jax.vmap(loss)(steps)

    exact, values = along(params)
    difference = np.array([1.0, -8.0, 8.0, -1.0]) @ values / 12e-4
    np.testing.assert_allclose(exact, difference, rtol=1e-8)


def test_around_and_inside_of_others():
    """The masks of a nest are those of its parts, and without a key nothing is dropped."""
    for cell in (
        VariationalDropout(VariationalDropout(Mirror(128), IN, REC), IN, REC),
        VariationalDropout(WeightDrop(Mirror(128), REC), IN),
        WeightDrop(VariationalDropout(Mirror(128), IN), REC),
        EmitState(VariationalDropout(Mirror(128), IN, REC)),
    ):
        params = cell.init(KEY, 128)
        bound = cell.bind(params, KEY, (16,))
        state, x = cell.init_state(bound, (16,)), np.ones((16, 128))
        _, plain = cell.step(params, state, x)
        _, seen = cell.step(bound, state, x)
        if isinstance(cell, EmitState):
            assert_near(seen, plain, 0.0)
            continue
        assert_near(plain, (x, x), 0.0)
        twice = isinstance(cell.cell, VariationalDropout) and isinstance(cell, VariationalDropout)
        for y, rate in zip(seen, (IN, REC), strict=True):
            assert_rate(y[: 16 if twice or rate == IN else 1] != 0, (1 - rate) ** (1 + twice))


def test_the_layers_of_a_stack_have_masks_of_their_own():
    stack = VariationalDropout(rnn.layers.Stack((rnn.GRU(64), rnn.GRU(64))), 0.0, REC)
    params = stack.init(KEY, 3)
    first, second = stack.bind(params, KEY, (4,))
    masks = first.recurrent_kernel.mask, second.recurrent_kernel.mask
    assert (masks[0] != masks[1]).any()
    assert first.input_kernel.shape == (3, 192)
    _, ys = rnn.unroll(Zoneout(stack, 0.1), params, np.ones((2, 4, 3)), key=KEY)
    assert np.isfinite(ys).all()


def test_low_precision_keeps_its_dtypes():
    cell = VariationalDropout(rnn.LSTM(3), 0.3, 0.3)
    params = cell.init(KEY, 2, "bfloat16")
    final, ys = rnn.unroll(cell, params, jnp.ones((4, 2), "bfloat16"), key=KEY)
    assert (final.hidden.dtype, ys.dtype) == ("float32", "bfloat16")


def test_errors_of_the_cell_itself_stay_as_they_are():
    def step(params, state, x):
        raise TypeError("an error of the cell that speaks of a DroppedKernel")

    mirror = Mirror(3)
    cell = VariationalDropout(
        rnn.from_step(step, init=mirror.init, init_state=mirror.init_state), IN
    )
    bound = cell.bind(cell.init(KEY, 3), KEY, ())
    with pytest.raises(TypeError, match="^an error of the cell"):
        cell.step(bound, np.ones(3), np.ones(3))


def run_once(cell):
    return rnn.unroll(cell, cell.init(KEY, 3), np.ones((1, 3)), key=KEY)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: VariationalDropout(rnn.GRU(3), 1.5), r"input_rate .* \[0, 1\), got 1.5"),
        (lambda: VariationalDropout(rnn.GRU(3), 0, True), "recurrent_rate must be a Python number"),
        (
            lambda: VariationalDropout(rnn.GRU(3), input_kernels="input_kernel"),
            "input_kernels must be a tuple of field names",
        ),
        (
            lambda: run_once(VariationalDropout(rnn.GRU(3), 0.1, input_kernels=("w",))),
            r"input_kernels must name .* got \('w',\), but the fields are input_kernel, recurrent",
        ),
        (
            lambda: run_once(VariationalDropout(rnn.IndRNN(3), 0, 0.1)),
            r"got shape \(3,\) in IndRNN; use WeightDrop",
        ),
        (
            lambda: run_once(VariationalDropout(rnn.AntisymmetricRNN(3), 0, 0.1)),
            "AntisymmetricRNN does not .* use WeightDrop",
        ),
    ],
)
def test_errors_name_the_argument(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bad()
