"""Unusual user-defined cells, whose results must not depend on the schedule.

Each cell is one way in which the analysis of a step could go wrong.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn as rnn
from tests.support.cases import Case, Floats, Tokens

N, H = 3, 4  # features of inputs and of hidden states
DENSE = {"W": (N, H), "U": (H, H), "b": (H,)}


def user(
    name: str,
    step: Callable,
    shapes: Any = DENSE,
    state: Any = ((H,), "float64"),
    x: Any = None,
    input_rank: int = 1,
    tolerance: float = 0.0,
    tangents: bool = True,
) -> Case:
    """A case whose parameters and state are given by the shapes of their leaves."""

    def init(key, input_size, dtype):
        return {leaf: jnp.zeros(shape, dtype) for leaf, shape in shapes.items()}

    def init_state(params, batch_shape=()):
        # Not zero: several of these cells divide by a norm.
        return jax.tree.map(
            lambda leaf: jnp.full((*batch_shape, *leaf[0]), 0.25, leaf[1]),
            state,
            is_leaf=lambda node: isinstance(node, tuple) and isinstance(node[-1], str),
        )

    return Case(
        rnn.from_step(step, init_state=init_state, init=init, input_rank=input_rank),
        name=name,
        x=x or Floats((N,)),
        tolerance=tolerance,
        tangents=tangents,
    )


def dense(p, h, x):
    return x @ p["W"] + h @ p["U"] + p["b"]


def counter(p, state, x):
    count = state["count"] + 1
    h = jnp.tanh(dense(p, state["h"], x) / count[..., None].astype(x.dtype))
    return {"h": h, "count": count}, h


def embedding(p, h, token):
    h = jnp.tanh(p["E"][token] + h @ p["U"])
    return h, h


@jax.custom_jvp
def steep(x):
    return jnp.tanh(x)


@steep.defjvp
def _steep_jvp(primals, tangents):  # not the derivative of tanh: the rule must be used
    return steep(*primals), 3 * tangents[0] * jnp.cos(primals[0])


@jax.custom_vjp
def turned(x):
    return jnp.tanh(x)


turned.defvjp(lambda x: (turned(x), x), lambda x, g: (-2 * g * jnp.cos(x),))


@jax.custom_vjp
def product_with_rule(h, kernel):
    return h @ kernel


product_with_rule.defvjp(
    lambda h, kernel: (h @ kernel, (h, kernel)),
    lambda saved, g: (2 * (g @ saved[1].T), jnp.full_like(saved[1], 0.3) * g.sum()),
)


def activated_by(activation):
    def step(p, h, x):
        h = activation(dense(p, h, x))
        return h, h

    return step


def rule_around_a_product(p, h, x):
    h = jnp.tanh(x @ p["W"] + product_with_rule(h, p["U"]) + p["b"])
    return h, h


def nested_scan(p, h, x):
    h, inner = jax.lax.scan(lambda h, _: (jnp.tanh(dense(p, h, x)),) * 2, h, None, length=2)
    return h, inner.sum(axis=0)


def nested_cond(p, h, x):
    h = jax.lax.cond(
        x.sum() > 0, lambda h: jnp.tanh(dense(p, h, x)), lambda h: jnp.sin(h @ p["U"].T), h
    )
    return h, h


def loop_over_weights(p, h, x):
    h = x @ p["W"] + jax.lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ p["stack"][i]), h)
    return h, h


def both_sides(p, s, x):
    s = jnp.tanh(p["A"] @ s @ p["B"] + x[..., None])
    return s, s.sum(axis=-1)


def two_products(p, h, x):
    h = jnp.tanh(jnp.tanh(dense(p, h, x)) @ p["V"])
    return h, h


def concatenated(p, h, x):  # as papers write it: σ([x, h] W), tanh([r h, x] V)
    r = jax.nn.sigmoid(jnp.concatenate([x, h], axis=-1) @ p["W"])
    n = jnp.tanh(jnp.concatenate([r * h, x], axis=-1) @ p["V"] + p["b"])
    return h + r * (n - h), n


def concatenated_row_by_row(p, h, x):  # K [1, h, x, h²], where the kernel is the left operand
    def one(h, x):
        return jnp.tanh(p["K"] @ jnp.concatenate([jnp.ones(1), h, x, h * h]))

    h = jnp.vectorize(one, signature="(h),(x)->(h)")(h, x)
    return h, h


def coverage(p, state, x):  # additive attention; c u is an outer product
    h, c = state
    both = jnp.tanh(c[..., None] @ p["u"] + (h @ p["U"])[..., None, :])
    weights = jax.nn.softmax((both * p["v"]).sum(-1))
    h = jnp.tanh(x @ p["W"] + (weights * x).sum(-1, keepdims=True) * h)
    return (h, c + weights), weights


def einsum_without_sums(p, h, x):
    scaled = jnp.einsum("...h,h->...h", h, p["v"])
    spread = jnp.einsum("...h,k->...hk", jnp.sin(h), p["w"])
    h = jnp.tanh(x @ p["W"] + scaled + spread.sum(-1))
    return h, h


def products_add(p, h, x):
    h = jnp.tanh((h * x[..., :1]) @ p["U"] + jnp.sin(h) @ p["U"] + x @ p["W"])
    return h, h


def antisymmetric(p, h, x):
    h = h + 0.5 * jnp.tanh(x @ p["W"] + h @ (p["U"] - p["U"].T - 0.1 * jnp.eye(H)))
    return h, h


def tied(p, h, x):
    h = jnp.tanh(x @ p["K"] + h @ p["K"])
    return h, h @ p["K"].T


def convolution(p, h, x):
    batch = h.shape[:-2]
    moved = jax.lax.conv_general_dilated(
        h.reshape(-1, *h.shape[-2:]), p["K"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    h = jnp.tanh(moved.reshape(*batch, *h.shape[-2:]) + (x @ p["W"])[..., None, :])
    return h, h


def outer_product(p, s, x):
    k, v = jnp.tanh(x @ p["W"]), x @ p["V"]
    s = jax.nn.sigmoid(k)[..., None] * s + k[..., None] * v[..., None, :]
    return s, jnp.einsum("...k,...kv->...v", k, s)


def heads(p, h, x):
    h = jnp.tanh(
        jnp.einsum("...n,hni->...hi", x, p["W"]) + jnp.einsum("...hi,hij->...hj", h, p["U"])
    )
    return h, h


def heads_by_vmap(p, h, x):
    one = jax.vmap(lambda kernel, part: part @ kernel, in_axes=(0, -2), out_axes=-2)
    h = jnp.tanh(jnp.einsum("...n,hni->...hi", x, p["W"]) + one(p["U"], h))
    return h, h


def matrix_from_input(p, h, x):
    a = jnp.einsum("...n,nij->...ij", x, p["A"])
    h = jnp.tanh(jnp.einsum("...i,...ij->...j", h, a) + p["b"])
    return h, h


def chosen_weight(p, h, x):
    kernel = p["experts"][jnp.argmax(h, axis=-1)]
    h = jnp.tanh(jnp.einsum("...i,...ij->...j", h, kernel) + x @ p["W"])
    return h, h


CLOSED_OVER = 0.4 * jax.random.normal(jax.random.key(5), (H, H), "float64")


def closed_over(p, h, x):
    h = jnp.tanh(x @ p["W"] + h @ CLOSED_OVER)
    return h, h


def output_tree(p, h, x):
    h = jnp.tanh(dense(p, h, x))
    return h, {"h": h, "parts": (h[..., :2] @ p["U"][:2], jnp.argmax(h, axis=-1))}


def read_out(p, h, x):
    h = jnp.tanh(dense(p, h, x))
    return h, jax.nn.softmax(jnp.tanh(h @ p["V"] + p["c"]) @ p["V"].T)


def idle_parts(p, state, x):
    """A constant part of the state, an output independent of the state, and a constant output."""
    still, h = state
    h = h * p["b"] + still
    return (still, h), (x @ p["W"], h, jnp.ones_like(h))


def no_params(p, h, x):
    h = jnp.sin(h + x)
    return h, h


def no_output(p, h, x):
    return jnp.tanh(dense(p, h, x)), None


def mixed_state(p, state, x):
    wide = jnp.tanh(dense(p, state["wide"], x)) + state["narrow"].astype(x.dtype).sum(-1)[..., None]
    narrow = 0.5 * state["narrow"] + wide[..., :2].astype("float32")
    return {"wide": wide, "narrow": narrow}, wide


def rotation(p, z, x):
    z = jnp.exp(jax.lax.complex(-jnp.abs(p["b"]), p["theta"])) * z + (x @ p["W"]).astype(z.dtype)
    return z, z.real * p["b"] + z.imag


def norms(p, h, x):
    h = dense(p, h, x)
    h = h / jnp.linalg.norm(h, axis=-1, keepdims=True)
    return h, h


def broadcast_for_both(
    p, h, x
):  # the mean is read by a product before the loop, and within the loop
    mean = jnp.broadcast_to(x.mean(axis=-1, keepdims=True), h.shape)
    h = jnp.tanh(dense(p, h, x) + mean @ p["V"]) + mean * h
    return h, h


def stopped(p, h, x):
    h = jnp.tanh(x @ p["W"] + h @ jax.lax.stop_gradient(p["U"]) + jax.lax.stop_gradient(h) @ p["U"])
    return h, h


def checkpointed(p, h, x):
    h = jax.checkpoint(jax.jit(lambda h, kernel: jnp.tanh(h @ kernel + x @ p["W"])))(h, p["U"])
    return h, h


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Draws random numbers in the step, for the state and for the input."""

    stochastic = True
    output_size = H

    def init(self, key, input_size, dtype=None):
        return {leaf: jnp.zeros(shape, dtype) for leaf, shape in DENSE.items()}

    def init_state(self, params, batch_shape=()):
        return jnp.zeros((*batch_shape, H), params["b"].dtype)

    def step(self, params, state, x, *, key=None):
        if key is not None:
            keep = jax.random.bernoulli(key, 0.5, state.shape)
            state = jnp.where(keep, state, 0.0)
            x = x + jax.random.normal(jax.random.fold_in(key, 1), x.shape, x.dtype)
        h = jnp.tanh(dense(params, state, x))
        return h, h


@dataclasses.dataclass(frozen=True)
class Bound(Noisy):
    """Draws once per sequence, in ``bind``: half of the recurrent weights are dropped."""

    stochastic = False

    def bind(self, params, key, batch_shape):
        keep = jax.random.bernoulli(key, 0.5, (H, H))
        return params | {"U": jnp.where(keep, params["U"], 0.0)}


MATRIX = ((N, N), "float64")
HEADS = {"W": (2, N, 2), "U": (2, 2, 2)}
TWO_HEADS = ((2, 2), "float64")

USER_CELLS = (
    user("counter", counter, state={"h": ((H,), "float64"), "count": ((), "int32")}),
    user("embedding", embedding, {"E": (5, H), "U": (H, H)}, x=Tokens(5), input_rank=0),
    user("custom_jvp", activated_by(steep)),
    user("custom_vjp", activated_by(turned), tangents=False),
    user("rule_around_a_product", rule_around_a_product, tangents=False),
    user("nested_scan", nested_scan),
    user("nested_cond", nested_cond),
    user("loop_over_weights", loop_over_weights, {"W": (N, H), "stack": (2, H, H)}),
    user("both_sides", both_sides, {"A": (N, N), "B": (N, N)}, MATRIX),
    user("two_products", two_products, DENSE | {"V": (H, H)}),
    user("products_add", products_add),
    user("concatenated", concatenated, {"W": (N + H, H), "V": (H + N, H), "b": (H,)}),
    user("concatenated_row_by_row", concatenated_row_by_row, {"K": (H, 1 + N + 2 * H)}),
    user(
        "coverage",
        coverage,
        DENSE | {"u": (1, H), "v": (H,)},
        (((H,), "float64"), ((N,), "float64")),
    ),
    user("einsum_without_sums", einsum_without_sums, {"W": (N, H), "v": (H,), "w": (2,)}),
    user("antisymmetric", antisymmetric),
    user("tied", tied, {"K": (N, N)}, ((N,), "float64")),
    user("convolution", convolution, {"K": (3, 2, 2), "W": (N, 2)}, ((5, 2), "float64")),
    user("outer_product", outer_product, {"W": (N, N), "V": (N, N)}, MATRIX),
    user("heads", heads, HEADS, TWO_HEADS),
    user("heads_by_vmap", heads_by_vmap, HEADS, TWO_HEADS),
    user("matrix_from_input", matrix_from_input, {"A": (N, H, H), "b": (H,)}),
    user("chosen_weight", chosen_weight, {"W": (N, H), "experts": (H, H, H)}),
    user("closed_over", closed_over),
    user("output_tree", output_tree),
    user("read_out", read_out, DENSE | {"V": (H, 2), "c": (2,)}),
    user("idle_parts", idle_parts, state=(((H,), "float64"), ((H,), "float64"))),
    user("no_params", no_params, {}, ((N,), "float64")),
    user("no_output", no_output),
    user(
        "mixed_state",
        mixed_state,
        state={"wide": ((H,), "float64"), "narrow": ((2,), "float32")},
        tolerance=1e-5,
    ),
    user("rotation", rotation, DENSE | {"theta": (H,)}, ((H,), "complex128")),
    user("norms", norms),
    user("broadcast_for_both", broadcast_for_both, DENSE | {"V": (H, H)}),
    user("stopped", stopped),
    user("checkpointed", checkpointed),
    user(
        "inputs_of_two_kinds",
        lambda p, h, x: (jnp.tanh(dense(p, h, x[0]) * x[1]),) * 2,
        x=(Floats((N,)), Floats((1,), positive=True)),
    ),
    Case(Noisy()),
    Case(Bound()),
    Case(rnn.wrappers.EmitState(Noisy()), name="EmitState(Noisy)"),
    Case(rnn.wrappers.LearnedInitialState(rnn.Elman(4)), name="LearnedInitialState(Elman)"),
)
