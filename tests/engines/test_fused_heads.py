"""Products by heads, written as products with block-diagonal kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.engines import Fused, fused
from jaxrnn.engines._fused.heads import (
    blocks_of,
    heads_as_rows,
    heads_of,
    rows_as_heads,
    with_dense_kernels,
)
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, weighted_sum

needs_kernels = pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="needs JAX 0.11 or newer")
HEADS, N, GATES = 2, 3, 4

# The equation of the product, the shape of the kernel, and the axes of a gate in the result.
LAYOUTS = {
    "gates before heads": ("...hi,higj->...ghj", (HEADS, N, GATES, N), -3),
    "kernel first": ("higj,...hi->...ghj", (HEADS, N, GATES, N), -3),
    "gates in the kernel's last axis": ("...hi,hik->...hk", (HEADS, N, GATES * N), -2),
    "heads last": ("...hi,ihk->...hk", (N, HEADS, GATES * N), -2),
}


def by_heads(layout):
    equation, _, axis = LAYOUTS[layout]

    def step(kernel, h, x):
        operands = h.reshape(*h.shape[:-1], HEADS, N), kernel
        z = jnp.einsum(equation, *operands[:: -1 if layout == "kernel first" else 1])
        if z.ndim == h.ndim + 1:
            z = z.reshape(*h.shape[:-1], HEADS, GATES, N)
        a, b, c, d = (z.reshape(h.shape) for z in jnp.split(z, GATES, axis))
        new = jnp.tanh(a + x) * jax.nn.sigmoid(b) + c * jnp.sin(d)
        return new, new

    return step


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [(), (2,), (2, 2)], ids=str)  # as many rows as heads
def test_the_rewrite_changes_nothing_but_the_form(layout, batch):
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=LAYOUTS[layout][1]))
    h, x = jnp.asarray(rng.normal(size=(2, *batch, HEADS * N)))
    step = by_heads(layout)

    def gradients(step):
        return jax.grad(lambda *args: weighted_sum(step(*args)), (0, 1, 2))(kernel, h, x)

    dense = with_dense_kernels(step)
    assert_near(dense(kernel, h, x), step(kernel, h, x), 1e-12)
    assert_near(gradients(dense), gradients(step), 1e-12)
    products = [e for e in jax.make_jaxpr(dense)(kernel, h, x).eqns if "dot" in str(e.primitive)]
    assert [e.invars[1].aval.shape for e in products] == [(HEADS * N, GATES * HEADS * N)]


def test_blocks_and_rows_of_heads():
    blocks = np.random.default_rng(0).normal(size=(HEADS, N, GATES, N))
    dense = np.zeros((HEADS, N, GATES, HEADS, N))
    for head in range(HEADS):
        dense[head, :, :, head] = blocks[head]
    kernel = jnp.asarray(dense.reshape(HEADS * N, -1))
    np.testing.assert_array_equal(blocks_of(kernel, GATES, HEADS), blocks)
    x = jnp.arange(2.0 * 5 * HEADS * N).reshape(2, 5, HEADS * N)
    rows = heads_as_rows(x, HEADS, 8, 4)
    assert rows.shape == (2, HEADS * 8, 4)
    np.testing.assert_array_equal(rows[:, 8:13, :N], x[:, :, N:])
    np.testing.assert_array_equal(rows_as_heads(rows, HEADS, 5, HEADS * N), x)


@needs_kernels
def test_heads_run_side_by_side_in_one_kernel():
    """Four heads in clusters of their own, each with a kernel of its own size on the chip."""
    case = Case(rnn.SLSTM(256, num_heads=4))
    params, state = random_params(case, "bfloat16"), random_state(case, (2,), "bfloat16")
    xs = random_inputs(case, (3, 2), "bfloat16")
    plan = fused._plan(case.cell, params, state, xs)
    assert heads_of(plan) == 4

    def run(params, state, xs):
        return rnn.unroll(case.cell, params, xs, state, engine=Fused())

    traced = jax.jit(run).trace(params, state, xs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@mosaic_gpu_v2(") == 1 and "stablehlo.while" not in text
    assert "tensor<32x32x64xbf16>" in text  # [heads * blocks, gates * units, n]
