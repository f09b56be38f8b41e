"""Primitives that steps use seldom, one function each, in both of ONNX's runtimes."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support import onnx_runs

pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")
pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra: onnx")
TABLE = np.random.default_rng(1).normal(size=(4, 3))
SMALL = 1e-9


def doubled_until_large(x):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2 + x), (0, x))[1]


def branch(x):
    index = jnp.clip(jnp.floor(x.sum()).astype("int32"), 0, 2)
    branches = [jnp.sin, jnp.cos, lambda x: x * 3]
    return jax.lax.switch(index, branches, x)


FUNCTIONS = {
    "rows, clipped": lambda x: jnp.asarray(TABLE).at[index(x)].get(mode="clip"),
    "rows, NaN outside": lambda x: jnp.asarray(TABLE).at[index(x)].get(mode="fill"),
    "columns": lambda x: jnp.asarray(TABLE)[:, jnp.abs(index(x)) % 3],
    "window, clamped": lambda x: jax.lax.dynamic_slice(x, (1, 9), (1, 2)),
    "exp near 0": lambda x: jnp.expm1(x * SMALL) / SMALL + jnp.expm1(x),
    "log near 1": lambda x: jnp.log1p(x * SMALL) / SMALL + jnp.log1p(x * x),
    "roots and powers": lambda x: jnp.cbrt(x) + x**3 + (x * x + 1) ** -2 + jnp.exp2(x),
    "rounding": lambda x: jnp.round(4 * x) + jax.lax.round(2 * x) + jnp.floor(x) + jnp.ceil(x),
    "remainders": lambda x: jax.lax.rem(x, jnp.full_like(x, 0.3)) + jnp.mod(x, 0.7),
    "running": lambda x: jax.lax.cummax(x) + jax.lax.cummin(x, reverse=True) + jnp.cumsum(x, 1),
    "extremes": lambda x: (jnp.argmin(x, 1), x.min(0), x.prod(1), (x > 0).all(1), (x > 1).any()),
    "moves": lambda x: jnp.pad(every_other(x), ((1, 0), (0, 2)), constant_values=2.0),
    "where": lambda x: (jnp.isfinite(jnp.where(x > 0, x, jnp.inf)), jnp.clip(x, 0, 1)),
    "counts": lambda x: x + jnp.arange(x.shape[0])[:, None] * x.shape[0],
    "while": doubled_until_large,
    "branch": branch,
    "complex": lambda x: parts(jnp.exp(1j * x) / (x + 2j) * jnp.abs(x - 1j) + (1 + 1j * x) ** 3),
    "elements": lambda x: jnp.take_along_axis(x, jnp.abs(index(x))[:, None] % 3, axis=1),
    "elements, NaN outside": lambda x: x.at[index(x), jnp.abs(index(x)) % 3].get(mode="fill"),
    "row written": lambda x: x.at[index(x)[0]].set(x[1]).at[index(x)[1]].add(x[0]),
    "rows added": lambda x: jnp.zeros((5, 3)).at[index(x)].add(x),
    "rows multiplied": lambda x: (
        (x + 2).at[jnp.abs(index(x)[:1]) % 2].multiply(x[1:2], mode="clip")
    ),
    "columns written": lambda x: x.at[:, jnp.abs(index(x)[:1])].set(2 * x[:, :1]).at[:, -1].add(1),
    "slots written": lambda x: jax.vmap(lambda row, i: row.at[i].set(9.0))(x, index(x)),
    "slots added": lambda x: jax.vmap(lambda row, i, new: row.at[i].add(new))(
        x, jnp.stack([index(x), 2 * index(x)], axis=1) % 5, x[:, :2]
    ),
    "window written": lambda x: jax.lax.dynamic_update_slice(
        x, 3 * x[:1, :2], (index(x)[1], index(x)[0])
    ),
    "complex written": lambda x: parts((1j * x).at[index(x)].add(x).at[0].set(2j + x[0])),
    "stacked": lambda x: jnp.stack([x, 2 * x], axis=1),
    "unstacked": lambda x: tuple(jnp.unstack(x, axis=1)),
    "complex stacked": lambda x: parts(jnp.tile(jnp.stack([1j * x, x + 0j], axis=1), (2, 1, 1))),
    "tiled": lambda x: jnp.tile(x, (2, 3)),
    "subtracted": lambda x: x.at[index(x)].subtract(x),
    "products": lambda x: jnp.cumprod(x, axis=0) - jax.lax.cumprod(x, axis=1, reverse=True),
    "largest": lambda x: tuple(jax.lax.top_k(x, 2)),
    "contraction": lambda x: jnp.einsum("ti,jk,tk->jit", x, jnp.asarray(TABLE)[:, :2], x[:, :2]),
}


def index(x):
    """Some of these are outside of a table of four rows."""
    return jnp.floor(4 * x[:, 0]).astype("int32")


def every_other(x):
    return jax.lax.slice_in_dim(jax.lax.rev(x, (0,)), 0, 3, 2, axis=1)


def parts(z):
    return z.real, z.imag


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name):
    def function(x):
        results = FUNCTIONS[name](x)
        results = results if isinstance(results, tuple) else (results,)
        return {f"y{number}": y for number, y in enumerate(results)}

    (time,) = jax.export.symbolic_shape("time", constraints=["time >= 2"])
    spec = jax.ShapeDtypeStruct((time, 3), "float64")
    narrow = jax.ShapeDtypeStruct((time, 3), "float32")
    with jax.numpy_dtype_promotion("standard"):
        evaluator = onnx_runs.reference(rnn.export.function_to_onnx(function, x=spec))
        model = rnn.export.function_to_onnx(function, x=narrow)
        session = onnx_runs.onnxruntime_session(model)
        for size in (2, 5):
            x = np.random.default_rng(size).normal(size=(size, 3))
            wanted = function(jnp.asarray(x))
            for key, given in zip(
                evaluator.output_names, evaluator.run(None, {"x": x}), strict=True
            ):
                assert given.dtype == wanted[key].dtype
                np.testing.assert_allclose(given, wanted[key], rtol=1e-10, atol=1e-12)
        x = x.astype("float32")
        wanted = function(jnp.asarray(x))
        names = [output.name for output in session.get_outputs()]
        for key, given in zip(names, session.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(given, wanted[key], rtol=2e-5, atol=2e-5)


def test_written_windows_that_are_parts_of_an_axis_are_refused():
    def function(x, place):
        return {"y": jax.vmap(lambda x, i: jax.lax.dynamic_update_slice(x, x[:2], (i,)))(x, place)}

    specs = jax.ShapeDtypeStruct((4, 3), "float64"), jax.ShapeDtypeStruct((4,), "int32")
    with pytest.raises(TypeError, match="scatter of several windows .* no translation to ONNX"):
        rnn.export.function_to_onnx(function, x=specs[0], place=specs[1])
