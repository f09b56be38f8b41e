"""RTRL has the gradients of back-propagation, through `unroll` and through `Online`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.learning import RFLO, RTRL, TBPTT, UORO, EProp, Online, SnAp
from tests.support.cases import CELLS, WRAPPERS, Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, split, thorough_but, weighted_sum
from tests.support.user_cells import USER_CELLS

TIME, BATCH = 5, 2
MASK = np.array([[1, 1], [0, 1], [1, 0], [1, 1], [0, 1]], bool)
STARTS = np.array([[0, 1], [1, 0], [0, 0], [0, 1], [0, 0]], bool)
WAYS = {
    "plain": {},
    "mask and starts": {"mask": MASK, "starts": STARTS},
    "reverse": {"mask": MASK, "starts": STARTS, "reverse": True},
}
STACKS = (
    Case(rnn.layers.Stack((rnn.GRU(3), rnn.LSTM(2))), name="Stack(GRU, LSTM)"),
    Case(rnn.layers.Stack((rnn.LRU(3), rnn.MinGRU(2))), name="Stack(LRU, MinGRU)"),
)
ALL = CELLS + WRAPPERS + USER_CELLS + STACKS
# The default tier: dense, diagonal and complex, with a counter, with a learned initial state, with
# draws for the whole batch, and of two layers.
REPRESENTATIVE = {
    "GRU": "reverse",
    "LRU": "mask and starts",
    "counter": "mask and starts",
    "LearnedInitialState(Elman)": "mask and starts",
    "Noisy": "mask and starts",
    "Stack(LRU, MinGRU)": "reverse",
}


def case_of(name):
    return next(case for case in ALL if str(case) == name)


@functools.cache
def work(case, batch=(BATCH,)):
    return random_params(case), random_state(case, batch), random_inputs(case, (TIME, *batch))


def gradients(case, engine, options):
    """Outputs, and the gradients of the parameters and of the initial state."""
    params, state, xs = work(case)
    if str(case).startswith("LearnedInitialState"):
        state = None
    floats, join = split((params, state))

    @functools.partial(jax.grad, has_aux=True)
    def differentiated(floats, xs):
        params, state = join(floats)
        out = rnn.unroll(case.cell, params, xs, state, key=case.key, engine=engine, **options)
        return weighted_sum(out), out

    return jax.jit(differentiated)(floats, xs)


@pytest.mark.parametrize(("name", "way"), REPRESENTATIVE.items())
def test_rtrl_is_back_propagation(name, way):
    case = case_of(name)
    got, want = (gradients(case, e, WAYS[way]) for e in (RTRL(), rnn.engines.Hoisted()))
    assert_near(got, want, max(1e-10, case.tolerance))


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_rtrl_is_back_propagation_for_every_cell(case, way):
    got, want = (gradients(case, e, WAYS[way]) for e in (RTRL(), rnn.engines.Hoisted()))
    assert_near(got, want, max(1e-10, case.tolerance))


@pytest.mark.parametrize("batch", thorough_but(((),), ((2, 1),)))
def test_any_number_of_batch_axes(batch):
    case = case_of("GRU")
    params, state, xs = work(case, batch)

    def loss(params, engine):
        return weighted_sum(rnn.unroll(case.cell, params, xs, state, engine=engine))

    got, want = (
        jax.jit(jax.grad(functools.partial(loss, engine=engine)))(params)
        for engine in (RTRL(), rnn.engines.Hoisted())
    )
    assert_near(got, want, 1e-10)


def centered(p, h, x):
    """Its rows depend on each other, in the step and by the predicate."""
    h = jnp.tanh(x @ p["W"] + h @ p["U"] + p["b"])
    h = jax.lax.cond(x[0].sum() > x[1].sum(), lambda h: 2 * h, lambda h: h, h)
    return h - h.mean(axis=0, keepdims=True), h


def test_rows_that_are_not_independent():
    shapes = {"W": (3, 4), "U": (4, 4), "b": (4,)}
    cell = rnn.from_step(
        centered,
        init_state=lambda params, batch: jnp.zeros((*batch, 4)),
        init=lambda key, size, dtype: {name: jnp.zeros(s, dtype) for name, s in shapes.items()},
    )
    case = Case(cell, name="centered")
    got, want = (gradients(case, e, {}) for e in (RTRL(), rnn.engines.Hoisted()))
    assert_near(got, want, 1e-10)


def test_inputs_get_the_gradient_of_the_same_step():
    case = case_of("GRU")
    params, state, xs = work(case)

    def loss(xs, engine):
        _, ys = rnn.unroll(case.cell, params, xs, state, engine=engine)
        return weighted_sum(ys)

    def one_by_one(xs):
        total, h, ys = 0.0, state, []
        for x in xs:
            h, y = case.cell.step(params, jax.lax.stop_gradient(h), x)
            ys.append(y)
        return weighted_sum(jnp.stack(ys)) + total

    got = jax.jit(jax.grad(functools.partial(loss, engine=RTRL())))(xs)
    assert_near(got, jax.jit(jax.grad(one_by_one))(xs), 1e-12)


def streamed(case, rule, key):
    """Outputs and the sum of all steps' gradients, by `Online`."""
    params, state, xs = work(case)
    learner = Online(case.cell, rule)

    @jax.jit
    def run(params, state, xs):
        carry = learner.init(params, state, key, x=jax.tree.map(lambda x: x[0], xs))

        def body(loop, x):
            carry, y = learner.step(params, loop[0], x)
            found = learner.gradient(params, carry, jax.grad(weighted_sum, allow_int=True)(y))
            return (carry, jax.tree.map(jnp.add, loop[1], found)), y

        zeros = jax.tree.map(jnp.zeros_like, params)
        (_, total), ys = jax.lax.scan(body, (carry, zeros), xs)
        return total, ys

    return run(params, state, xs)


def summed(case, rule, key):
    """The same by `unroll`: the losses of the steps have the same weights."""
    params, state, xs = work(case)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params, state, xs):
        _, ys = rnn.unroll(case.cell, params, xs, state, key=key, engine=rule)
        return sum(weighted_sum(jax.tree.map(lambda y: y[t], ys)) for t in range(TIME)), ys  # noqa: B023

    return run(params, state, xs)


RULES = (RTRL(), SnAp(1), UORO(), RFLO(), EProp(), TBPTT(3))
STREAMS = thorough_but(
    ("Jordan", RTRL()), ("LSTM", RTRL()), ("MinGRU", UORO()), ("GRU", TBPTT(3)), ("LSTM", SnAp(1))
)


def check_stream(case, rule):
    key = jax.random.key(3) if isinstance(rule, UORO) else case.key
    by_unroll = TBPTT(rule.window, stride=1) if isinstance(rule, TBPTT) else rule
    assert_near(streamed(case, rule, key), summed(case, by_unroll, key), 1e-10)


@pytest.mark.parametrize(("name", "rule"), STREAMS, ids=str)
def test_online_sums_to_unroll(name, rule):
    check_stream(case_of(name), rule)


@pytest.mark.thorough
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    "case", [case for case in ALL if case.tangents and not case.tolerance], ids=str
)
def test_online_sums_to_unroll_for_every_cell(case, rule):
    check_stream(case, rule)
