"""Every engine agrees with ``Sequential()``, values and gradients, for every cell it accepts."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.engines import Hoisted, hoisted
from jaxrnn.engines.hoisted import ROWS
from tests.support.cases import (
    CELLS,
    ENGINES,
    WRAPPERS,
    Case,
    random_inputs,
    random_params,
    random_state,
)
from tests.support.compiled import read_program
from tests.support.helpers import assert_near, split, weighted_sum
from tests.support.user_cells import USER_CELLS

ALL_CELLS = CELLS + WRAPPERS + USER_CELLS
TIME, BATCH, MAPPED = 5, 2, 3
MASK = np.array([[1, 1], [0, 1], [1, 0], [1, 1], [0, 1]], bool)
STARTS = np.array([[0, 1], [1, 0], [0, 0], [0, 1], [0, 0]], bool)


# The flags, the direction, and whether `jax.vmap` maps over examples.
WAYS = {
    "plain": ((), False, False),
    "mask and starts": (("mask", "starts"), False, False),
    "reverse": (("mask", "starts"), True, False),
    "vmap": ((), True, True),
}

# The default tier: library cells of every structure, and all user cells.
REPRESENTATIVE = (
    *(rnn.LSTM(4), rnn.GRU(4), rnn.ResetBeforeGRU(4), rnn.IndRNN(4), rnn.ClockworkRNN(4, (1, 2))),
    *(rnn.ConvLSTM(2, (3,), (5,)), rnn.SLSTM(4, num_heads=2)),
    *(rnn.LRU(4, output_size=3), rnn.MinGRU(4), rnn.QRNN(4, window=2)),
    rnn.GatedLinearAttention(4, num_heads=2, key_size=4, gate_rank=3),
    *(rnn.MLSTM(4, num_heads=2, key_size=4), rnn.DeltaNet(4, num_heads=2, key_size=4)),
    *(
        rnn.wrappers.VariationalDropout(rnn.GRU(4), 0.4, 0.4),
        rnn.wrappers.Zoneout(rnn.LSTM(4), 0.4),
    ),
)
SELECTED = [case for case in ALL_CELLS if case in USER_CELLS or case.cell in REPRESENTATIVE]
# Of the selected cells that an engine accepts, one in so many runs on it.
ONE_IN = {
    rnn.engines.Hoisted(): 1,
    rnn.engines.Hoisted(unroll=2, checkpoint_every=2): 7,
    rnn.engines.Associative(): 1,
    rnn.engines.Associative(chunk_size=2, tree=True): 2,
    rnn.engines.Newton(): 7,
    rnn.engines.Sequential(unroll=3): 25,
    rnn.engines.Auto(): 25,
    rnn.engines.Fused(): 1,
}


def selected_pairs():
    """Pairs of a cell and an engine, each with one way to run it; every engine sees every way."""
    for engine in ENGINES:
        cases = [case for case in SELECTED if engine.takes(case)]
        for case in cases[:: ONE_IN[engine.engine]]:
            way = list(WAYS)[1 + SELECTED.index(case) % 3]
            yield pytest.param(case, engine, way, id=f"{case}-{engine}-{way}")


@functools.cache
def results(case, engine, ways):
    """Values and gradients of several ways to run a case, in one compilation."""

    def differentiated(way, params, state, xs, flags):
        names, reverse, mapped = WAYS[way]

        def run(params, state, xs):
            options = {name: flags[name] for name in names} | {"reverse": reverse}
            return rnn.unroll(case.cell, params, xs, state, key=case.key, engine=engine, **options)

        if mapped:
            run = jax.vmap(run, in_axes=(None, 0, 1), out_axes=(0, 1))
        else:
            state, xs = jax.tree.map(lambda s: s[0], state), jax.tree.map(lambda x: x[:, 0], xs)
        floats, join = split((params, state, xs))

        def objective(floats):
            out = run(*join(floats))
            return weighted_sum(out), out

        return jax.grad(objective, has_aux=True)(floats)

    @jax.jit
    def everything(*work):
        return {way: differentiated(way, *work) for way in ways}

    states = random_state(case, (MAPPED, BATCH))
    xss = random_inputs(case, (TIME, MAPPED, BATCH))
    return everything(random_params(case), states, xss, {"mask": MASK, "starts": STARTS})


def taken(case, engine, way):
    """Whether the engine also accepts the flags of this way."""
    names, _, _ = WAYS[way]
    work = random_params(case), random_state(case, (BATCH,)), random_inputs(case, (TIME, BATCH))
    if names:
        params, state, xs = work
        masked = rnn.wrappers.MaskedInput(xs, MASK, STARTS)
        return engine.why_not(rnn.wrappers.Masked(case.cell), params, state, masked) is None
    return engine.why_not(case.cell, *work) is None


def check(case, engine, ways):
    ways = tuple(way for way in ways if taken(case, engine.engine, way))
    got = results(case, engine.engine, ways)
    want = results(case, rnn.engines.Sequential(), ways)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(want))
    assert_near(got, want, max(engine.tolerance, case.tolerance))


@pytest.mark.parametrize(("case", "engine", "way"), list(selected_pairs()))
def test_agrees_with_sequential(case, engine, way):
    check(case, engine, (way,))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("case", "engine"),
    [(case, engine) for case in ALL_CELLS for engine in ENGINES if engine.takes(case)],
    ids=str,
)
def test_agrees_with_sequential_in_every_way(case, engine):
    check(case, engine, tuple(WAYS))


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_accepts_the_cells_of_the_table(engine):
    wrong, refused = [], None
    for case in ALL_CELLS:
        init = functools.partial(case.cell.init, input_size=case.input_size, dtype=jnp.float64)
        params = jax.eval_shape(init, jax.random.key(0))
        state = jax.eval_shape(lambda p: case.cell.init_state(p, (BATCH,)), params)  # noqa: B023
        reason = engine.engine.why_not(case.cell, params, state, random_inputs(case, (TIME, BATCH)))
        if (reason is None) != engine.takes(case):
            wrong.append((str(case), reason))
        refused = refused or (reason and (case, reason))
    assert not wrong
    if refused is not None:
        case, reason = refused
        xs = random_inputs(case, (TIME, BATCH))
        with pytest.raises((TypeError, ValueError), match=re.escape(reason)):
            rnn.unroll(case.cell, random_params(case), xs, engine=engine.engine)


VALUES = [
    pytest.param(case, marks=() if number % 4 == 0 else pytest.mark.thorough, id=str(case))
    for number, case in enumerate(ALL_CELLS)
]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the rule for CPUs")
@pytest.mark.parametrize("case", VALUES)
def test_values_without_derivatives(case):
    """Eight rows suffice for the plain loop; with and without flags, in both directions."""
    work = random_params(case), random_inputs(case, (TIME, ROWS)), random_state(case, (ROWS,))
    flags = {"mask": np.resize(MASK, (TIME, ROWS)), "starts": np.resize(STARTS, (TIME, ROWS))}

    @functools.partial(jax.jit, static_argnums=0)
    def run(engine, params, xs, state):
        run = functools.partial(rnn.unroll, case.cell, params, xs, state, engine=engine)
        return run(key=case.key), run(key=case.key, reverse=True, **flags)

    got, want = (run(engine, *work) for engine in (Hoisted(), rnn.engines.Sequential()))
    assert_near(got, want, max(1e-10, case.tolerance))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the rule for CPUs")
def test_only_derivatives_are_hoisted_on_a_cpu():
    """The compiled program of the values has both products in the loop, as a plain scan has."""
    case = Case(rnn.LSTM(8))
    params, xs = random_params(case), random_inputs(case, (TIME, ROWS))

    def products(function, rows=ROWS):
        program = jax.jit(function).lower(params, xs[:, :rows]).compile()
        return sorted(i.times for i in read_program(program).instructions if i.opcode == "dot")

    def values(params, xs):
        return rnn.unroll(case.cell, params, xs, engine=Hoisted())

    def gradients(params, xs):
        return jax.grad(lambda params: weighted_sum(values(params, xs)))(params)

    assert products(values) == [TIME, TIME]
    assert products(values, rows=2) == [1, TIME]  # where hoisting pays
    # The product of the inputs and the gradients of both kernels; the loops have one product each.
    assert products(gradients) == [1, 1, 1, TIME, TIME]


def test_residuals_are_not_copied_from_loop_to_loop(monkeypatch):
    """The loop over tangents reads what the loop of the values wrote, in place.

    The loop over chunks slices its cotangents, and h for the gradient of its kernel. It neither
    stacks nor slices c and the sums of four gates.
    """
    chunks, every, hidden = 3, 32, 128
    case = Case(rnn.LSTM(hidden))
    monkeypatch.setattr(hoisted, "_steps_per_chunk", lambda plan, time: every)
    params, xs = random_params(case), random_inputs(case, (chunks * every, 32))
    params, xs = jax.tree.map(np.float32, (params, xs))

    def loss(params, xs):
        return weighted_sum(rnn.unroll(case.cell, params, xs, engine=Hoisted()))

    program = read_program(jax.jit(jax.grad(loss)).lower(params, xs).compile())
    size = every * 32 * hidden
    moves = [
        i
        for i in program.instructions
        if i.times == chunks and i.opcode in ("dynamic-slice", "dynamic-update-slice")
    ]
    assert any(i.times == chunks for i in program.instructions), "the sequence is not in chunks"
    assert sum(math.prod(i.shapes[0]) >= size for i in moves) <= 2, moves


def test_arrays_that_a_step_closes_over_receive_gradients():
    """As under `jax.lax.scan`, by every engine."""
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(TIME, BATCH, 3)))
    kernels = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 3)))

    def loss(kernels, engine):
        def step(params, h, x):
            h = jnp.tanh(x @ kernels[0] + h @ (kernels[1] - kernels[1].T))
            return h, h

        cell = rnn.from_step(step, init_state=lambda params, batch: jnp.zeros((*batch, 3)))
        return weighted_sum(rnn.unroll(cell, (), xs, engine=engine))

    def by_hand(kernels):
        h, ys = jnp.zeros((BATCH, 3)), []
        for x in xs:
            h = jnp.tanh(x @ kernels[0] + h @ (kernels[1] - kernels[1].T))
            ys.append(h)
        return weighted_sum((h, jnp.stack(ys)))

    want = jax.jit(jax.grad(by_hand))(kernels)
    cell = rnn.from_step(
        lambda params, h, x: (h + x, h), init_state=lambda params, batch: jnp.zeros((*batch, 3))
    )
    for engine in ENGINES:
        if engine.engine in (rnn.engines.Sequential(unroll=3), rnn.engines.Auto()):
            continue  # that scan itself, and Hoisted()
        if engine.engine.why_not(cell, (), xs[0], xs) is not None:
            continue
        got = jax.jit(jax.grad(functools.partial(loss, engine=engine.engine)))(kernels)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12, err_msg=str(engine))
