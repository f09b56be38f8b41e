"""One step: gradient accumulation and precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.options import Options
from experiments.common.step import in_precision, init_state, make_step
from jaxrnn import LSTM
from jaxrnn.layers import Recurrent
from tests.support.toy import assert_same_state, batch, final_state, first_params, run


def plain_loss(params, carry, batch, key):
    """No state and no dropout, which differ between a large batch and its parts."""
    errors = batch["xs"] @ params["matrix"] + params["bias"] - batch["ys"]
    return jnp.mean(errors**2), carry


def whole_batch(step):
    return batch(step // 4)


def quarter_of_a_batch(step):
    return jax.tree.map(lambda leaf: leaf[:, step % 4 :: 4], whole_batch(step))


def trained(options, batch_of):
    state, step = init_state(first_params(), (), options), jax.jit(make_step(plain_loss, options))
    for number in range(options.steps):
        state, _ = step(state, batch_of(number), number)
    return state.params


@pytest.mark.parametrize("schedule", ["cosine", "constant", "one-cycle"])
def test_four_accumulated_quarters_equal_one_batch(schedule):
    common = dict(learning_rate=0.1, clip=0.5, weight_decay=0.1, schedule=schedule)
    once = trained(Options(steps=6, warmup=2, **common), lambda step: batch(step))
    parts = trained(Options(steps=24, warmup=8, accumulate=4, **common), quarter_of_a_batch)
    for name, value in once.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-6)
        assert not np.allclose(value, 0)


def test_an_accumulating_run_resumes_between_two_updates(tmp_path):
    run(tmp_path / "whole", accumulate=4)
    run(tmp_path / "parts", accumulate=4, checkpoint_every=2, minutes=1e-9)  # one step
    run(tmp_path / "parts", accumulate=4)
    assert_same_state(final_state(tmp_path / "parts"), final_state(tmp_path / "whole"))


LAYER = Recurrent(LSTM(7))


def lstm_loss(params, carry, batch, key):
    seen.append((params.input_kernel.dtype, batch["xs"].dtype, batch["rows"].dtype))
    carry, ys = LAYER.apply(params, carry, batch["xs"])
    return jnp.mean(ys.astype("float32") ** 2), carry


seen: list[tuple] = []


@pytest.fixture(scope="module")
def lstm():
    random = np.random.default_rng(5)
    params = LAYER.init(jax.random.key(1), 3)
    params = jax.tree.map(lambda p: p + 0.3 * random.normal(size=p.shape).astype("float32"), params)
    work = {
        "xs": random.normal(size=(9, 4, 3)).astype("float32"),
        "rows": np.arange(4, dtype="int32"),
    }
    return params, LAYER.init_state(params, (4,)), work


def test_bfloat16_reaches_the_layers_and_the_state_stays_float32(lstm):
    params, carry, work = lstm
    seen.clear()
    options = Options(steps=4, precision="bfloat16")
    before, step = init_state(params, carry, options), make_step(lstm_loss, options)
    after, (value, norm) = jax.jit(step)(before, work, 0)
    assert seen == [(jnp.bfloat16, jnp.bfloat16, np.int32)]
    assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(before)]
    assert value.dtype == norm.dtype == np.float32


def test_bfloat16_differs_from_float32_by_rounding_only(lstm):
    params, carry, work = lstm
    key = jax.random.key(0)
    (exact, last), exact_gradient, (low, low_last), gradient = (
        part
        for precision in ("float32", "bfloat16")
        for part in jax.jit(
            jax.value_and_grad(in_precision(lstm_loss, precision), has_aux=True),
        )(params, carry, work, key)
    )
    assert 0 < abs(low - exact) < 0.02 * exact
    for got, want in zip(jax.tree.leaves(low_last), jax.tree.leaves(last), strict=True):
        assert got.dtype == np.float32
        # A state rounded to bfloat16 on its way would have no bits below the eighth.
        assert not np.array_equal(got, got.astype(jnp.bfloat16).astype(np.float32))
        np.testing.assert_allclose(got, want, atol=0.03)
    for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact_gradient), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())


def test_a_loss_in_bfloat16_trains_as_far(tmp_path):
    lower = run(tmp_path / "bfloat16", precision="bfloat16")
    exact = run(tmp_path / "float32")
    assert lower.best["loss"] == pytest.approx(exact.best["loss"], rel=0.2)
    assert lower.best["loss"] != exact.best["loss"]


def test_a_python_scalar_is_cast_too():
    def loss(params, carry, batch, key):
        return params * batch, carry

    value, _ = in_precision(loss, "bfloat16")(jnp.float32(1.001), (), 1.001, None)
    assert value == np.float32(1.0) and value.dtype == np.float32
