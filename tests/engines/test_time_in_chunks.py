"""``Hoisted`` runs in chunks on a CPU where that is faster: same values for any chunk size."""

import jax
import jax.numpy as jnp
import pytest

import jaxrnn as rnn
from jaxrnn._schedule.partition import schedule
from jaxrnn._schedule.trace import canonical_step
from jaxrnn.engines import hoisted
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH, INPUTS, HIDDEN = 7, 2, 3, 4


def noise(seed, tree):
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


def gradients(cell, engine, reverse):
    """By the engine itself: `unroll` would reuse the trace with its first chunk size."""
    params = noise(0, cell.init(jax.random.key(0), INPUTS))
    state = noise(1, cell.init_state(params, (BATCH,)))
    xs = noise(2, jnp.zeros((TIME, BATCH, INPUTS)))

    def loss(params, state, xs):
        out = engine(cell, params, state, xs, reverse=reverse)
        return weighted_sum(out), out

    return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(params, state, xs)


@pytest.mark.parametrize(
    ("cell", "reverse", "steps"),
    [(rnn.GRU(HIDDEN), False, 3), (rnn.GRU(HIDDEN), True, 3), (rnn.PeepholeLSTM(HIDDEN), True, 1)],
    ids=["GRU", "GRU in reverse", "PeepholeLSTM"],
)
def test_chunk_sizes_give_the_same_result(cell, reverse, steps, monkeypatch):
    want = gradients(cell, rnn.engines.Sequential(), reverse)
    chunks = []

    def in_chunks(run, state, xs, every, reverse, **options):
        chunks.append(every)
        return whole(run, state, xs, every, reverse, **options)

    whole = hoisted.in_chunks
    monkeypatch.setattr(hoisted, "in_chunks", in_chunks)
    monkeypatch.setattr(hoisted, "_steps_per_chunk", lambda plan, time: steps)
    assert_near(gradients(cell, rnn.engines.Hoisted(), reverse), want, 1e-12)
    assert chunks == [steps]


def steps_at_a_time(cell, time, batch, *x_shape):
    """The number of steps per chunk, for shapes that are never allocated."""

    def traced(params, state, x):
        step = canonical_step(cell.step, params, state, x, separate=True)
        chosen.append(hoisted._steps_per_chunk(schedule(step), time))
        return x

    chosen = []
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), x_shape[-1], jnp.float32))
    state = jax.eval_shape(lambda p: cell.init_state(p, (batch,)), params)
    jax.eval_shape(traced, params, state, jax.ShapeDtypeStruct((batch, *x_shape), jnp.float32))
    return chosen[0]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the rule is for a CPU")
@pytest.mark.parametrize(
    ("cell", "shape", "wanted"),
    [
        (rnn.LSTM(128), (100, 1, 64), range(100, 101)),  # small: one chunk
        (rnn.LSTM(256), (128, 32, 128), range(4, 17)),
        (rnn.GRU(64), (1000, 16, 32), range(50, 126)),  # as much as the allocator keeps
        (rnn.LSTM(64), (997, 16, 32), range(20, 126)),  # no chunk divides a prime
        (rnn.LSTM(512), (64, 128, 256), range(1, 2)),  # wide: one step per chunk
        (rnn.ConvLSTM(64, (3, 3), (32, 32)), (500, 4, 32, 32, 8), range(500, 501)),
        (rnn.LSTM(1024), (64, 16, 1024), range(64, 65)),  # large weights: one chunk
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else type(value).__name__,
)
def test_steps_per_chunk(cell, shape, wanted):
    assert steps_at_a_time(cell, *shape) in wanted
