"""What the schedule hoists, however the step is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn

BATCH, N, H = 5, 3, 4


def gates(z, state):
    i, f, g, o = jnp.split(z, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def by_two_products(p, state, x):
    return gates(x @ p["K"][:N] + state[0] @ p["K"][N:] + p["b"], state)


def by_one_product(p, state, x):
    return gates(jnp.concatenate([x, state[0]], axis=-1) @ p["K"] + p["b"], state)


def state_first(p, state, x):
    kernel = jnp.concatenate([p["K"][N:], p["K"][:N]])
    return gates(jnp.concatenate([state[0], x], axis=-1) @ kernel + p["b"], state)


def within_jit(p, state, x):
    together = jax.jit(lambda x, h: jnp.concatenate([x, h], axis=-1))
    return gates(together(x, state[0]) @ p["K"] + p["b"], state)


def the_kernel_first(p, state, x):
    one = lambda x, h: p["K"].T @ jnp.concatenate([x, h])  # noqa: E731
    return gates(jax.vmap(one)(x, state[0]) + p["b"], state)


def make(step, dtype=np.float64):
    """The cell, random parameters and random inputs of seven steps."""
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)  # noqa: E731
    params = {"K": draw(N + H, 4 * H), "b": draw(4 * H)}
    zeros = lambda params, batch: (jnp.zeros((*batch, H), params["b"].dtype),) * 2  # noqa: E731
    return rnn.from_step(step, init_state=zeros), params, draw(7, BATCH, N)


WRITTEN = [by_one_product, state_first, within_jit]


@pytest.mark.parametrize("step", WRITTEN)
def test_a_product_of_concatenated_operands_is_split(step):
    page, wanted = rnn.explain(*make(step)), rnn.explain(*make(by_two_products))
    assert page.products == wanted.products == (f"[{BATCH}, {H}] @ [{H}, {4 * H}]",)
    for name in ("loop", "operations", "hoisted_operations", "stacked_bytes", "kept_bytes"):
        assert getattr(page, name) == getattr(wanted, name), name


def test_the_kernel_may_be_the_left_operand():
    page = rnn.explain(*make(the_kernel_first))
    assert page.products == (f"[{4 * H}, {H}] @ [{BATCH}, {H}]",)
    assert page.inputs["dot_general"] == 1 and "concatenate" not in page.loop


@pytest.mark.parametrize("step", [*WRITTEN, the_kernel_first])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (jnp.bfloat16, 0.03)])
def test_split_products_agree_with_sequential(step, dtype, tolerance):
    def results(engine, step=step):
        cell, params, xs = make(step, dtype)

        def loss(params, xs):
            _, ys = rnn.unroll(cell, params, xs, engine=engine)
            return jnp.sin(ys.astype(jnp.float64)).sum(), ys

        gradients, ys = jax.grad(loss, (0, 1), has_aux=True)(params, xs)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (gradients, ys))

    wanted = results(rnn.engines.Sequential())
    for leaf, want in zip(
        jax.tree.leaves(results(rnn.engines.Hoisted())), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(leaf, want, atol=tolerance * np.abs(want).max())


def test_products_are_not_split_without_a_gain():
    def of_states(p, state, x):
        z = jnp.concatenate([state[1], state[0][..., :N]], axis=-1) @ p["K"]
        return gates(z + p["b"] + x.sum(-1, keepdims=True), state)

    def with_a_fast_kernel(p, state, x):
        kernel = p["K"] * jnp.tanh(state[1].sum())
        return gates(jnp.concatenate([x, state[0]], axis=-1) @ kernel, state)

    for step in (of_states, with_a_fast_kernel):
        page = rnn.explain(*make(step))
        assert page.loop["dot_general"] == page.loop["concatenate"] == 1
        assert "dot_general" not in page.inputs


def test_an_outer_product_counts_as_pointwise():
    """Its result is not kept, because it is larger than its operands."""

    def step(p, state, x):
        h, seen = state
        both = seen[..., None] @ p["u"] + (x @ p["W"] + h @ p["U"])[..., None, :]
        h = jnp.tanh(both).sum(-2)
        return (h, seen + h[..., :1]), h

    def zeros(params, batch):
        return jnp.zeros((*batch, H)), jnp.zeros((*batch, 100))

    cell = rnn.from_step(step, init_state=zeros)
    params = {"u": jnp.ones((1, H)), "W": jnp.ones((N, H)), "U": jnp.ones((H, H))}
    page = rnn.explain(cell, params, jnp.ones((7, BATCH, N)))
    assert page.products == (f"[{BATCH}, {H}] @ [{H}, {H}]",)
    state, sums = BATCH * (H + 100), BATCH * H
    assert page.kept_bytes == 8 * (state + sums)


def test_in_16_bits_the_gradient_of_an_outer_product_is_summed_once():
    """Accumulated at every step, a sum stops growing where a term is half its last place."""

    def step(p, state, x):
        h = jnp.tanh(state[..., None] @ p["u"] + x[..., None])
        return h.mean((-2, -1))[..., None], h

    cell = rnn.from_step(step, init_state=lambda p, batch: jnp.ones((*batch, 1), p["u"].dtype))
    params, xs = {"u": jnp.full((1, 4), 0.5)}, jnp.ones((2000, 2, 1))

    def gradient(dtype):
        low = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, xs))
        loss = lambda params: rnn.unroll(cell, params, low[1])[1].astype("float32").sum()  # noqa: E731
        return np.asarray(jax.grad(loss)(low[0])["u"], np.float64)

    np.testing.assert_allclose(gradient("bfloat16"), gradient("float64"), rtol=0.05)
