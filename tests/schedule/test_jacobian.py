"""The structure of a step's Jacobian, compared with the Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn._cell import step_with_key
from jaxrnn._schedule.dependence import dependence
from jaxrnn._schedule.flat_state import FlatState, batch_rank
from jaxrnn._schedule.jacobian import blocks, rows_are_independent, state_blocks
from jaxrnn._schedule.partition import schedule
from jaxrnn._schedule.trace import canonical_step
from jaxrnn.engines._transition import from_blocks, to_blocks
from tests.support.cases import CELLS, has_float_state, random_inputs, random_params, random_state
from tests.support.user_cells import USER_CELLS

KNOWN = {case: case.tangents for case in CELLS + USER_CELLS if has_float_state(case)}


def analysis(case, batch=(2,), quasi=False):
    params, state = random_params(case), random_state(case, batch)
    x = random_inputs(case, batch)

    def step(params, state, x):
        return step_with_key(case.cell, params, state, x, case.key)

    traced = canonical_step(step, params, state, x, separate=True)
    plan = schedule(traced)
    rank = batch_rank(case.cell, params, state)
    flat = FlatState.of(jax.tree.leaves(state), rank)
    found = state_blocks(plan, flat, rank, quasi=quasi)
    return found, rows_are_independent(plan, flat, rank), rank


def jacobian(case):
    """∂state'/∂state of one example, as a matrix."""
    params, state, x = random_params(case), random_state(case, ()), random_inputs(case, ())
    leaves, structure = jax.tree.flatten(state)
    flat = FlatState.of(leaves, 0)

    def step(h, params, x):
        state = structure.unflatten(flat.unpack(h))
        return flat.pack(jax.tree.leaves(step_with_key(case.cell, params, state, x, case.key)[0]))

    return jax.jit(jax.jacfwd(step))(flat.pack(leaves), params, x)


def case_of(cell):
    return next(case for case in CELLS if case.cell == cell)


@pytest.mark.parametrize(
    ("cell", "size", "count"),
    [
        (rnn.IndRNN(4), 1, 4),
        (rnn.BRC(4), 1, 4),
        (rnn.ParaGRU(4), 1, 4),
        (rnn.ParaLSTM(4), 2, 4),
        (rnn.UnICORNN(4), 2, 4),
        (rnn.LRU(4, output_size=3), 2, 4),  # a complex number is two
        (rnn.SLSTM(4, num_heads=2), 8, 2),  # four states of a head of two
        (rnn.Elman(4), 4, 1),
        (rnn.GRU(4), 4, 1),
        (rnn.LSTM(4), 8, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, rnn.Cell) else str(value),
)
def test_blocks_of_known_cells(cell, size, count):
    found, apart, rank = analysis(case_of(cell))
    assert (found.size, found.count, apart, rank) == (size, count, True, 1)


def test_blocks_of_a_unit_are_its_hidden_and_its_cell_state():
    np.testing.assert_array_equal(
        analysis(case_of(rnn.ParaLSTM(4)))[0].members, [[0, 1, 2, 3], [4, 5, 6, 7]]
    )
    quasi = analysis(case_of(rnn.LSTM(4)), quasi=True)[0]
    np.testing.assert_array_equal(quasi.members, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert analysis(case_of(rnn.GRU(4)), quasi=True)[0].size == 1


def check_against_derivative(case):
    found, _, _ = analysis(case)
    inside = np.zeros((found.state_size + 1,) * 2, bool)
    for column in found.members.T:
        inside[np.ix_(column, column)] = True
    moved = np.asarray(jacobian(case)) != 0
    assert not (moved & ~inside[:-1, :-1]).any()


@pytest.mark.parametrize("case", [case for case in KNOWN if KNOWN[case]][1::12], ids=str)
def test_nothing_depends_across_blocks(case):
    check_against_derivative(case)


@pytest.mark.thorough
@pytest.mark.parametrize("case", [case for case in KNOWN if KNOWN[case]], ids=str)
def test_nothing_depends_across_blocks_of_any_cell(case):
    check_against_derivative(case)


# Single operations --------------------------------------------------------------------------------

W = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)))
HEADS = W[:3, :4].reshape(3, 2, 2)

OPERATIONS = {
    "reshape": lambda x: x.reshape(2, 3)[:, :2].reshape(-1),
    "transpose": lambda x: x.reshape(2, 3).T[1],
    "slice": lambda x: x[1:6:2],
    "split": lambda x: jnp.split(x, 3)[2] * jnp.split(x, 3)[0],
    "concatenate": lambda x: jnp.concatenate([x[3:], jnp.ones(2), 2 * x[:1]]),
    "reverse": lambda x: x[::-1] + 1,
    "broadcast": lambda x: jnp.broadcast_to(x[2], (3,)) * x[:3],
    "stack": lambda x: jnp.stack([x[:3], x[3:]], axis=-1).sum(axis=-1),
    "stack with a constant": lambda x: jnp.stack([jnp.ones(2), x[:2], x[4:]], axis=0),
    "unstack": lambda x: jnp.unstack(x.reshape(2, 3), axis=1)[1:],
    "unstack of what is alike": lambda x: jnp.unstack(jnp.broadcast_to(x[:2], (3, 2)), axis=0),
    "tile": lambda x: jnp.tile(x[:4].reshape(2, 2), (3, 2)),
    "tile of a row": lambda x: jnp.tile(x[None, 2:5], (2, 1)),
    "sum": lambda x: x.reshape(2, 3).sum(axis=0) + x.reshape(2, 3).max(axis=0),
    "select": lambda x: jnp.where(x[:3] > 0, x[:3], 0.1 * x[:3]),
    "integers": lambda x: x[:3] + (x[3:] > 0).sum().astype(x.dtype),
    "batched product": lambda x: jnp.einsum("hi,hij->hj", x.reshape(3, 2), HEADS),
    "outer product": lambda x: x[:2, None] * x[None, 4:],
    "product": lambda x: (x[:3] @ W[:3, :2], x[3:]),
    "scan": lambda x: jax.lax.scan(lambda c, a: (c * a, c + a), x[0], x[1:3])[0] * x[4:],
    "scan of vectors": lambda x: jax.lax.scan(
        lambda c, _: (jnp.sin(c) * x[:2],) * 2, x[3:5], None, 2
    )[1],
    "cond": lambda x: jax.lax.cond(x[5] > 0, lambda a: a[:2], lambda a: 2 * a[1:3], x),
    "custom_jvp": lambda x: jax.nn.relu(x[4:6]),
    "checkpoint": lambda x: jax.checkpoint(lambda a: jnp.sin(a[:2]) * a[2:4])(x),
    "complex": lambda x: (jax.lax.complex(x[:2], x[2:4]) * 1j).real,
    "gather": lambda x: x[jnp.array([1, 3])],
}
COARSE = ("scan", "scan of vectors", "cond", "complex", "gather")  # the structure is a superset


@pytest.mark.parametrize("name", OPERATIONS)
def test_dependence_of_one_operation(name):
    x = jnp.asarray(np.random.default_rng(1).normal(size=6))

    def function(x):
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(OPERATIONS[name](x))])

    jaxpr = jax.make_jaxpr(function)(x).jaxpr
    labels = np.packbits(np.eye(6, dtype=bool), axis=-1)
    (found,) = dependence(jaxpr, [labels])
    found = np.unpackbits(found, axis=-1, count=6).astype(bool)
    jacobian = jax.jacfwd(function)(x)
    want = np.asarray(jacobian) != 0
    found = np.broadcast_to(found, want.shape)
    assert not (want & ~found).any()
    assert name in COARSE or (want == found).all()


def test_dependence_between_rows_is_found():
    def centred(params, h, x):
        h = jnp.tanh(h - h.mean(axis=0) + x)
        return h, h

    def turned(params, h, x):
        h = jnp.tanh(h[::-1] + x)
        return h, h

    def from_neighbours_input(params, h, x):
        h = jnp.tanh(h + x[::-1])
        return h, h

    for step, want in ((centred, False), (turned, False), (from_neighbours_input, True)):
        state, x = jnp.ones((5, 3)), jnp.ones((5, 3))
        traced = canonical_step(step, (), state, x, separate=True)
        plan = schedule(traced)
        assert rows_are_independent(plan, FlatState.of([state], 1), 1) == want


def test_blocks_of_unequal_sizes():
    dependent = np.eye(5, dtype=bool)
    dependent[0, 3] = dependent[3, 1] = True
    found = blocks(dependent)
    np.testing.assert_array_equal(found.members, [[0, 2, 4], [1, 5, 5], [3, 5, 5]])
    h = jnp.arange(20.0).reshape(2, 2, 5)
    there = to_blocks(h, found, 1)
    assert there.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(there[1, 1, 0], [11, 0, 0])
    np.testing.assert_array_equal(from_blocks(there, found, 1), h)


def test_flat_states_round_trip():
    rng = np.random.default_rng(0)
    leaves = [
        jnp.asarray(rng.normal(size=(2, 3))),
        jnp.asarray(rng.normal(size=(2, 2, 2)) + 1j * rng.normal(size=(2, 2, 2))),
        jnp.asarray(rng.normal(size=2), jnp.float32),
    ]
    flat = FlatState.of(leaves, 1)
    vector = flat.pack(leaves)
    assert vector.shape == (2, flat.size) == (2, 12) and vector.dtype == jnp.float64
    for got, want in zip(flat.unpack(vector), leaves, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
