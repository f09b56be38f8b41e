"""`engines.Newton`: agreement with the loop, convergence, and the fallback to the loop."""

import dataclasses
import functools
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn as rnn
from jaxrnn._schedule.trace import nested_jaxprs
from jaxrnn.engines import Hoisted, Newton, Sequential, _trajectory, newton
from jaxrnn.engines._block_linear import block_recurrence, transposed_matrices
from jaxrnn.engines._trajectory import cond_for_all
from tests.support.cases import CELLS, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, weighted_sum


def case_of(cell):
    return next(case for case in CELLS if case.cell == cell)


GRU, LSTM = case_of(rnn.GRU(4)), case_of(rnn.LSTM(4))
DENSE, BLOCKS, DIAGONAL = GRU, case_of(rnn.ParaLSTM(4)), case_of(rnn.IndRNN(4))


def work(case, time, batch=(2,), dtype="float64", salt=0):
    """Parameters, a state and inputs of a contracting recurrence."""
    params = random_params(case, dtype)
    if isinstance(case.cell, rnn.IndRNN):
        params = params._replace(recurrent_kernel=jnp.clip(params.recurrent_kernel, -0.9, 0.9))
    return (
        params,
        random_state(case, batch, dtype),
        random_inputs(case, (time, *batch), dtype, salt),
    )


def flags(time, batch=(2,)):
    rng = np.random.default_rng(time)
    return {
        "mask": jnp.asarray(rng.random((time, *batch)) < 0.8),
        "starts": jnp.asarray(rng.random((time, *batch)) < 0.1),
    }


def derivatives(case, engine, time, dtype="float64", **options):
    """Values and gradients with respect to parameters, state and inputs."""

    def objective(params, state, xs, options):
        out = rnn.unroll(case.cell, params, xs, state, engine=engine, **options)
        return weighted_sum(out), out

    static = {name: options.pop(name) for name in ("reverse",) if name in options}
    run = jax.grad(
        lambda *args: objective(*args[:3], args[3] | static), argnums=(0, 1, 2), has_aux=True
    )
    return jax.jit(run)(*work(case, time, dtype=dtype), options)


def solve(case, time, engine=None, **options):
    engine = Newton() if engine is None else engine
    run = jax.jit(functools.partial(engine.solve, case.cell, **options))
    return run(*work(case, time))


# Agreement ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [1, 2, 3, 100])
def test_any_number_of_steps(time):
    case = {1: DENSE, 2: BLOCKS, 3: DIAGONAL, 100: BLOCKS}[time]
    options = flags(time) | {"reverse": time % 2 == 0}
    got = derivatives(case, Newton(), time, **options)
    assert_near(got, derivatives(case, Sequential(), time, **options), 1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize("time", [1, 2, 3, 100, 1000, 4097])
@pytest.mark.parametrize("case", [DENSE, BLOCKS, DIAGONAL, LSTM], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_any_number_of_steps_of_any_structure(case, time, reverse):
    for options in ({}, flags(time)):
        got = derivatives(case, Newton(), time, reverse=reverse, **options)
        want = derivatives(case, Sequential(), time, reverse=reverse, **options)
        assert_near(got, want, 1e-10)


@pytest.mark.parametrize("case", [GRU, pytest.param(LSTM, marks=pytest.mark.thorough)], ids=str)
def test_float32(case):
    got, want = (derivatives(case, e, 100, "float32") for e in (Newton(), Sequential()))
    assert_near(got, want, 1e-5)


def test_bfloat16_parameters():
    """A diagonal cell multiplies by the state in float32, so it converges."""
    case = case_of(rnn.ParaGRU(4))
    params, state, xs = work(case, 50, dtype="bfloat16")
    state, ys, info = jax.jit(functools.partial(Newton().solve, case.cell))(params, state, xs)
    want, want_ys = rnn.unroll(case.cell, params, xs, work(case, 50, dtype="bfloat16")[1])
    assert info.converged and ys.dtype == jnp.bfloat16
    assert_near(state, want, 1e-5)
    np.testing.assert_allclose(ys.astype("float32"), want_ys.astype("float32"), atol=2**-7)


def test_no_steps_and_no_rows():
    params, state, xs = work(GRU, 3)
    final, ys, info = Newton().solve(GRU.cell, params, state, xs[:0])
    assert ys.shape == (0, 2, 4) and info.converged and info.iterations == 0
    np.testing.assert_array_equal(final.hidden, state.hidden)
    final, ys = rnn.unroll(GRU.cell, params, xs[:, :0], engine=Newton())
    assert ys.shape == (3, 0, 4) and final.hidden.shape == (0, 4)


# Convergence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("quasi", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_after_k_iterations_k_states_are_exact(monkeypatch, quasi):
    """From a distant guess, without the fallback to the loop."""
    monkeypatch.setattr(_trajectory, "cond_for_all", lambda done, keep, loop, *args: keep(*args))
    params, state, xs = work(GRU, 12)
    guess = rnn.GRUState(jnp.asarray(np.random.default_rng(2).normal(scale=30, size=(12, 2, 4))))
    _, want = rnn.unroll(GRU.cell, params, xs, state)
    for k in (1, 3):
        engine = Newton(quasi=quasi, max_iterations=k)
        _, ys, info = engine.solve(GRU.cell, params, state, xs, guess=guess)
        assert info.iterations == k and not info.converged
        np.testing.assert_allclose(ys[:k], want[:k], atol=1e-10)
        assert np.abs(ys[k:] - want[k:]).max() > 1e-8


@pytest.mark.parametrize(
    "case",
    [
        case_of(rnn.LRU(4, output_size=3)),
        pytest.param(case_of(rnn.MinGRU(4)), marks=pytest.mark.thorough),
        pytest.param(case_of(rnn.DeltaNet(4, num_heads=2, key_size=4)), marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_a_linear_cell_converges_in_one_iteration(case):
    _, ys, info = solve(case, 40)
    assert info.converged and info.iterations == 1 and info.residual < 1e-12
    params, state, xs = work(case, 40)
    assert_near(ys, rnn.unroll(case.cell, params, xs, state)[1], 1e-12)


def test_result_is_independent_of_the_guess():
    params, state, xs = work(GRU, 60)

    @jax.jit
    def run(guess):
        def loss(guess):
            final, ys, info = Newton().solve(GRU.cell, params, state, xs, guess=guess)
            return weighted_sum((final, ys)), (ys, info)

        return jax.grad(loss, has_aux=True)(guess)

    shape, rng = (60, 2, 4), np.random.default_rng(0)
    want = rnn.unroll(GRU.cell, params, xs, state)[1]
    guesses = (
        np.zeros(shape),
        rng.normal(size=shape),
        np.full(shape, np.nan),
        1e3 * rng.normal(size=shape),
    )
    for guess in guesses:
        gradient, (ys, info) = run(rnn.GRUState(jnp.asarray(guess)))
        assert info.converged and info.iterations > 1
        np.testing.assert_allclose(ys, want, atol=1e-11)
        assert (gradient.hidden == 0).all()
    _, (ys, info) = run(rnn.GRUState(want))  # the output of a GRU is its state
    assert info.iterations == 0
    np.testing.assert_allclose(ys, want, atol=1e-11)


def test_quasi_newton_needs_more_iterations_and_gives_exact_gradients():
    got = derivatives(GRU, Newton(quasi=True), 40)
    assert_near(got, derivatives(GRU, Sequential(), 40), 1e-10)
    exact, quasi = solve(LSTM, 80)[2], solve(LSTM, 80, Newton(quasi=True))[2]
    assert exact.converged and quasi.converged
    assert exact.iterations < quasi.iterations < 80


def test_gradients_where_the_exact_jacobian_is_too_large_to_form(monkeypatch):
    monkeypatch.setattr(newton, "LARGEST_BLOCK", 3)
    params, state, xs = work(GRU, 30)
    reason = Newton().why_not(GRU.cell, params, state, xs)
    assert re.search(r"block of 4x4 .* 3 is the limit; use engines.Newton\(quasi=True\)", reason)
    assert Newton(quasi=True).why_not(GRU.cell, params, state, xs) is None
    engine = Newton(quasi=True, max_iterations=99)  # a separate trace: the limit is not an argument

    def loss(params, state, xs):
        return weighted_sum(rnn.unroll(GRU.cell, params, xs, state, engine=engine))

    def plain(params, state, xs):
        return weighted_sum(rnn.unroll(GRU.cell, params, xs, state, engine=Sequential()))

    for transform in (jax.grad, jax.jacfwd):
        got, want = (transform(f, argnums=(0, 1, 2)) for f in (loss, plain))
        assert_near(jax.jit(got)(params, state, xs), jax.jit(want)(params, state, xs), 1e-10)


def test_damping_changes_the_iterations_and_not_the_result():
    want = rnn.unroll(GRU.cell, *(work(GRU, 40)[n] for n in (0, 2, 1)))
    counts = []
    for damping in (0.0, 0.5, 1.0):
        final, ys, info = solve(GRU, 40, Newton(damping=damping))
        assert_near((final, ys), want, 1e-10)
        counts.append(int(info.iterations))
    assert counts == sorted(counts) and counts[0] < counts[2]


def test_tolerances_end_the_iterations():
    loose, tight = (solve(GRU, 100, Newton(atol=tol, rtol=0.0))[2] for tol in (1e-2, 1e-13))
    assert loose.iterations < tight.iterations
    assert 1e-13 < loose.residual <= 1e-2 and tight.residual <= 1e-13


# Chaotic and non-finite trajectories --------------------------------------------------------------


def sines(gain):
    """Units h' = sin(gain h + x W + b): contracting for a gain below 1, chaotic well above 2.

    The mean of log |cos| of an angle is -log 2; `exponents` measures the exponents.
    """

    def step(params, h, x):
        h = jnp.sin(params["gain"] * h + x @ params["kernel"] + params["bias"])
        return h, h

    rng = np.random.default_rng(0)
    params = {
        "gain": jnp.full(4, gain),
        "kernel": jnp.asarray(rng.normal(size=(3, 4))),
        "bias": jnp.asarray(rng.normal(size=4)),
    }
    return step, params


SINES = rnn.from_step(sines(1.0)[0], init_state=lambda params, batch: jnp.full((*batch, 4), 0.3))


def inputs(time, batch=2):
    return jnp.asarray(0.3 * np.random.default_rng(1).normal(size=(time, batch, 3)))


WILD = 2.5
"""A chaotic gain for which 24 steps amplify rounding errors to only 1e-11 of the gradient.

A gain of 4 amplifies them by up to 1e12, so that two orders of the same sums differ visibly.
"""


def exponents(gain):
    """The largest Lyapunov exponent of each row."""
    return rnn.analysis.lyapunov_exponents(SINES, sines(gain)[1], inputs(500))


def test_a_chaotic_cell_falls_back_to_the_loop():
    params, xs = sines(WILD)[1], inputs(24)
    state = SINES.init_state(params, (2,))
    assert exponents(WILD).min() > 0.2
    engine = Newton(max_iterations=4)
    _, _, info = jax.jit(functools.partial(engine.solve, SINES))(params, state, xs)
    assert not info.converged and info.iterations == 4 and info.residual > 1e-6

    def loss(params, state, xs, engine):
        out = rnn.unroll(SINES, params, xs, state, engine=engine)
        return weighted_sum(out), out

    def run(engine):
        gradient = jax.grad(functools.partial(loss, engine=engine), argnums=(0, 1, 2), has_aux=True)
        return jax.jit(gradient)(params, state, xs)

    assert_near(run(engine), run(Sequential()), 1e-9)


def test_a_long_chaotic_trajectory_obeys_the_cell():
    """It depends on rounding, but each step must be right, and the iterations must end."""
    params, xs = sines(6.0)[1], inputs(500, 1)
    state = SINES.init_state(params, (1,))
    _, ys, info = jax.jit(functools.partial(Newton().solve, SINES))(params, state, xs)
    assert not info.converged and info.iterations == 100
    before = jnp.concatenate([state[None], ys[:-1]])
    again = np.sin(params["gain"] * before + xs @ params["kernel"] + params["bias"])
    np.testing.assert_allclose(ys, again, atol=1e-12)


def test_iterates_that_overflow_restart():
    """At the guess, zero, J is 3, and 3^300 overflows float32; at the solution it is 0.03."""
    cell = rnn.from_step(
        lambda params, h, x: (3 * jnp.tanh(h) + x,) * 2,
        init_state=lambda params, batch: jnp.zeros((*batch, 2), jnp.float32),
    )
    xs = jnp.full((300, 2), 1e-3, jnp.float32)
    _, ys, info = Newton().solve(cell, (), cell.init_state((), ()), xs)
    assert info.converged and np.isfinite(info.residual)
    np.testing.assert_allclose(ys, rnn.unroll(cell, (), xs)[1], atol=3e-5)


def test_non_finite_values_propagate():
    params, state, xs = work(GRU, 20)
    xs = xs.at[7, 0, 0].set(jnp.nan)
    final, ys, info = Newton(max_iterations=5).solve(GRU.cell, params, state, xs)
    want_final, want = rnn.unroll(GRU.cell, params, xs, state, engine=Sequential())
    assert not info.converged
    np.testing.assert_allclose(ys, want, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(final.hidden), np.isnan(want_final.hidden))
    assert np.isnan(ys[7:, 0]).all() and np.isfinite(ys[:, 1]).all()


# One decision for a batch -------------------------------------------------------------------------


def test_one_chaotic_member_sends_all_to_the_loop_and_all_are_right():
    assert exponents(0.05).max() < -1 and exponents(WILD).min() > 0.2
    calm, wild = sines(0.05)[1], sines(WILD)[1]
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), calm, wild, calm)
    xs, state = inputs(24), SINES.init_state(calm, (2,))
    engine = Newton(max_iterations=4)

    def run(params, engine):
        def loss(params):
            return weighted_sum(rnn.unroll(SINES, params, xs, state, engine=engine))

        return jax.value_and_grad(loss)(params)

    got = jax.jit(jax.vmap(functools.partial(run, engine=engine)))(members)
    want = jax.jit(jax.vmap(functools.partial(run, engine=Sequential())))(members)
    for n in range(3):  # each relative to its own size: the chaotic gradients are far larger
        assert_near(*(jax.tree.map(operator.itemgetter(n), out) for out in (got, want)), 1e-9)
    solved = jax.jit(jax.vmap(lambda p: engine.solve(SINES, p, state, xs)[2]))(members)
    assert solved.converged.tolist() == [True, False, True]


def equations(jaxpr, inside=()):
    """All equations, with the names of those that contain them."""
    for eqn in jaxpr.eqns:
        yield eqn, inside
        for inner in nested_jaxprs(eqn):
            yield from equations(inner, (*inside, eqn.primitive.name))


def test_the_loop_does_not_run_after_convergence():
    """Under two vmaps, forwards and backwards, every scan is in a branch that is not taken."""
    params, state, xs = work(GRU, 9)

    def loss(params, xs):
        return weighted_sum(Newton()(GRU.cell, params, state, xs))

    mapped = jax.vmap(jax.vmap(jax.grad(loss), (None, 0)), (0, None))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    traced = jax.make_jaxpr(mapped)(many, jnp.stack([xs] * 3))
    found = list(equations(traced.jaxpr))
    scans = [inside for eqn, inside in found if eqn.primitive.name == "scan"]
    branches = [eqn for eqn, _ in found if eqn.primitive.name == "cond"]
    assert len(scans) >= 2 and all("cond" in inside for inside in scans)
    assert len(branches) >= 2 and all(eqn.invars[0].aval.shape == () for eqn in branches)


def test_cond_for_all():
    def twice(x, y):
        return 2 * x + y

    def minus(x, y):
        return x - y

    def run(flag, x, y):
        return cond_for_all(flag, twice, minus, x, y)

    x, y = jnp.arange(6.0).reshape(2, 3), jnp.float64(10.0)
    nested = jax.vmap(jax.vmap(run, (0, 0, None)), (0, 0, None))
    for flags in (np.ones((2, 3), bool), np.array([[1, 1, 1], [1, 0, 1]], bool)):
        want = twice(x, y) if flags.all() else minus(x, y)
        np.testing.assert_array_equal(nested(jnp.asarray(flags), x, y), want)
    np.testing.assert_array_equal(run(jnp.array(True), x, y), twice(x, y))
    by_columns = jax.vmap(run, (None, 1, None), out_axes=1)(jnp.array(False), x, y)
    np.testing.assert_array_equal(by_columns, minus(x, y))


# Linear recurrences in blocks ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_block_recurrence_and_its_transpose(size, reverse):
    rng = np.random.default_rng(size)
    a = 0.7 * rng.normal(size=(7, size, size, 2, 3)) / np.sqrt(size)
    b = rng.normal(size=(7, size, 2, 3))
    got = jax.jit(functools.partial(block_recurrence, reverse=reverse))(
        jnp.asarray(a), jnp.asarray(b)
    )
    h, want = np.zeros(b.shape[1:]), np.zeros(b.shape)
    for t in range(7)[:: -1 if reverse else 1]:
        h = want[t] = np.einsum("ij...,j...->i...", a[t], h) + b[t]
    np.testing.assert_allclose(got, want, atol=1e-12)
    g = rng.normal(size=b.shape)
    at = transposed_matrices(jnp.asarray(a), reverse=reverse)
    pulled = jax.jit(functools.partial(block_recurrence, reverse=not reverse))(at, jnp.asarray(g))
    np.testing.assert_allclose((g * got).sum(), (np.asarray(pulled) * b).sum(), rtol=1e-12)


# Trained cells ------------------------------------------------------------------------------------


def trained(cell, steps):
    """Parameters after training to predict a modulated wave, and the wave."""
    time = np.arange(4097)
    wave = np.sin(0.21 * time) * np.cos(0.013 * time) + 0.3 * np.sin(0.77 * time + 1)
    wave = jnp.asarray(wave + 0.05 * np.random.default_rng(0).normal(size=4097), "float32")
    keys = jax.random.split(jax.random.key(0))
    readout = 0.3 * jax.random.normal(keys[1], (cell.output_size,), "float32")
    params = cell.init(keys[0], 1, "float32"), readout
    optimizer = optax.adam(0.01)

    def loss(params, rows):
        _, ys = rnn.unroll(cell, params[0], rows[:-1, :, None], engine=Hoisted())
        return ((ys @ params[1] - rows[1:]) ** 2).mean()

    @jax.jit
    def step(params, opt):
        value, gradient = jax.value_and_grad(loss)(params, wave[:4096].reshape(64, 64).T)
        updates, opt = optimizer.update(gradient, opt)
        return optax.apply_updates(params, updates), opt, value

    opt, losses = optimizer.init(params), []
    for _ in range(steps):
        params, opt, value = step(params, opt)
        losses.append(float(value))
    return params[0], wave[:4096, None, None], losses


@pytest.mark.parametrize(
    ("cell", "steps"),
    [
        pytest.param(cell, steps, marks=pytest.mark.slow if steps else pytest.mark.thorough)
        for cell in (rnn.GRU(8), rnn.LSTM(8), rnn.Elman(8))
        for steps in (0, 150)
    ],
    ids=lambda value: type(value).__name__ if dataclasses.is_dataclass(value) else str(value),
)
def test_converges_over_4096_steps(cell, steps):
    with jax.numpy_dtype_promotion("standard"):
        params, xs, losses = trained(cell, steps)
    assert steps == 0 or losses[-1] < 0.5 * losses[0]
    state = cell.init_state(params, (1,))
    final, ys, info = jax.jit(functools.partial(Newton().solve, cell))(params, state, xs)
    assert info.converged and info.iterations < 40, info
    assert_near((final, ys), rnn.unroll(cell, params, xs, state, engine=Sequential()), 1e-5)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quasi": 1}, "quasi must be True or False, got 1"),
        ({"max_iterations": 0}, "max_iterations must be a positive int, got 0"),
        ({"damping": 1.5}, r"damping must be in \[0, 1\], got 1.5"),
        ({"damping": None}, "damping must be a number, got None"),
        ({"atol": -1.0}, "atol must be 0 or more, got -1.0"),
        ({"rtol": "small"}, "rtol must be a number, got 'small'"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Newton(**options)


def test_explains_why_it_cannot_run():
    params, state, xs = work(GRU, 3)

    def centred(params, h, x):
        h = h - h.mean(axis=0) + x[..., :1]
        return h, h

    def empty(params, h, x):
        return (), x

    def printing(params, h, x):
        jax.debug.callback(lambda h: None, h)
        return h + x[..., :1], h

    one = lambda params, batch: jnp.zeros((*batch, 1))  # noqa: E731
    cells = {
        "rows of a batch are not independent": rnn.from_step(centred, init_state=one),
        "no elements to solve for": rnn.from_step(empty, init_state=lambda params, batch: ()),
        "has side effects": rnn.from_step(printing, init_state=one),
    }
    for message, cell in cells.items():
        with pytest.raises(ValueError, match=f"engine=Newton.* cannot run this: .*{message}"):
            rnn.unroll(cell, (), xs, engine=Newton())


def test_guesses_of_a_wrong_structure_or_shape():
    params, state, xs = work(GRU, 3)
    with pytest.raises(TypeError, match="guess must have the structure of the state"):
        Newton().solve(GRU.cell, params, state, xs, guess=jnp.zeros((3, 2, 4)))
    with pytest.raises(ValueError, match="guess must hold a state for each time step"):
        Newton().solve(GRU.cell, params, state, xs, guess=state)
