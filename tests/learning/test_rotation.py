"""Complex kernels: the influence of the imaginary part is i times that of the real part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.learning import RTRL, SnAp
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, split, thorough_but, weighted_sum

H, N = 4, 3


def zero_state(params, batch):
    return jnp.zeros((*batch, H), "complex128")


def made(transition, init_state=zero_state):
    """A cell of a complex state, with the real and imaginary parts of a kernel packed."""
    shapes = {"kernel": (N, 2 * H), "gate": (H,)}

    def step(params, h, x):
        re, im = jnp.split(x @ params["kernel"], 2, axis=-1)
        h = transition(jax.lax.complex(jnp.cos(params["gate"]), params["gate"]) * 0.7, h, re, im)
        return h, jnp.concatenate([h.real, h.imag], axis=-1)

    return rnn.from_step(
        step,
        init_state=init_state,
        init=lambda key, size, dtype: {name: jnp.zeros(s, dtype) for name, s in shapes.items()},
    )


def zeros(h):
    return jnp.zeros_like(h.real)


def half_of_the_kernel(params, batch):
    """An initial state that the second half of the kernel does not reach."""
    return jnp.broadcast_to(params["kernel"][0, :H].astype("complex128"), (*batch, H))


def one_scale(a, h, re, im):
    scale = a.real
    return a * h + jax.lax.complex(scale * re, scale * im)


ROTATED = {
    "LRU": rnn.LRU(H),
    "S5": rnn.S5(H),
    "as the papers": made(lambda a, h, re, im: a * h + jax.lax.complex(re, im)),
    "one scale": made(one_scale),
    "a complex scale": made(lambda a, h, re, im: a * (h + a * jax.lax.complex(re, im))),
}
NOT_ROTATED = {
    "HGRN": rnn.HGRN(H),
    "conjugate state": made(lambda a, h, re, im: a * jnp.conj(h) + jax.lax.complex(re, im)),
    "real part of the state": made(
        lambda a, h, re, im: a * jax.lax.complex(h.real, zeros(h)) + jax.lax.complex(re, im)
    ),
    "two scales": made(lambda a, h, re, im: a * h + jax.lax.complex(a.real * re, a.imag * im)),
    "swapped": made(lambda a, h, re, im: a * h + jax.lax.complex(im, re)),
    "initial state": made(lambda a, h, re, im: a * h + jax.lax.complex(re, im), half_of_the_kernel),
    "nonlinear": made(lambda a, h, re, im: a * h + jax.lax.complex(jnp.tanh(re), jnp.tanh(im))),
}


def work(cell):
    case = Case(cell, name="complex")
    return random_params(case), random_state(case, (2,)), random_inputs(case, (5, 2))


def kernel_elements(cell, rule):
    """Stored influence of one row, and the parameters that reach the state."""
    params, state, xs = work(cell)
    row = jax.tree.map(lambda leaf: leaf[0], state)
    return rule.cost(cell, params, row, xs[:, 0]).elements


@pytest.mark.parametrize("rule", [RTRL(), SnAp(1)], ids=str)
@pytest.mark.parametrize("cells", [ROTATED, NOT_ROTATED], ids=["rotated", "not rotated"])
def test_half_of_the_influence_is_stored_where_it_tells_all(cells, rule):
    packed = 2 * N * H  # numbers of the kernel; each reaches both parts of a unit
    for name, cell in cells.items():
        if name in ("LRU", "S5", "HGRN"):
            continue
        others = kernel_elements(cell, rule) - (packed if cells is ROTATED else 2 * packed)
        assert others == 2 * H, name  # those of the gate


def check(cell, engine):
    params, state, xs = work(cell)
    floats, join = split((params, state))
    starts = np.array([[0, 1], [1, 0], [0, 0], [0, 1], [0, 0]], bool)

    def loss(floats, engine):
        params, state = join(floats)
        return weighted_sum(rnn.unroll(cell, params, xs, state, starts=starts, engine=engine))

    got, want = (
        jax.jit(jax.grad(loss), static_argnums=1)(floats, e)
        for e in (engine, rnn.engines.Hoisted())
    )
    assert_near(got, want, 1e-10)


QUICK = "S5", "initial state"
NAMES = sorted(ROTATED | NOT_ROTATED, key=lambda name: name not in QUICK)


@pytest.mark.parametrize("name", thorough_but(*NAMES, quick=2))
def test_rtrl_is_back_propagation(name):
    check((ROTATED | NOT_ROTATED)[name], RTRL())
