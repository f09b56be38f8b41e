"""Cells of linen, nnx and Haiku under jaxrnn's engines, against a loop of their own calls."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxrnn as rnn
from jaxrnn.haiku import from_haiku_core
from jaxrnn.linen import from_linen_cell
from jaxrnn.nnx import from_nnx_cell
from tests.support.flavours import HIDDEN, INPUT, noisy
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH = 5, 3
ENGINES = (
    rnn.engines.Sequential(),
    rnn.engines.Hoisted(unroll=2, checkpoint_every=2),
)
F64 = {"dtype": "float64", "param_dtype": "float64"}


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A cell, its params, and the framework's own step ``(params, state, x) -> (state, y)``."""

    cell: Any
    params: Any
    step: Callable[..., Any]


def linen_gru():
    module = linen.GRUCell(HIDDEN, **F64)
    cell = from_linen_cell(module)
    params = noisy(cell.init(jax.random.key(0), INPUT))
    return Foreign(cell, params, lambda params, state, x: module.apply(params, state, x))


def nnx_lstm():
    module = nnx.OptimizedLSTMCell(INPUT, HIDDEN, **F64, rngs=nnx.Rngs(0))
    cell, params = from_nnx_cell(module)

    def step(params, state, x):
        nnx.update(module, params)
        return module(state, x)

    return Foreign(cell, noisy(params), step)


def haiku_core(name):
    def make():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hk = pytest.importorskip("haiku", reason="it comes with the extra: parity")
        cell = from_haiku_core(lambda: getattr(hk, name)(HIDDEN), output_size=HIDDEN)
        core = hk.without_apply_rng(
            hk.transform(lambda x, state: getattr(hk, name)(HIDDEN)(x, state))
        )

        def step(params, state, x):
            y, state = core.apply(params, x, state)
            return state, y

        return Foreign(cell, noisy(cell.init(jax.random.key(0), INPUT, "float64")), step)

    return make


CELLS = {
    "linen GRU": linen_gru,
    "nnx LSTM": nnx_lstm,
    "haiku LSTM": haiku_core("LSTM"),
    "haiku GRU": haiku_core("GRU"),
}


@pytest.fixture(params=CELLS.values(), ids=CELLS.keys())
def foreign(request):
    return request.param()


def inputs(*batch):
    return jnp.asarray(np.random.default_rng(0).normal(size=(TIME, *batch, INPUT)))


def test_every_engine_equals_the_framework(foreign):
    xs = inputs(BATCH)
    state = noisy(foreign.cell.init_state(foreign.params, (BATCH,)))

    def loop(params, state, xs):
        ys = []
        for x in xs:
            state, y = foreign.step(params, state, x)
            ys.append(y)
        return state, jnp.stack(ys)

    def ours(engine):
        def run(params, state, xs):
            return rnn.unroll(foreign.cell, params, xs, state, engine=engine)

        return run

    @jax.jit
    def all_of_them(*work):
        def value_and_gradients(run):
            def total(*work):
                results = run(*work)
                return weighted_sum(results), results

            return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*work)

        return [value_and_gradients(run) for run in (loop, *map(ours, ENGINES))]

    if isinstance(foreign.params, nnx.State):  # the module must not change during a trace
        want = rnn.unroll(foreign.cell, foreign.params, xs, state, engine=ENGINES[0])
        assert_near(want, loop(foreign.params, state, xs), 1e-12)
        foreign = dataclasses.replace(foreign, step=foreign.cell.step)
    want, *rest = all_of_them(foreign.params, state, xs)
    for got in rest:
        assert_near(got, want, 1e-10)


def test_lengths_starts_and_batch_axes_follow_the_contract(foreign):
    cell, params = foreign.cell, foreign.params
    rows = inputs(2, BATCH)
    lengths = jnp.array([[5, 2, 0], [1, 5, 3]])
    final, ys = rnn.unroll(cell, params, rows, lengths=lengths)
    flat = rows.reshape(TIME, -1, INPUT)
    one, want = rnn.unroll(cell, params, flat, lengths=lengths.reshape(-1))
    np.testing.assert_allclose(ys.reshape(want.shape), want, atol=1e-14)
    assert_near(jax.tree.map(lambda a, b: a.reshape(b.shape), final, one), one, 1e-14)
    assert not ys[2:, 0, 1].any() and ys[:2, 0, 1].any()
    single, y = rnn.unroll(cell, params, rows[:2, 0, 1])
    np.testing.assert_allclose(y, ys[:2, 0, 1], atol=1e-14)
    assert_near(single, jax.tree.map(lambda leaf: leaf[0, 1], final), 1e-14)
    starts = jnp.zeros((TIME, 2, BATCH), bool).at[2].set(True)
    _, cut = rnn.unroll(cell, params, rows, starts=starts)
    _, fresh = rnn.unroll(cell, params, rows[2:])
    np.testing.assert_allclose(cut[2:], fresh, atol=1e-14)


def test_foreign_cells_stack_with_jaxrnn_cells():
    cell = from_linen_cell(linen.GRUCell(HIDDEN, **F64))
    network = rnn.layers.Stack((rnn.LSTM(2), rnn.layers.Bidirectional(cell, cell)))
    params = network.init(jax.random.key(0), INPUT)
    _, ys = network.apply(params, None, inputs(BATCH))
    _, middle = rnn.unroll(rnn.LSTM(2), params[0], inputs(BATCH))
    _, want = rnn.unroll(cell, params[1].forward, middle)
    np.testing.assert_allclose(ys[..., :HIDDEN], want, atol=1e-14)
    assert network.output_size == 2 * HIDDEN


def test_init_has_the_requested_dtype():
    cell = from_linen_cell(linen.GRUCell(HIDDEN))
    for dtype in ("float32", "float64"):
        params = cell.init(jax.random.key(0), INPUT, dtype)
        _, ys = rnn.unroll(cell, params, inputs(BATCH).astype(dtype))
        assert ys.dtype == dtype and all(p.dtype == dtype for p in jax.tree.leaves(params))


def test_a_stochastic_nnx_cell_needs_a_key_or_eval():
    class Drops(nnx.GRUCell):
        def __init__(self, rngs):
            super().__init__(INPUT, HIDDEN, **F64, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, carry, x):
            return super().__call__(carry, self.drop(x))

    module = Drops(nnx.Rngs(0))
    cell, params = from_nnx_cell(module)
    with pytest.raises(ValueError, match="key must be given, because the cell draws.*eval()"):
        rnn.unroll(cell, params, inputs(BATCH))
    draws = [rnn.unroll(cell, params, inputs(BATCH), key=jax.random.key(i))[1] for i in (0, 1)]
    assert (draws[0] != draws[1]).any()
    module.eval()
    quiet, params = from_nnx_cell(module)
    plain, same = from_nnx_cell(nnx.GRUCell(INPUT, HIDDEN, **F64, rngs=nnx.Rngs(0)))
    nnx_params = {path: leaf for path, leaf in nnx.to_flat_state(params)}
    assert nnx_params.keys() == dict(nnx.to_flat_state(same)).keys()
    _, got = rnn.unroll(quiet, params, inputs(BATCH))
    _, want = rnn.unroll(plain, params, inputs(BATCH))
    np.testing.assert_allclose(got, want, atol=1e-14)
    with pytest.raises(TypeError, match="params of an nnx cell are those that from_nnx_cell"):
        cell.init(jax.random.key(0), INPUT)


def test_a_class_of_a_haiku_core_makes_cores():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hk = pytest.importorskip("haiku", reason="it comes with the extra: parity")

    class Own(hk.GRU):
        def __init__(self):
            super().__init__(HIDDEN)

    params = [from_haiku_core(make).init(jax.random.key(0), INPUT) for make in (Own, lambda: Own())]
    assert_near(params[0], params[1], 0)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="cell must be a Flax linen cell"):
        from_linen_cell(linen.Dense(3))
    with pytest.raises(TypeError, match="cell must be a Flax nnx cell"):
        from_nnx_cell(rnn.GRU(3))
    with pytest.raises(TypeError, match="make_core must be a function that returns a core"):
        from_haiku_core(rnn.GRU(3))
