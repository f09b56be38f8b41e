"""Sequences of any length and any number of rows in one program, by `jax.export`: each engine."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import engines
from tests.support.networks import random_params

CELLS = {
    "nonlinear": rnn.GRU(3),
    "affine": rnn.MinGRU(3),
    "chunked": rnn.DeltaNet(4, num_heads=2, key_size=4),
}
XS = np.random.default_rng(0).normal(size=(7, 3, 2))
# What a program may leave open: time and batch, the batch alone, or nothing, with the reason.
BOTH, ROWS = ("time", "batch"), ("batch",)
ENGINES = [
    (engines.Sequential(), CELLS, BOTH),
    (engines.Hoisted(), CELLS, BOTH),
    (engines.Auto(), CELLS, BOTH),
    (engines.Sequential(unroll=2), CELLS, ROWS),
    (engines.Hoisted(unroll=2), CELLS, ROWS),
    (engines.Hoisted(checkpoint_every=3), CELLS, ROWS),
    (engines.Associative(), ("affine", "chunked"), ROWS),
    (engines.Associative(chunk_size=3), ("affine", "chunked"), ROWS),
    (engines.Newton(), ("nonlinear", "affine"), ()),
]
QUICK = (engines.Sequential(), engines.Hoisted(), engines.Associative())
CASES = [
    pytest.param(
        engine,
        name,
        symbols,
        id=f"{engine}-{name}",
        marks=() if engine in QUICK and name == "affine" else pytest.mark.thorough,
    )
    for engine, names, symbols in ENGINES
    for name in names
]


def exported(engine, cell, params, symbols):
    """The outputs and the gradient of their squares as a program of inputs and parameters."""
    shape = dict(time=7, batch=3)
    if symbols:
        constraints = [f"{name} >= 1" for name in symbols]
        sizes = jax.export.symbolic_shape(", ".join(symbols), constraints=constraints)
        shape |= dict(zip(symbols, sizes, strict=True))
    specs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tuple(params))
    xs = jax.ShapeDtypeStruct((*shape.values(), 2), "float64")
    return jax.export.export(jax.jit(lambda *work: run(engine, cell, params, *work)))(specs, xs)


def run(engine, cell, params, leaves, xs):
    def loss(leaves):
        ys = rnn.unroll(cell, type(params)(*leaves), xs, engine=engine)[1]
        return (ys**2).sum(), ys

    return jax.grad(loss, has_aux=True)(leaves)


@pytest.mark.parametrize("engine, name, symbols", CASES)
def test_one_program_runs_every_size_that_it_leaves_open(engine, name, symbols):
    cell = CELLS[name]
    params = random_params(cell)
    if symbols:
        program = exported(engine, cell, params, symbols)
        for time, batch in ((7, 3), (2, 1)):
            xs = jnp.asarray(XS[: time if "time" in symbols else 7, :batch])
            wanted = run(engines.Sequential(), cell, params, tuple(params), xs)
            given = program.call(tuple(params), xs)
            for theirs, ours in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
                np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-11)
    for more in ((*symbols, name) for name in BOTH if name not in symbols):
        with pytest.raises(ValueError, match="got the symbolic size .*; use engines.Hoisted()"):
            exported(engine, cell, params, tuple(sorted(more, reverse=True)))


def test_kernels_of_a_device_need_sizes():
    (time,) = jax.export.symbolic_shape("time", constraints=["time >= 1"])
    xs, cell = jax.ShapeDtypeStruct((time, 3, 2), "float32"), rnn.LSTM(3)
    reason = engines.CuDNN().why_not(cell, None, None, xs)
    assert reason is not None and "time and batch of known sizes" in reason
