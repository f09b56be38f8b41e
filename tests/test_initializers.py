"""Every initializer draws what its formula says, in every dtype, and is a value."""

import dataclasses
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import initializers
from tests.support.helpers import thorough_but

KEY = jax.random.key(0)
WIDE = (300, 200)
# Each with a shape that it can draw.
DRAWN = {
    initializers.Chrono(50): (4, 8),
    initializers.Constant(0.5): WIDE,
    initializers.ForgetBias(1.0): (4, 8),
    initializers.GlorotUniform(): WIDE,
    initializers.HippoN(): (2, 8),
    initializers.Identity(): (8, 8),
    initializers.LecunNormal(): WIDE,
    initializers.LecunUniform(): WIDE,
    initializers.Linspace(): (4, 8),
    initializers.LogUniform(): (8,),
    initializers.Normal(): WIDE,
    initializers.Orthogonal(): (8, 6),
    initializers.PyTorchUniform(): WIDE,
    initializers.RandomRotations(): (8, 8),
    initializers.RotaryPhases(): (8,),
    initializers.Uniform(): WIDE,
    initializers.UnitRing(): (2, 8),
}


def draw(initializer, shape, dtype="float64", key=KEY):
    return np.asarray(initializer(key, shape, jnp.dtype(dtype)), np.float64)


def test_every_public_initializer_is_here():
    public = [
        kind
        for kind in vars(initializers).values()
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind)
    ]
    assert {type(initializer) for initializer in DRAWN} == set(public)


@pytest.mark.parametrize("initializer", DRAWN, ids=lambda value: type(value).__name__)
def test_they_are_values_and_keep_the_dtype(initializer):
    twin = pickle.loads(pickle.dumps(initializer))
    assert twin == initializer and hash(twin) == hash(initializer)
    for dtype in ("float64", "float32", "bfloat16"):
        array = jax.eval_shape(lambda dtype=dtype: initializer(KEY, DRAWN[initializer], dtype))
        assert (array.shape, array.dtype) == (DRAWN[initializer], dtype)
    assert np.isfinite(draw(initializer, DRAWN[initializer], "float32")).all()


@pytest.mark.parametrize(
    ("initializer", "bound"),
    [
        (initializers.GlorotUniform(), np.sqrt(6 / 500)),
        (initializers.GlorotUniform(0.5), np.sqrt(6 / 500) / 2),
        (initializers.LecunUniform(), np.sqrt(3 / 300)),
        (initializers.PyTorchUniform(), 1 / np.sqrt(200)),
        (initializers.Uniform(-0.2, 0.2), 0.2),
    ],
)
def test_uniform_draws_fill_their_range(initializer, bound):
    array = draw(initializer, WIDE)
    assert np.abs(array).max() <= bound and np.abs(array).max() > 0.999 * bound
    np.testing.assert_allclose(array.std(), bound / np.sqrt(3), rtol=0.01)
    assert abs(array.mean()) < 0.01 * bound


@pytest.mark.parametrize(
    ("initializer", "deviation"),
    [
        (initializers.Normal(0.3), 0.3),
        (initializers.LecunNormal(), 1 / np.sqrt(300)),
        (initializers.LecunNormal(2.0), 2 / np.sqrt(300)),
    ],
)
def test_normal_draws_have_their_deviation(initializer, deviation):
    array = draw(initializer, WIDE)
    np.testing.assert_allclose(array.std(), deviation, rtol=0.01)
    assert np.abs(array).max() > 2 * deviation


@pytest.mark.parametrize("shape", thorough_but(((5, 3),), ((5, 5),), ((3, 5),)))
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    array = draw(initializers.Orthogonal(2.0), shape) / 2
    product = array @ array.T if shape[0] <= shape[1] else array.T @ array
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-12)
    other = draw(initializers.Orthogonal(2.0), shape, key=jax.random.key(1)) / 2
    assert np.abs(array - other).max() > 0.1


def test_constants():
    np.testing.assert_array_equal(draw(initializers.Constant(0.5), (2, 3)), np.full((2, 3), 0.5))
    np.testing.assert_array_equal(draw(initializers.Identity(0.5), (3, 3)), 0.5 * np.eye(3))
    ramp = draw(initializers.Linspace(3.0, 6.0), (2, 4))
    np.testing.assert_allclose(ramp, [[3, 4, 5, 6]] * 2, atol=1e-15)


def test_forget_bias_is_added_to_the_row_of_its_gate():
    base = initializers.Uniform(-0.1, 0.1)
    array = draw(initializers.ForgetBias(1.5, gate=2, base=base), (4, 6))
    np.testing.assert_allclose(array - draw(base, (4, 6)), 1.5 * np.eye(4)[2][:, None] * np.ones(6))


def test_chrono_spreads_the_lags():
    """b_f = log U(1, T - 1) and b_i = -b_f: time constants up to T."""
    array = draw(initializers.Chrono(40, forget_gate=2, input_gate=0), (4, 5000))
    lags = np.exp(array[2])
    assert lags.min() >= 1 and lags.max() <= 39
    np.testing.assert_allclose([lags.mean(), lags.std()], [20, 38 / np.sqrt(12)], rtol=0.03)
    np.testing.assert_array_equal(array[0], -array[2])
    assert not array[1].any() and not array[3].any()
    alone = draw(initializers.Chrono(40, input_gate=None), (3, 50))
    assert alone[1].all() and not alone[0].any() and not alone[2].any()
    with pytest.raises(ValueError, match="max_time must be more than 2 steps, got 2"):
        initializers.Chrono(2)


def test_unit_ring_is_even_over_its_area():
    ring = initializers.UnitRing(0.5, 0.9, max_phase=0.4)
    radius, phase = draw(ring, (2, 5000))
    assert radius.min() >= 0.5 and radius.max() <= 0.9
    assert phase.min() > 0 and phase.max() <= 0.4
    area = (radius**2 - 0.25) / (0.81 - 0.25)
    for share in (area, phase / 0.4):
        np.testing.assert_allclose(
            np.quantile(share, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03
        )
    with pytest.raises(ValueError, match="min_radius and max_radius must lie between 0 and 1"):
        initializers.UnitRing(0.9, 0.5)


def test_log_uniform_has_an_even_logarithm():
    array = np.log10(draw(initializers.LogUniform(1e-3, 1e-1), (5000,)))
    assert array.min() >= -3 and array.max() <= -1
    np.testing.assert_allclose(np.quantile(array, [0.25, 0.5, 0.75]), [-2.5, -2, -1.5], atol=0.06)


def test_pytorch_uniform_is_the_range_of_torch():
    torch = pytest.importorskip("torch", reason="it comes with the extra: parity")
    theirs = np.concatenate([p.detach().numpy().ravel() for p in torch.nn.GRU(60, 50).parameters()])
    cell = rnn.GRU(
        50,
        kernel_init=initializers.PyTorchUniform(),
        recurrent_init=initializers.PyTorchUniform(),
        bias_init=initializers.PyTorchUniform(),
    )
    params = cell.init(KEY, 60, "float64")
    for leaf in params:
        assert 0.9 * np.abs(theirs).max() < np.abs(leaf).max() <= 1 / np.sqrt(50)
    assert np.abs(theirs).max() <= 1 / np.sqrt(50)


@pytest.mark.parametrize("name", ["glorot_uniform", "orthogonal"])
def test_functions_of_jax_are_taken_too(name):
    function = getattr(jax.nn.initializers, name)()
    params = rnn.LSTM(4, kernel_init=function).init(KEY, 3, "float64")
    assert params.input_kernel.shape == (3, 16) and params.input_kernel.any()
