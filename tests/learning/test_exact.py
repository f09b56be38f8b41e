"""RTRL has the gradients of back-propagation, through `unroll` and through `Online`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.learning import RFLO, RTRL, TBPTT, UORO, EProp, Online, SnAp
from jaxrnn.wrappers import MaskedInput
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
COMPLEX = Case(
    rnn.from_step(
        lambda p, h, x: (p["a"] * jnp.conj(h) + x.astype(h.dtype) @ p["K"],) * 2,
        init_state=lambda params, batch: jnp.broadcast_to(params["first"], (*batch, 3)),
        init=lambda key, size, dtype: {
            name: jnp.zeros(shape, "complex128")
            for name, shape in {"a": (3,), "K": (size, 3), "first": (3,)}.items()
        },
    ),
    name="complex parameters",
    params=lambda rng, params: jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=(*leaf.shape, 2)) @ [0.5, 0.5j]), params
    ),
)
STACKS = (
    Case(rnn.layers.Stack((rnn.GRU(3), rnn.LSTM(2))), name="Stack(GRU, LSTM)"),
    Case(rnn.layers.Stack((rnn.LRU(3), rnn.MinGRU(2))), name="Stack(LRU, MinGRU)"),
)
ALL = (*CELLS, *WRAPPERS, *USER_CELLS, *STACKS, COMPLEX)
# The default tier: dense, diagonal and complex, with a counter, with a learned initial state, with
# draws for the whole batch, of two layers, and with complex parameters.
REPRESENTATIVE = {
    "GRU": "reverse",
    "LRU": "mask and starts",
    "counter": "mask and starts",
    "LearnedInitialState(Elman)": "mask and starts",
    "Noisy": "mask and starts",
    "Stack(LRU, MinGRU)": "reverse",
    "complex parameters": "mask and starts",
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


def one_by_one(case, params, state, xs, mask, starts, reverse):
    """`unroll` as a loop over the steps, whose states pass no gradient on."""
    ys, start = [None] * TIME, np.zeros(BATCH, bool)
    for t in range(TIME)[:: -1 if reverse else 1]:
        if not reverse:
            start = start | starts[t]
        h = jnp.where(start[:, None], case.cell.init_state(params, (BATCH,)).hidden, state.hidden)
        new, y = case.cell.step(params, type(state)(jax.lax.stop_gradient(h)), xs[t])
        # What is held keeps its gradient, which is that of the step that made it.
        state = type(state)(jnp.where(mask[t, :, None], new.hidden, state.hidden))
        ys[t] = jnp.where(mask[t, :, None], y, 0.0)
        start = start & ~mask[t]
        if reverse:
            start = start | starts[t]
    return state, jnp.stack(ys)


@pytest.mark.parametrize(
    ("masked", "reverse"),
    thorough_but((True, False), (False, True), (False, False), (True, True), quick=2),
)
def test_inputs_get_the_gradient_of_the_same_step(masked, reverse):
    case = case_of("GRU")
    params, state, xs = work(case)
    mask, starts = (MASK, STARTS) if masked else (np.ones_like(MASK), np.zeros_like(STARTS))

    def loss(xs, engine):
        flags = {"mask": MASK, "starts": STARTS} if masked else {}
        out = rnn.unroll(case.cell, params, xs, state, engine=engine, reverse=reverse, **flags)
        return weighted_sum(out)

    def by_hand(xs):
        return weighted_sum(one_by_one(case, params, state, xs, mask, starts, reverse))

    got = jax.jit(jax.grad(functools.partial(loss, engine=RTRL())))(xs)
    assert_near(got, jax.jit(jax.grad(by_hand))(xs), 1e-12)


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
    ("Jordan", RTRL()),
    ("MinGRU", UORO()),
    ("Noisy", TBPTT(3)),
    ("LSTM", SnAp(1)),
    ("LSTM", EProp()),
    ("LSTM", RTRL()),
    ("GRU", TBPTT(3)),
    quick=5,
)


def check_stream(case, rule):
    key = jax.random.key(3) if isinstance(rule, UORO) else case.key
    by_unroll = TBPTT(rule.window, stride=1) if isinstance(rule, TBPTT) else rule
    assert_near(streamed(case, rule, key), summed(case, by_unroll, key), 1e-10)


@pytest.mark.parametrize(("name", "rule"), STREAMS, ids=str)
def test_online_sums_to_unroll(name, rule):
    check_stream(case_of(name), rule)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_stream_with_episodes_sums_to_unroll(rule):
    """Masks and starts, and an initial state through which parameters have influence."""
    cell = rnn.wrappers.LearnedInitialState(rnn.Jordan(4, output_size=3, decay=0.5))
    case = Case(cell, name="LearnedInitialState(Jordan)")
    params, xs = random_params(case), random_inputs(case, (TIME,))
    mask, times = jnp.array([1, 1, 0, 1, 1], bool), jnp.arange(5.0)
    # Only RTRL treats what happens before the first step alike in both.
    starts = jnp.array([rule != RTRL(), 0, 0, 0, 1], bool)
    key = jax.random.key(3) if isinstance(rule, UORO) else None
    learner = Online(rnn.wrappers.Masked(cell), rule)

    @jax.jit
    def streamed(params):
        # A start has no effect at a skipped step.
        inputs = MaskedInput(xs, mask, starts | ~mask)
        carry = learner.init(params, None, key, x=jax.tree.map(lambda x: x[0], inputs))

        def body(loop, step):
            carry, _ = learner.step(params, loop[0], step[0])
            found = learner.gradient(params, carry, jnp.cos(jnp.arange(3.0) + step[1]))
            return (carry, jax.tree.map(jnp.add, loop[1], found)), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(body, (carry, zeros), (inputs, times))[0][1]

    @jax.jit
    @jax.grad
    def summed(params):
        engine = TBPTT(3, stride=1) if isinstance(rule, TBPTT) else rule
        _, ys = rnn.unroll(cell, params, xs, mask=mask, starts=starts, key=key, engine=engine)
        return (ys * jnp.cos(jnp.arange(3.0) + times[:, None])).sum()

    assert_near(streamed(params), summed(params), 1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    "case", [case for case in ALL if case.tangents and not case.tolerance], ids=str
)
def test_online_sums_to_unroll_for_every_cell(case, rule):
    check_stream(case, rule)


# Streams of unusual cells -------------------------------------------------------------------------


@jax.custom_vjp
def binarized(weights):
    return jnp.where(weights > 0, 1.0, -1.0)


binarized.defvjp(lambda w: (binarized(w), w), lambda w, g: (jnp.where(abs(w) < 1, g, 0.0),))


@dataclasses.dataclass(frozen=True)
class Bound:
    """A cell whose `bind` makes binary weights and a mask for each row of the batch."""

    stochastic = False
    output_size = 3

    def init(self, key, input_size, dtype=None):
        keys = jax.random.split(key)
        return {"W": jax.random.normal(keys[0], (input_size, 3)), "U": jnp.eye(3) / 2}

    def init_state(self, params, batch_shape=()):
        return jnp.zeros((*batch_shape, 3))

    def bind(self, params, key, batch_shape):
        mask = jnp.where(jax.random.bernoulli(key, 0.5, (*batch_shape, 3)), 2.0, 0.0)
        return {"W": params["W"], "U": binarized(params["U"]), "mask": mask}

    def step(self, params, h, x):
        h = jnp.tanh(x @ params["W"] + (h * params["mask"]) @ params["U"])
        return jax.lax.optimization_barrier((h, h))


@pytest.mark.parametrize("rule", [RTRL(), TBPTT(TIME, 1)], ids=str)
def test_weights_that_bind_makes_by_a_rule_of_its_own_are_learned(rule):
    cell, key = Bound(), jax.random.key(5)
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (TIME, BATCH, 2))

    def loss(params, engine):
        return weighted_sum(rnn.unroll(cell, params, xs, key=key, engine=engine)[1])

    want = jax.grad(loss)(params, rnn.engines.Hoisted())
    assert abs(want["U"]).max() > 0.1
    assert_near(jax.grad(loss)(params, rule), want, 1e-12)
    dys = jax.grad(weighted_sum)(rnn.unroll(cell, params, xs, key=key)[1])
    learner = Online(cell, rule)
    carry = learner.init(params, cell.init_state(params, (BATCH,)), key, x=xs[0])
    total = jax.tree.map(jnp.zeros_like, params)
    for x, dy in zip(xs, dys, strict=True):
        carry, _ = learner.step(params, carry, x)
        total = jax.tree.map(jnp.add, total, learner.gradient(params, carry, dy))
    assert_near(total, want, 1e-12)


@pytest.mark.parametrize("rule", [RTRL(), TBPTT(TIME, 1)], ids=str)
def test_a_stream_learns_its_initial_state_and_ignores_skipped_inputs(rule):
    cell = rnn.wrappers.LearnedInitialState(rnn.GRU(2))
    params = random_params(Case(cell, name="LearnedInitialState(GRU)"))
    xs = jax.random.normal(jax.random.key(1), (TIME, cell_inputs(params)))
    mask = np.array([0, 1, 1, 0, 1], bool)
    xs = jnp.where(mask[:, None], xs, jnp.nan)

    def loss(params):
        return rnn.unroll(cell, params, xs, mask=mask)[1].sum()

    learner = Online(rnn.wrappers.Masked(cell), rule)
    inputs = MaskedInput(xs, jnp.asarray(mask))
    carry = learner.init(params, x=jax.tree.map(lambda leaf: leaf[0], inputs))
    total = jax.tree.map(jnp.zeros_like, params)
    for time in range(TIME):
        carry, y = learner.step(params, carry, jax.tree.map(lambda leaf: leaf[time], inputs))  # noqa: B023
        found = learner.gradient(params, carry, jnp.ones_like(y))
        total = jax.tree.map(jnp.add, total, found)
    assert_near(total, jax.grad(loss)(params), 1e-12)


def cell_inputs(params):
    return params.cell.input_kernel.shape[0]


def test_streams_say_what_is_wrong():
    cell = rnn.from_step(lambda p, n, x: (n + 1, x @ p), init_state=lambda p, b: jnp.zeros(b, int))
    with pytest.raises(ValueError, match="no floating-point numbers"):
        Online(cell, RTRL()).init(jnp.eye(3), x=jnp.ones(3))
    gru = rnn.GRU(2)
    params = gru.init(jax.random.key(0), 3)
    with pytest.raises(TypeError, match="carry must be what init or step returned"):
        Online(gru, RTRL()).step(params, gru.init_state(params), jnp.ones(3))
    any_size = rnn.from_step(
        lambda p, h, x: (h * p + x.sum(-1, keepdims=True),) * 2,
        init_state=lambda p, b: jnp.zeros((*b, 4)),
        init=lambda key, size, dtype=None: jnp.ones(4),
    )
    with pytest.raises(ValueError, match="does not follow from the parameters"):
        Online(any_size, RTRL()).init(jnp.ones(4))
