"""What the rules cost, read off the programs: shapes of arrays, operations, memory of a stream."""

import jax
import jax.numpy as jnp
import pytest

import jaxrnn as rnn
from jaxrnn._schedule.trace import all_eqns
from jaxrnn.learning import RTRL, TBPTT, UORO, EProp, Online, SnAp
from tests.support.helpers import optimizing_jit, thorough_but

DIAGONAL = (rnn.LRU, rnn.MinGRU, rnn.IndRNN)


def prepared(cell, rule, size, batch=()):
    params = cell.init(jax.random.key(0), size, jnp.float32)
    x = jnp.ones((*batch, size), jnp.float32)
    learner = Online(cell, rule)
    key = jax.random.key(1) if isinstance(rule, UORO) else None
    carry = learner.init(params, cell.init_state(params, batch), key)

    def both(params, carry, x):
        carry, y = learner.step(params, carry, x)
        return carry, learner.gradient(params, carry, y)

    return learner, both, (params, carry, x)


def sizes(tree):
    return [leaf.size for leaf in jax.tree.leaves(tree)]


def largest(function, *arguments):
    """Elements of the largest array that a program makes."""
    program = jax.make_jaxpr(function)(*arguments)
    variables = (v for eqn in all_eqns(program.jaxpr.eqns) for v in eqn.outvars)
    return max(v.aval.size for v in variables if hasattr(v.aval, "size"))


@pytest.mark.parametrize("kind", DIAGONAL)
def test_rtrl_of_diagonal_cells_is_of_the_size_of_the_parameters(kind):
    _, both, work = prepared(kind(24), RTRL(), 24)
    params, carry, _ = work
    complex_state = kind is rnn.LRU
    assert sum(sizes(carry.memory)) <= sum(sizes(params))
    assert largest(both, *work) <= (1 + complex_state) * max(sizes(params))


@pytest.mark.parametrize(
    ("cell", "rule", "factor"),
    [
        (rnn.GRU(8), RTRL(), 8),
        (rnn.GRU(8), SnAp(1), 1),
        (rnn.GRU(8), SnAp(2), 8),
        (rnn.LSTM(8), SnAp(1), 2),
        (rnn.LSTM(8), EProp(), 2),
        (rnn.LSTM(8), RTRL(), 16),
        (rnn.ParaLSTM(8), RTRL(), 2),
        (rnn.CoRNN(8), RTRL(), 16),
        (rnn.UnICORNN(8), RTRL(), 2),
        (rnn.LMU(6, order=4, theta=20.0), RTRL(), 10),  # the delay system is not learned
    ],
    ids=str,
)
def test_the_influence_has_as_many_elements_as_a_parameter_reaches(cell, rule, factor):
    params = cell.init(jax.random.key(0), 3, jnp.float32)
    xs = jnp.zeros((1, 3), jnp.float32)
    cost = rule.cost(cell, params, cell.init_state(params, ()), xs)
    assert cost.elements == factor * sum(sizes(params))


def test_masks_that_bind_draws_have_no_influence():
    cell = rnn.wrappers.VariationalDropout(rnn.GRU(8), input_rate=0.3, recurrent_rate=0.3)
    params = cell.init(jax.random.key(0), 3, jnp.float32)
    learner = Online(cell, RTRL())
    carry = learner.init(params, cell.init_state(params, (2,)), jax.random.key(1))
    assert sum(sizes(carry.memory)) == 2 * 8 * sum(sizes(params))  # two rows of eight units


def test_a_block_diagonal_cell_has_influence_by_block():
    def influence(heads):
        cell = rnn.SLSTM(8, num_heads=heads)
        params = cell.init(jax.random.key(0), 3, jnp.float32)
        xs = jnp.zeros((1, 3), jnp.float32)
        cost = RTRL().cost(cell, params, cell.init_state(params, ()), xs)
        return cost.elements / sum(sizes(params))

    assert influence(1) == 2 * influence(2) == 4 * influence(4) == 8 * 4  # four states a unit


def test_layers_of_a_stack_reach_only_what_follows():
    cell = rnn.layers.Stack((rnn.MinGRU(4), rnn.MinGRU(6)))
    params = cell.init(jax.random.key(0), 3, jnp.float32)
    learner = Online(cell, RTRL())
    carry = learner.init(params, cell.init_state(params, ()), x=jnp.zeros(3, jnp.float32))
    first, second = (sum(sizes(own)) for own in params)
    assert sum(sizes(carry.memory)) == 7 * first + 1 * second  # its own unit, and six more


@pytest.mark.parametrize(
    ("rule", "factor"), [(RTRL(), 3), (SnAp(1), 3), (UORO(), 8), (TBPTT(4), 7)], ids=str
)
def test_memory_of_a_stream_is_flat_and_a_few_times_what_is_kept(rule, factor):
    _, both, (params, carry, x) = prepared(rnn.MinGRU(4), rule, 4)

    def bytes_of(steps):
        def run(params, carry, x):
            def body(t, loop):
                carry, total = loop
                carry, found = both(params, carry, jnp.sin(x * t.astype(x.dtype)))
                return carry, jax.tree.map(jnp.add, total, found)

            return jax.lax.fori_loop(0, steps, body, (carry, jax.tree.map(jnp.zeros_like, params)))

        analysis = jax.jit(run).lower(params, carry, x).compile().memory_analysis()
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes

    kept = sum(leaf.nbytes for leaf in jax.tree.leaves((params, carry)) if hasattr(leaf, "nbytes"))
    assert bytes_of(100) == bytes_of(100_000) <= factor * kept


@pytest.mark.parametrize(
    ("kind", "step", "gradient"),
    thorough_but((rnn.LRU, 2.25, 3.55), (rnn.MinGRU, 2.55, 3.05), (rnn.IndRNN, 2.55, 3.05)),
)
def test_rtrl_of_diagonal_cells_takes_less_than_three_forward_steps(kind, step, gradient):
    """Operations of `Online.step`, which has the cell's own step in it, relative to the latter.

    For each weight, of a real diagonal cell: two in the forward step, three in M' = J M + x g, and
    one in s̄ M, so that 2.5 and 3 are the least. LRU's output layer adds its own backward product.
    """
    cell = kind(256)
    learner, both, work = prepared(cell, RTRL(), 256)
    params, carry, x = work

    def compiled(function, *arguments):
        return optimizing_jit(function).lower(*arguments).compile()

    def operations(program):
        return program.cost_analysis()["flops"]

    own = operations(compiled(cell.step, params, carry.state, x))
    assert operations(compiled(learner.step, *work)) / own < step
    program = compiled(both, *work)
    assert operations(program) / own < gradient
    # The influence goes from operand to result, and nothing of its size is made in between.
    assert program.memory_analysis().temp_size_in_bytes < 0.1 * 4 * sum(sizes(params))
