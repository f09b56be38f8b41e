"""JAX transformations of `unroll`, with every engine."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support import sharded_batch
from tests.support.cases import CELLS, ENGINES, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, on_four_devices, weighted_sum

CASE = next(case for case in CELLS if isinstance(case.cell, rnn.GRU))
TIME, BATCH, MEMBERS = 4, 3, 2
LENGTHS = np.array([4, 0, 2])


def by_hand(params, xs, state, lengths):
    """`unroll` as a Python loop over the valid steps."""
    finals, outputs = [], []
    for row in range(BATCH):
        one, ys = jax.tree.map(lambda s: s[row], state), []  # noqa: B023
        for t in range(TIME):
            if t < LENGTHS[row]:
                one, y = CASE.cell.step(params, one, xs[t, row])
            ys.append(y if t < LENGTHS[row] else jnp.zeros(CASE.cell.output_size))
        finals.append(one)
        outputs.append(jnp.stack(ys))
    return jax.tree.map(lambda *rows: jnp.stack(rows), *finals), jnp.stack(outputs, axis=1)


QUICK = ("linearize", "forward over reverse", "reverse over forward", "vmap of grad")


def transformed(run, names=None):
    """The results of transformations (all, or those with these names), compiled as one program."""

    def loss(params, xs, state, lengths):
        return weighted_sum(run(params, xs, state, lengths))

    @jax.jit
    def everything(params, xs, state, lengths, members, xss):
        def of_params(params):
            return loss(params, xs, state, lengths)

        def of_inputs(xs):
            return loss(params, xs, state, lengths)

        def outputs(params):
            return run(params, xs, state, lengths)

        grad = jax.grad(of_params)
        direction = jax.tree.map(lambda p: jnp.cos(3 * p), params)
        along = functools.partial(jax.tree.map, lambda g, d: (g * d).sum(), direction)

        def slope(params):
            return jax.jvp(of_params, (params,), (direction,))[1]

        def slope_of_grad(params):
            return sum(jax.tree.leaves(along(grad(params))))

        results = {
            "jvp": lambda: jax.jvp(outputs, (params,), (direction,))[1],
            "linearize": lambda: jax.linearize(outputs, params)[1](direction),
            "grad": lambda: jax.grad(loss, argnums=(0, 1, 2))(params, xs, state, lengths),
            "checkpoint": lambda: jax.grad(jax.checkpoint(of_params))(params),
            "forward over reverse": lambda: jax.jvp(grad, (params,), (direction,))[1],
            "reverse over forward": lambda: jax.grad(slope)(params),
            "reverse over reverse": lambda: jax.grad(slope_of_grad)(params),
            "forward over forward": lambda: jax.jvp(slope, (params,), (direction,))[1],
            "jacfwd over jacrev": lambda: jax.jacfwd(jax.jacrev(of_inputs))(xs),
            "jacrev over jacfwd": lambda: jax.jacrev(jax.jacfwd(of_inputs))(xs),
            "vmap over inputs": lambda: jax.vmap(lambda x: run(params, x, state, lengths))(xss),
            "vmap over parameters": lambda: jax.vmap(of_params)(members),
            "vmap of grad": lambda: jax.vmap(grad)(members),
            "grad of vmap": lambda: jax.grad(lambda ps: jax.vmap(of_params)(ps).sum())(members),
        }
        return {name: results[name]() for name in names or results}

    params = random_params(CASE)
    xs, state = random_inputs(CASE, (TIME, BATCH)), random_state(CASE, (BATCH,))
    members = jax.tree.map(lambda p: jnp.stack([p, jnp.sin(p)]), params)
    xss = jnp.stack([xs, jnp.sin(xs)])
    return everything(params, xs, state, jnp.asarray(LENGTHS), members, xss)


@functools.cache
def reference():
    return transformed(by_hand)


CHECKPOINTED = rnn.engines.Hoisted(unroll=2, checkpoint_every=2)


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        (rnn.engines.Hoisted(), QUICK),
        (CHECKPOINTED, QUICK),
        (rnn.engines.Newton(), QUICK),
        *(
            pytest.param(engine.engine, None, marks=pytest.mark.thorough)
            for engine in ENGINES
            if engine.takes(CASE)
        ),
    ],
    ids=str,
)
def test_transformations(engine, names):
    def run(params, xs, state, lengths):
        return rnn.unroll(CASE.cell, params, xs, state, lengths=lengths, engine=engine)

    got, want = transformed(run, names), reference()
    for name, result in got.items():
        try:
            assert_near(result, want[name], 1e-10)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_higher_derivatives_agree_with_each_other():
    """A check of the reference: one Hessian by all compositions of modes, symmetric."""
    want = reference()
    product = want["forward over reverse"]
    assert_near(want["reverse over forward"], product, 1e-12)
    assert_near(want["reverse over reverse"], product, 1e-12)
    hessian = want["jacfwd over jacrev"].reshape(2 * (TIME * BATCH * CASE.input_size,))
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)


def test_cells_are_static_arguments_of_jit():
    """Cells and engines are hashable, so they can be static arguments of a training step."""
    traces = []

    @functools.partial(jax.jit, static_argnames=("cell", "engine"))
    def run(params, xs, cell, engine):
        traces.append(cell)
        return rnn.unroll(cell, params, xs, engine=engine)

    params, xs = random_params(CASE), random_inputs(CASE, (TIME, BATCH))
    for _ in range(2):
        run(params, xs, rnn.GRU(CASE.cell.hidden_size), rnn.engines.Sequential())
    assert len(traces) == 1


QUICK = "gru_in_chunks", "hoisted", "checkpoints", "loop", "newton"


@pytest.mark.parametrize(
    "arguments",
    [QUICK]
    + [pytest.param((name, "--all"), marks=pytest.mark.thorough) for name in sharded_batch.ENGINES],
    ids=str,
)
def test_batch_sharded_over_devices(arguments):
    """On four devices, in a separate process: values, and what each device computes and sends."""
    done = on_four_devices("tests.support.sharded_batch", *arguments)
    assert done.returncode == 0, done.stderr
