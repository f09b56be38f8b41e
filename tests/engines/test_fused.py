"""`Fused`: its kernels, interpreted with race detection, and its derivatives through references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn.engines import Fused
from jaxrnn.engines.fused import hopper
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import split, weighted_sum
from tests.support.interpreted import AVAILABLE, Interpreted, races_found

needs_kernels = pytest.mark.skipif(not AVAILABLE, reason="needs JAX 0.11 or newer")
TIME, HIDDEN = 3, 64


def objective(case, engine, floats, join, options):
    params, state, xs = join(floats)
    results = rnn.unroll(case.cell, params, xs, state, engine=engine, key=case.key, **options)
    return weighted_sum(results), results


def differentiated(case, engine, work, options):
    floats, join = split(work)
    run = functools.partial(objective, case, engine, join=join, options=options)
    gradients, results = jax.jit(jax.grad(run, has_aux=True))(floats)
    return results, gradients


def work_of(case, batch, dtype="bfloat16"):
    xs = random_inputs(case, (TIME, *batch), dtype)
    return random_params(case, dtype), random_state(case, batch, dtype), xs


def largest_error(got, want):
    """The largest difference of a leaf, relative to the largest element of the leaf (at least 1)."""
    errors = [
        np.abs(np.asarray(g, np.float64) - np.asarray(w, np.float64)).max()
        / max(1.0, np.abs(np.asarray(w, np.float64)).max())
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    ]
    assert np.isfinite(errors).all()
    return max(errors)


def check(case, batch=(3,), units=None, reverse=False, flags=()):
    """Values and gradients in bfloat16 against `Sequential`, and no race."""
    rng = np.random.default_rng(2)
    options = {"reverse": reverse}
    options |= {name: rng.random((TIME, *batch)) < 0.6 for name in flags}
    work = work_of(case, batch)
    got = differentiated(case, Interpreted(units), work, options)
    assert not races_found()
    want = differentiated(case, rnn.engines.Sequential(), work, options)
    exact = jax.tree.map(lambda x: x.astype("float64") if is_inexact(x) else x, work)
    exact = differentiated(case, rnn.engines.Sequential(), exact, options)
    for number, limit in enumerate((1e-2, 2e-2)):
        rounding = largest_error(want[number], exact[number])
        error = largest_error(got[number], want[number])
        assert error <= max(limit, 3 * rounding), (number, error, rounding)


# Kernels -----------------------------------------------------------------------------------------


@needs_kernels
def test_kernels_agree_with_sequential():
    check(Case(rnn.LSTM(HIDDEN)), flags=("mask", "starts"), units=32)


@needs_kernels
@pytest.mark.parametrize("fault", ["index", "race"])
def test_planted_faults_are_found(fault, monkeypatch):
    """Without the barrier before a product, and with the weights of another block."""
    if fault == "race":
        monkeypatch.setattr(hopper, "_meet_in_cluster", lambda *args: None)
    else:
        pack = hopper._pack
        monkeypatch.setattr(hopper, "_pack", lambda *args: jnp.roll(pack(*args), 1, axis=0))
    case = Case(rnn.Elman(HIDDEN))
    params, state, xs = work_of(case, (3,))
    options: dict = {"on_race": "warn"} if jax.__version_info__ >= (0, 12) else {}
    engine = Interpreted(32, **options)
    got = rnn.unroll(case.cell, params, xs, state, engine=engine)
    want = rnn.unroll(case.cell, params, xs, state, engine=rnn.engines.Sequential())
    found = races_found() if fault == "race" else largest_error(got, want) > 0.1
    assert found


# Platforms ---------------------------------------------------------------------------------------


@needs_kernels
def test_a_program_contains_the_kernel_of_its_platform():
    """One exported artifact for several platforms; its CPU part runs here."""
    case = Case(rnn.GRU(HIDDEN))
    params, state, xs = work_of(case, (2,))

    def loss(params, state, xs):
        return weighted_sum(rnn.unroll(case.cell, params, xs, state, engine=Fused()))

    program = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    exported = jax.export.export(
        program, platforms=("cpu", "cuda"), disabled_checks=[
            jax.export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")
        ]
    )(params, state, xs)
    text = exported.mlir_module()
    assert text.count("mosaic_gpu") >= 2
    got = exported.call(params, state, xs)
    want = program(params, state, xs)
    jax.tree.map(np.testing.assert_array_equal, got, want)
