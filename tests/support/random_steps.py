"""Random steps, composed of operations that a schedule treats differently.

A step is a list of operations on its previous results: vectors and matrices with or without batch
axes, dependent on the state or not, scalars for each row, and square kernels that depend on
parameters only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxrnn as rnn
from tests.support.cases import Case, Floats

N = 4
PARAMS = {"kernels": (3, N, N), "biases": (2, N), "gain": (1,)}
STATE = {"h": (N,), "M": (N, N)}


@jax.custom_jvp
def ruled(x):
    return jnp.sin(x)


@ruled.defjvp
def _ruled_jvp(primals, tangents):  # not the derivative of sin: the rule must be used
    return jnp.sin(primals[0]), 2.0 * jnp.cos(primals[0]) * tangents[0]


def normed(x):
    return x / jnp.sqrt(1 + (x * x).sum(axis=-1, keepdims=True))


def together(u, w):
    return jnp.concatenate(jnp.broadcast_arrays(u, w), axis=-1)


def gated(z):
    value, gate = jnp.split(z, 2, axis=-1)
    return value * jax.nn.sigmoid(gate)


def twice(k):
    return jnp.concatenate([k, k.T], axis=1)


def by_heads(u, k):
    heads = jnp.einsum("...hi,hio->...ho", u.reshape(*u.shape[:-1], 2, 2), k.reshape(2, 2, 4))
    return heads.reshape(*u.shape[:-1], 2 * N)[..., ::2]


def convolved(u, k):
    """A convolution along the features, with a kernel of width three and two channels."""
    dimensions = ("NWC", "WIO", "NWC")
    rows = jnp.stack([u, -2 * u], axis=-1).reshape(-1, N, 2)
    kernel = k[:3].reshape(3, 2, 2)
    out = lax.conv_general_dilated(rows, kernel, (1,), "SAME", dimension_numbers=dimensions)
    return out.sum(axis=-1).reshape(u.shape)


def walked(u, k, other):
    return lax.scan(lambda h, kernel: (jnp.tanh(h @ kernel), None), u, jnp.stack([k, other]))[0]


def chosen(u, k):
    return lax.cond(u.sum() > 0.1, lambda u: u @ k, jnp.sin, u)


# v: a vector, s: one number, m: a matrix, with or without batch axes; k: a kernel, without.
OPERATIONS: tuple[tuple[str, str, Callable], ...] = (
    ("vk", "v", lambda u, k: u @ k),
    ("vk", "v", lambda u, k: jnp.einsum("...i,oi->...o", u, k)),
    ("vk", "v", lambda u, k: jnp.einsum("oi,...i->...o", k, u)),
    ("vk", "v", lambda u, k: (u[..., :, None] * k).sum(axis=-2)),
    ("vk", "v", lambda u, k: gated(u @ twice(k))),
    ("vvk", "v", lambda u, w, k: together(u, w) @ jnp.concatenate([k, -k.T])),
    ("vvkk", "v", lambda u, w, k, other: gated(w @ twice(k) + u @ twice(other))),
    ("vvk", "v", lambda u, w, k: u + w @ k),
    ("vk", "v", by_heads),
    ("vk", "v", convolved),
    ("vkk", "v", walked),
    ("vk", "v", chosen),
    ("vk", "v", lambda u, k: jnp.where(u > 0.1, u @ k, 0.1 * u)),
    ("vk", "v", lambda u, k: jax.checkpoint(lambda u: jnp.tanh(u @ k))(u)),
    ("vk", "v", lambda u, k: jax.jit(lambda u: jnp.tanh(u @ k) - u)(u)),
    ("vv", "v", lambda u, w: u + w),
    ("vv", "v", lambda u, w: jnp.tanh(u) * w),
    ("vv", "v", lambda u, w: u / (1 + w * w)),
    ("vvv", "v", lambda u, w, z: u + jax.nn.sigmoid(z) * (w - u)),
    ("v", "v", jnp.tanh),
    ("v", "v", jax.nn.silu),
    ("v", "v", jax.nn.softplus),
    ("v", "v", jax.nn.softmax),
    ("v", "v", normed),
    ("v", "v", ruled),
    ("v", "v", lax.stop_gradient),
    ("v", "v", lambda u: jnp.cumsum(u, axis=-1)),
    ("v", "v", lambda u: jnp.concatenate([u[..., 2:], jnp.sin(u[..., :2])], axis=-1)),
    ("v", "v", lambda u: u[..., jnp.array([2, 0, 0, 1])]),
    ("v", "s", lambda u: u.mean(axis=-1, keepdims=True)),
    ("vv", "s", lambda u, w: (u * w).sum(axis=-1, keepdims=True)),
    ("s", "v", lambda s: jnp.broadcast_to(s, (*s.shape[:-1], N))),
    ("vs", "v", lambda u, s: u * jnp.tanh(s)),
    ("vv", "m", lambda u, w: jnp.tanh(u)[..., :, None] * w[..., None, :]),
    ("mk", "m", lambda m, k: m @ k),
    ("mk", "m", lambda m, k: k @ m),
    ("mm", "m", lambda m, other: jnp.tanh(m) @ other),
    ("ms", "m", lambda m, s: m * jnp.tanh(s)[..., None]),
    ("mv", "v", lambda m, u: jnp.einsum("...ij,...j->...i", m, u)),
    ("m", "v", lambda m: m.sum(axis=-1)),
    ("k", "k", lambda k: k - k.T),
    ("k", "k", lambda k: jnp.linalg.qr(k)[0]),
    ("kk", "k", lambda k, other: k @ other / jnp.linalg.norm(other)),
    ("kv", "m", lambda k, u: k * u[..., None, :]),
)


class Line(NamedTuple):
    """One operation, and the indices of its operands among the values of their kinds."""

    operation: int
    operands: tuple[int, ...]


def random_step(seed: int) -> Case:
    """The random step of a seed."""
    rng = np.random.default_rng(seed)
    counts = {"v": 4, "s": 1, "m": 1, "k": 3}

    def pick(kind: str) -> int:
        first = max(0, counts[kind] - 3) if rng.random() < 0.4 else 0
        return int(rng.integers(first, counts[kind]))

    lines = []
    for _ in range(rng.integers(6, 16)):
        number = int(rng.integers(len(OPERATIONS)))
        kinds, result, _ = OPERATIONS[number]
        lines.append(Line(number, tuple(pick(kind) for kind in kinds)))
        counts[result] += 1
    last = {kind: int(rng.integers(count // 2, count)) for kind, count in counts.items()}

    def step(params: Any, state: Any, x: jax.Array) -> Any:
        bias, other = params["biases"]
        have = {"v": [state["h"], x, bias, x * other], "s": [params["gain"]], "m": [state["M"]]}
        have["k"] = list(params["kernels"])
        for line in lines:
            kinds, result, function = OPERATIONS[line.operation]
            operands = [have[kind][n] for kind, n in zip(kinds, line.operands, strict=True)]
            have[result].append(function(*operands))
        ends = {kind: have[kind][number] for kind, number in last.items()}
        new = {
            "h": jnp.tanh(ends["v"] + 0.3 * state["h"]),
            "M": jnp.tanh(ends["m"] + 0.3 * state["M"]),
        }
        return new, (jnp.broadcast_to(ends["v"], x.shape), jnp.tanh(ends["s"]) * x)

    def init(key, input_size, dtype):
        return {name: jnp.full(shape, 0.2, dtype) for name, shape in PARAMS.items()}

    def init_state(params, batch_shape=()):
        return {
            name: jnp.full((*batch_shape, *shape), 0.1, params["gain"].dtype)
            for name, shape in STATE.items()
        }

    cell = rnn.from_step(step, init_state=init_state, init=init)
    return Case(cell, name=f"random_step({seed})", x=Floats((N,)))
