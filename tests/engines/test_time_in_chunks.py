"""``Hoisted`` runs in chunks on a CPU where that is faster: same values for any chunk size."""

import jax
import jax.numpy as jnp
import pytest

import jaxrnn as rnn
from jaxrnn._schedule.partition import schedule
from jaxrnn._schedule.trace import canonical_step
from jaxrnn.engines import _plain, hoisted
from tests.support.cases import CELLS, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, split, weighted_sum

TIME, INPUTS, HIDDEN = 7, 3, 4
FEW, MANY = 2, 9
"""Rows for which the values come from the hoisted loop, and from the plain one."""


def noise(seed, tree):
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


def loss_and_work(cell, rows, engine, reverse):
    """By the engine itself: `unroll` would reuse the trace with its first chunk size."""
    params = noise(0, cell.init(jax.random.key(0), INPUTS))
    state = noise(1, cell.init_state(params, (rows,)))
    xs = noise(2, jnp.zeros((TIME, rows, INPUTS)))

    def loss(params, state, xs):
        out = engine(cell, params, state, xs, reverse=reverse)
        return weighted_sum(out), out

    return loss, (params, state, xs)


def gradients(*work):
    loss, args = loss_and_work(*work)
    return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*args)


@pytest.fixture
def in_chunks_of(monkeypatch):
    """Sets the size of a chunk; the chunks that were made are in ``seen``."""

    def record(run, shared, state, xs, every, *options, **others):
        in_chunks_of.seen.append(every)
        return whole(run, shared, state, xs, every, *options, **others)

    def in_chunks_of(steps):
        monkeypatch.setattr(hoisted, "_steps_per_chunk", lambda plan, time: steps)

    whole = hoisted.in_chunks
    in_chunks_of.seen = []
    for module in (hoisted, _plain):
        monkeypatch.setattr(module, "in_chunks", record)
    return in_chunks_of


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize(
    ("cell", "reverse", "steps"),
    [(rnn.GRU(HIDDEN), False, 3), (rnn.GRU(HIDDEN), True, 3), (rnn.PeepholeLSTM(HIDDEN), True, 1)],
    ids=["GRU", "GRU in reverse", "PeepholeLSTM"],
)
def test_chunk_sizes_give_the_same_result(cell, reverse, steps, rows, in_chunks_of):
    want = gradients(cell, rows, rnn.engines.Sequential(), reverse)
    in_chunks_of(steps)
    assert_near(gradients(cell, rows, rnn.engines.Hoisted(), reverse), want, 1e-12)
    assert in_chunks_of.seen == [steps]


def test_chunks_have_derivatives_of_second_order(in_chunks_of):
    in_chunks_of(3)

    def derivatives(engine):
        loss, args = loss_and_work(rnn.GRU(HIDDEN), MANY, engine, False)
        tangents = noise(3, args)

        def along(*args):
            return jax.jvp(lambda *args: loss(*args)[0], args, tangents)[1]

        gradient = jax.grad(lambda *args: loss(*args)[0], (0, 1, 2))
        forward = jax.jvp(gradient, args, tangents)
        return forward, jax.grad(along, (0, 1, 2))(*args)

    got = jax.jit(derivatives, static_argnums=0)(rnn.engines.Hoisted())
    want = jax.jit(derivatives, static_argnums=0)(rnn.engines.Sequential())
    assert_near(got, want, 1e-11)


@pytest.mark.parametrize(
    ("engine", "cell", "rows"),
    [
        (rnn.engines.Hoisted(), rnn.GRU(32), FEW),
        (rnn.engines.Hoisted(), rnn.GRU(32), MANY),
        (rnn.engines.Hoisted(checkpoint_every=2), rnn.GRU(32), MANY),
        (rnn.engines.Associative(chunk_size=2), rnn.MinGRU(32), MANY),
    ],
    ids=str,
)
def test_gradients_in_16_bits_are_added_up_in_32(engine, cell, rows, in_chunks_of):
    """The error of 256 chunks is about that of a single one; added up in 16 bits, it is 6 times."""
    in_chunks_of(2)
    params = jax.tree.map(
        lambda x: x.astype("bfloat16"), cell.init(jax.random.key(0), 24, jnp.float32)
    )
    xs = jax.random.normal(jax.random.key(1), (512, rows, 24), "bfloat16")
    weights = jax.random.normal(jax.random.key(2), (512, rows, 32), "float32") + 0.3

    def gradient(params, xs, engine):
        state = cell.init_state(params, (rows,))

        def loss(params):
            ys = engine(cell, params, state, xs)[1]
            return (ys.astype("float32") * weights).mean()

        return jax.jit(jax.grad(loss))(params)

    want = gradient(*jax.tree.map(lambda x: x.astype("float64"), (params, xs)), engine)
    got = gradient(params, xs, engine)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if w.ndim == 2:
            assert jnp.linalg.norm(g.astype(w.dtype) - w) <= 5e-3 * jnp.linalg.norm(w)


@pytest.mark.thorough
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("case", CELLS, ids=str)
def test_every_cell_in_chunks(case, reverse, in_chunks_of):
    """Chunks of two steps, the last of one, values and gradients."""
    params = random_params(case)
    state, xs = random_state(case, (MANY,)), random_inputs(case, (TIME, MANY))

    def run(engine):
        leaves, join = split((params, state, xs))

        def loss(leaves):
            out = engine(case.cell, *join(leaves), reverse=reverse)
            return weighted_sum(out), out

        return jax.jit(jax.grad(loss, has_aux=True))(leaves)

    want = run(rnn.engines.Sequential())
    in_chunks_of(2)
    assert_near(run(rnn.engines.Hoisted()), want, max(1e-10, case.tolerance))


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
