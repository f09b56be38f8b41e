import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.cells.golden import keras_conv_lstm as keras_golden
from tests.support.cases import Case, Floats, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, thorough_but
from tests.support.oracle import assert_follows, sigmoid

LINE = Case(rnn.ConvLSTM(2, (4,), (5,)), x=Floats((5, 3)), name="line")
PLANE = Case(rnn.ConvLSTM(2, (3, 2), (3, 4)), x=Floats((3, 4, 3)), name="plane")
SOLID = Case(rnn.ConvLSTM(2, (2, 1, 3), (3, 2, 4)), x=Floats((3, 2, 4, 3)), name="solid")


def convolve(x, kernel):
    """At every point, over every offset of the kernel, with zeros beyond the edges."""
    space, extent = x.shape[:-1], kernel.shape[:-2]
    out = np.zeros((*space, kernel.shape[-1]))
    for point in itertools.product(*map(range, space)):
        for offset in itertools.product(*map(range, extent)):
            at = tuple(p + o - (e - 1) // 2 for p, o, e in zip(point, offset, extent, strict=True))
            if all(0 <= a < s for a, s in zip(at, space, strict=True)):
                out[point] += x[at] @ kernel[offset]
    return out


VALID = Case(
    rnn.ConvLSTM(2, (4, 2), (5, 4), input_padding="VALID"), x=Floats((5, 4, 3)), name="valid"
)


@pytest.mark.parametrize("case", [LINE, PLANE, SOLID, VALID], ids=str)
def test_follows_the_paper_without_peepholes(case):
    def step(p, s, x):
        from_input = convolve(x, p.input_kernel)
        if case is VALID:  # the points at which the kernel does not reach beyond the edges
            from_input = from_input[1:3, :3]
        at = from_input + convolve(s.hidden, p.recurrent_kernel) + p.bias
        i, f, g, o = (at[..., 2 * k : 2 * k + 2] for k in range(4))
        c = sigmoid(f) * s.cell + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return [h, c], h

    assert_follows(case, step, time=3)


@pytest.mark.parametrize("ndim", thorough_but(2, 1, 3))
def test_one_point_is_an_lstm(ndim):
    case = Case(rnn.LSTM(4))
    p, state, xs = random_params(case), random_state(case, (2,)), random_inputs(case, (5, 2))
    ones = (1,) * ndim
    kernels = [kernel.reshape(*ones, *kernel.shape) for kernel in p[:2]]
    final, ys = rnn.unroll(
        rnn.ConvLSTM(4, ones, ones),
        rnn.cells.ConvLSTMParams(*kernels, p.bias),
        xs.reshape(5, 2, *ones, 3),
        jax.tree.map(lambda leaf: leaf.reshape(2, *ones, 4), state),
    )
    got = jax.tree.map(lambda leaf: leaf.reshape(2, 4), final), ys.reshape(5, 2, 4)
    assert_near(got, rnn.unroll(case.cell, p, xs, state), 1e-12)


def test_moves_with_its_input():
    """Away from the edges a shifted input gives shifted outputs."""
    cell = rnn.ConvLSTM(2, (3,), (15,))
    p = random_params(Case(cell, x=Floats((15, 3))))
    xs = np.zeros((3, 15, 3))
    xs[:, 5:7] = random_inputs(LINE, (3,))[:, :2]
    _, here = rnn.unroll(cell, p, jnp.asarray(xs))
    _, there = rnn.unroll(cell, p, jnp.asarray(np.roll(xs, 3, axis=1)))
    # Three steps see three points each way, of the edges too.
    assert_near(there[:, 6:12], here[:, 3:9], 1e-13)
    assert np.ptp(here[:, 3:9], axis=1).max() > 0.1


def as_ours(ndim, data):
    """Keras packs the gates as we do; its batch comes before its time."""
    cell = rnn.ConvLSTM(
        keras_golden.FEATURES, keras_golden.KERNEL_SHAPES[ndim], keras_golden.SPATIAL_SHAPES[ndim]
    )
    weights = (jnp.asarray(data[name]) for name in ("kernel", "recurrent_kernel", "bias"))
    params = rnn.cells.ConvLSTMParams(*weights)
    final, ys = rnn.unroll(cell, params, jnp.asarray(np.swapaxes(data["xs"], 0, 1)))
    return {"ys": np.swapaxes(ys, 0, 1), "hidden": final.hidden, "cell": final.cell}


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_is_keras_as_it_was_recorded(ndim):
    with np.load(keras_golden.FILE) as file:
        data = {name[:-2]: file[name] for name in file if name.endswith(f"_{ndim}")}
    for name, got in as_ours(ndim, data).items():
        np.testing.assert_allclose(got, data[name], rtol=0, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_is_keras(ndim):
    pytest.importorskip("keras", reason="Keras is not installed; what it gave is tested above")
    inputs = keras_golden.draw(ndim)
    with jax.numpy_dtype_promotion("standard"):  # on JAX, Keras does a part of it in float32
        want = keras_golden.run(ndim, **inputs)
    for name, got in as_ours(ndim, inputs).items():
        np.testing.assert_allclose(got, want[name], rtol=0, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("case", [LINE, PLANE], ids=str)
def test_is_flax(case):
    """Flax packs i, g, f, o and adds 1 to f when it runs."""
    linen = pytest.importorskip("flax.linen")
    cell, p, state = case.cell, random_params(case), random_state(case, (2,))
    x = random_inputs(case, (2,))

    def packed(a):
        i, f, g, o = jnp.split(a, 4, axis=-1)
        return jnp.concatenate([i, g, f, o], axis=-1)

    bias = packed(p.bias - jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), 2))
    variables = {
        "ih": {"kernel": packed(p.input_kernel), "bias": bias},
        "hh": {"kernel": packed(p.recurrent_kernel), "bias": jnp.zeros(8)},
    }
    theirs = linen.ConvLSTMCell(cell.features, cell.kernel_shape, param_dtype=jnp.float64)
    (c, h), y = theirs.apply({"params": variables}, (state.cell, state.hidden), x)
    assert_near(cell.step(p, state, x), (rnn.LSTMState(h, c), y), 1e-12)


def test_gradients_beside_bfloat16_are_bfloat16():
    p, xs = random_params(PLANE, "bfloat16"), random_inputs(PLANE, (2, 2), "bfloat16")

    def loss(p):
        return rnn.unroll(PLANE.cell, p, xs)[1].astype("float32").sum()

    wide = jax.tree.map(lambda leaf: leaf.astype("float32"), (p, xs))
    exact = jax.jit(jax.grad(lambda p, xs: rnn.unroll(PLANE.cell, p, xs)[1].sum()))(*wide)
    rounded = jax.jit(jax.grad(loss))(p)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in rounded)
    assert_near(jax.tree.map(lambda leaf: leaf.astype("float32"), rounded), exact, 0.05)


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="kernel_shape must be a tuple of one to three ints, got 3"):
        rnn.ConvLSTM(2, 3, (5,))
    with pytest.raises(ValueError, match="spatial_shape must have one to three spatial axes"):
        rnn.ConvLSTM(2, (3,), (1,) * 4)
    with pytest.raises(ValueError, match="must name the same axes"):
        rnn.ConvLSTM(2, (3,), (5, 5))
    with pytest.raises(ValueError, match=r"spatial_shape\[1\] must be a positive int, got 0"):
        rnn.ConvLSTM(2, (3, 3), (5, 0))
    with pytest.raises(ValueError, match="input_padding must be 'SAME' or 'VALID', got 'valid'"):
        rnn.ConvLSTM(2, (3,), (5,), input_padding="valid")
    with pytest.raises(ValueError, match=r"at least kernel_shape=\(3, 3\) with input_padding"):
        rnn.ConvLSTM(2, (3, 3), (5, 2), input_padding="VALID")
    with pytest.raises(ValueError, match=r"its last axes must be \(5, 3\)"):
        rnn.unroll(LINE.cell, random_params(LINE), jnp.zeros((4, 2, 6, 3)))
    with pytest.raises(TypeError, match="x has dtype float32, the kernel float64"):
        state = LINE.cell.init_state(random_params(LINE))
        LINE.cell.step(random_params(LINE), state, jnp.zeros((5, 3), "float32"))
