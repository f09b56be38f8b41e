"""Parallel in time: affine cells, and chunks of matrix-state cells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.engines import Associative, Hoisted, Sequential
from jaxrnn.engines._linear import combine
from tests.support.cases import CELLS, Case, Floats, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, on_four_devices, optimizing_jit, weighted_sum
from tests.support.processes import finish

AFFINE = Case(rnn.MinGRU(4)), Case(rnn.LRU(3, output_size=2))
# A start resets the state to values that are not zero.
LEARNED = Case(rnn.wrappers.LearnedInitialState(rnn.MinGRU(4)), name="LearnedInitialState(MinGRU)")
MATRIX = tuple(case for case in CELLS if rnn.is_chunked(case.cell))
CHUNKED_ONLY = tuple(case for case in MATRIX if not rnn.is_affine(case.cell))


# The engine on affine cells ---------------------------------------------------------------------


def differentiated(case, engine, time, dtype="float64", flags=(), reverse=False, batch=(2,)):
    """States, outputs, and gradients for parameters, initial state and inputs."""

    def objective(work):
        params, state, xs, options = work
        out = rnn.unroll(case.cell, params, xs, state, engine=engine, reverse=reverse, **options)
        return weighted_sum(out), out

    def run(params, state, xs, options):
        def of_floats(floats):
            return objective((*floats, options))

        return jax.grad(of_floats, has_aux=True)((params, state, xs))

    rng = np.random.default_rng(time)
    options = {
        "mask": jnp.asarray(rng.random((time, *batch)) < 0.7),
        "starts": jnp.asarray(rng.random((time, *batch)) < 0.2),
    }
    options = {name: options[name] for name in flags}
    work = random_params(case, dtype), random_state(case, batch, dtype)
    return jax.jit(run)(*work, random_inputs(case, (time, *batch), dtype), options)


LOOP, TREE, CHUNKS = Associative(), Associative(tree=True), Associative(chunk_size=33)


@pytest.mark.parametrize(
    ("case", "time", "engines"),
    [
        (AFFINE[0], 1, (LOOP,)),
        (AFFINE[1], 3, (TREE,)),
        (AFFINE[0], 100, (TREE, CHUNKS)),
        (AFFINE[1], 100, (LOOP, CHUNKS)),
        *(
            pytest.param(case, time, (LOOP, TREE, CHUNKS), marks=pytest.mark.thorough)
            for case in AFFINE
            for time in (1, 2, 3, 100, 1000, 4097)
        ),
    ],
    ids=str,
)
def test_agrees_with_sequential_at_any_length(case, time, engines):
    want = differentiated(case, Sequential(), time)
    for engine in engines:
        assert_near(differentiated(case, engine, time), want, 1e-10)


@pytest.mark.parametrize(
    ("case", "reverse", "engines"),
    [
        (LEARNED, False, (CHUNKS,)),
        (AFFINE[1], True, (CHUNKS, TREE)),
        *(
            pytest.param(case, reverse, (CHUNKS, TREE), marks=pytest.mark.thorough)
            for case in AFFINE
            for reverse in (False, True)
        ),
    ],
    ids=str,
)
def test_agrees_with_sequential_under_masks_and_starts(case, reverse, engines):
    flags = ("mask", "starts")
    want = differentiated(case, Sequential(), 100, flags=flags, reverse=reverse)
    for engine in engines:
        assert_near(differentiated(case, engine, 100, flags=flags, reverse=reverse), want, 1e-10)


@pytest.mark.parametrize("case", [AFFINE[0], pytest.param(AFFINE[1], marks=pytest.mark.thorough)])
def test_agrees_with_sequential_in_float32(case):
    want = differentiated(case, Sequential(), 1000, "float32")
    for engine in (LOOP, TREE):
        assert_near(differentiated(case, engine, 1000, "float32"), want, 1e-5)


@pytest.mark.parametrize(
    ("case", "engine"),
    [
        (AFFINE[0], Associative(chunk_size=2, tree=True)),
        pytest.param(AFFINE[1], Associative(), marks=pytest.mark.thorough),
        pytest.param(CHUNKED_ONLY[1], Associative(chunk_size=2), marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_every_order_of_derivatives(case, engine):
    """Hessians by all compositions of modes, and under `jax.vmap`; with lengths."""
    params, state = random_params(case), random_state(case, (2,))
    xs, lengths = random_inputs(case, (3, 2)), jnp.array([3, 1])

    @functools.partial(jax.jit, static_argnums=0)
    def everything(engine, params, xs, state):
        def loss(xs):
            return weighted_sum(
                rnn.unroll(case.cell, params, xs, state, lengths=lengths, engine=engine)
            )

        hessians = {
            f"{outer.__name__} over {inner.__name__}": outer(inner(loss))(xs)
            for outer in (jax.jacfwd, jax.jacrev)
            for inner in (jax.jacfwd, jax.jacrev)
        }
        mapped = jax.vmap(jax.grad(loss))(jnp.stack([xs, jnp.sin(xs)]))
        return hessians | {"mapped": mapped, "linear": jax.linearize(loss, xs)[1](jnp.cos(xs))}

    got = everything(engine, params, xs, state)
    want = everything(Sequential(), params, xs, state)
    for name, result in want.items():
        assert_near(got[name], result, 1e-10)


def temporary_bytes(run, *args):
    def gradient(args, cotangents):
        return jax.vjp(run, *args)[1](cotangents)

    out = jax.eval_shape(run, *args)
    analysis = optimizing_jit(gradient).lower(args, out).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.thorough
def test_gradient_takes_at_most_half_the_memory_of_a_differentiated_scan_tree():
    case = Case(rnn.MinGRU(32), x=Floats((8,)))
    params, xs = random_params(case, "float32"), jnp.zeros((4096, 4, 8), "float32")

    def plain(params, xs):
        a, b = jax.vmap(case.cell.affine, (None, 0))(params, xs)
        _, hs = jax.lax.associative_scan(combine, (a.hidden, b.hidden))
        return hs

    def ours(params, xs, engine):
        return rnn.unroll(case.cell, params, xs, engine=engine)[1]

    limit = temporary_bytes(plain, params, xs) / 2
    for engine in (Associative(), Associative(chunk_size=256, tree=True)):
        assert temporary_bytes(functools.partial(ours, engine=engine), params, xs) <= limit


# Chunks of matrix-state cells -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        *((case, (5,)) for case in MATRIX),
        *(pytest.param(case, (1, 13, 64), marks=pytest.mark.thorough) for case in MATRIX),
    ],
    ids=str,
)
def test_chunks_agree_with_the_recurrence(case, sizes):
    want = differentiated(case, Sequential(), 13)
    for size in sizes:
        assert_near(differentiated(case, Associative(chunk_size=size), 13), want, 1e-10)


MASKED = (((2,), 4, False), ((), 3, True), ((2, 2), 13, False))


@pytest.mark.parametrize(
    ("case", "masked"),
    [
        pytest.param(case, masked, marks=() if n % 3 == m else pytest.mark.thorough)
        for n, case in enumerate(MATRIX)
        for m, masked in enumerate(MASKED)
    ],
    ids=str,
)
def test_chunks_under_a_mask_agree_with_the_recurrence(case, masked):
    batch, size, reverse = masked
    want, got = (
        differentiated(case, engine, 13, flags=("mask",), reverse=reverse, batch=batch)
        for engine in (Sequential(), Associative(chunk_size=size))
    )
    assert_near(got, want, 1e-10)


def test_chunks_hold_the_state_of_rows_without_valid_steps():
    case = CHUNKED_ONLY[0]
    params, state = random_params(case), random_state(case, (3,))
    xs = random_inputs(case, (7, 3)).at[:, 1].set(jnp.nan)
    lengths = jnp.array([7, 0, 4])

    def run(engine):
        return rnn.unroll(case.cell, params, xs, state, lengths=lengths, engine=engine)

    final, ys = run(Associative(chunk_size=2))
    assert_near((final, ys), run(Sequential()), 1e-12)
    assert all((f[1] == s[1]).all() for f, s in zip(final, state, strict=True))


def test_outputs_are_independent_of_the_stabilizer():
    case = next(case for case in MATRIX if isinstance(case.cell, rnn.MLSTM))
    params, xs = random_params(case), random_inputs(case, (7, 2))
    state, shift = random_state(case, (2,)), jnp.array([[3.0, -2.0], [0.5, 7.0]])
    shifted = rnn.cells.MLSTMState(
        jnp.exp(-shift)[..., None, None] * state.memory,
        jnp.exp(-shift)[..., None] * state.normalizer,
        state.stabilizer + shift,
    )
    run = functools.partial(rnn.unroll, case.cell, params, xs, engine=Associative(chunk_size=3))
    assert_near(run(shifted)[1], run(state)[1], 1e-12)


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chunk_size": 0}, ValueError, "chunk_size must be a positive int"),
        ({"chunk_size": 2.0}, TypeError, "chunk_size must be a positive int"),
        ({"tree": "yes"}, TypeError, "tree must be True, False or None"),
        ({"axis_name": 3}, TypeError, "axis_name must be the name of one axis"),
        ({"axis_name": "t", "chunk_size": 2}, ValueError, "omit chunk_size"),
    ],
)
def test_invalid_options(options, error, message):
    with pytest.raises(error, match=message):
        Associative(**options)


def test_explains_why_it_cannot_run():
    def reason(cell, engine=None, key=None, **flags):
        engine = engine or Associative()
        case = Case(cell)
        params, xs = random_params(case), random_inputs(case, (3, 2))
        with pytest.raises(ValueError, match="engines.Hoisted|mesh") as error:
            rnn.unroll(cell, params, xs, engine=engine, key=key, **flags)
        return str(error.value)

    starts = {"starts": jnp.ones((3, 2), bool)}
    delta = rnn.DeltaNet(4, num_heads=2)
    assert "GRU has neither an affine form" in reason(rnn.GRU(4))
    assert "GRU has neither an affine form" in reason(rnn.GRU(4), **starts)
    noisy = rnn.wrappers.Zoneout(rnn.MinGRU(4), 0.5)
    assert "that takes a random key" in reason(noisy, key=jax.random.key(0))
    assert "chunked form of DeltaNet does not support starts" in reason(delta, **starts)
    across = Associative(axis_name="time")
    assert "chunks on different devices" in reason(delta, across)
    assert "'time' is not an axis of the mesh" in reason(rnn.MinGRU(4), across)
    counts = jax.tree.map(lambda leaf: leaf.astype(int), random_state(AFFINE[0], (2,)))
    assert "MinGRU holds integers" in Associative().why_not(AFFINE[0].cell, (), counts, ())


@pytest.mark.parametrize("arguments", [(), pytest.param(("--all",), marks=pytest.mark.thorough)])
def test_time_sharded_over_devices(arguments):
    """On four devices, in a separate process."""
    done = on_four_devices("tests.support.sharded_time", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "cells",
    ["LRU,MLSTM", pytest.param("MinGRU,S5,GatedLinearAttention", marks=pytest.mark.thorough)],
)
def test_time_over_processes(cells, tmp_path):
    """Two processes with two devices each: values and gradients of one process."""
    out = finish(tmp_path, "tests.support.time_over_processes", {"cells": cells})
    assert "agree on 4 devices of 2 processes" in out


# Auto -------------------------------------------------------------------------------------------


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the rule for CPUs")
def test_auto_chooses_it_where_it_is_faster():
    def chosen(cell, time, start=None):
        params = jax.eval_shape(functools.partial(cell.init, input_size=8), jax.random.key(0))
        state = jax.eval_shape(functools.partial(cell.init_state, batch_shape=(4,)), params)
        xs = jax.ShapeDtypeStruct((time, 4, 8), "float64")
        if start is not None:
            valid = jax.ShapeDtypeStruct((time, 4), bool)
            cell = rnn.wrappers.Masked(cell)
            xs = rnn.wrappers.MaskedInput(xs, valid, valid if start else None)
        return rnn.engines.Auto().choose(cell, params, state, xs)

    wide = rnn.MinGRU(128)  # 4 KiB of state a step
    assert chosen(wide, 256) == Hoisted() and chosen(wide, 257) == Associative()
    assert chosen(wide, 257, start=True) == Associative()
    delta = rnn.DeltaNet(8)
    assert chosen(delta, 64) == Hoisted() and chosen(delta, 65) == Associative()
    assert chosen(delta, 65, start=False) == Associative()
    assert chosen(delta, 65, start=True) == chosen(rnn.GRU(8), 5000) == Hoisted()


def test_auto_in_chunks_agrees_with_sequential():
    for case, flags in ((CHUNKED_ONLY[1], ("mask",)), (CHUNKED_ONLY[0], ("mask", "starts"))):
        want = differentiated(case, Sequential(), 70, flags=flags)
        assert_near(differentiated(case, rnn.engines.Auto(), 70, flags=flags), want, 1e-10)
