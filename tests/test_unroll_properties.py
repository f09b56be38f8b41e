"""The sequence contract of `unroll`, for random masks, starts and values, against a NumPy loop.

All examples of a test have the same shapes, so one compilation serves them.
"""

import functools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support import sequence_loop
from tests.support.helpers import assert_near, split, weighted_sum

TIME, BATCH, TOKENS, VECTOR, HIDDEN = 6, 3, 5, 2, 4
FLAGS = arrays.arrays(bool, (TIME, BATCH))
POISON = (np.nan, np.inf, -np.inf, 1e300)

LENGTHS = arrays.arrays("int32", BATCH, elements=st.integers(0, TIME))
SEEDS = st.integers(0, 2**20)

examples = hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
few = hypothesis.settings(examples, max_examples=15)


# The cells, each written twice: for a batch in jax.numpy and for one example in NumPy -------------


def mixed_step(params, state, x):
    """Inputs are a token and a vector, the state has three leaves, the output is a pair."""
    vector, token = x
    z = params["embedding"][token[..., 0]] + vector @ params["kernel"]
    h = jnp.tanh(z + state["hidden"] @ params["recurrent"])
    trace = 0.5 * state["trace"] + h[..., :, None] * vector[..., None, :]
    count = state["count"] + 1
    return {"hidden": h, "trace": trace, "count": count}, (h + trace.sum(axis=-1), count)


def mixed_init(params, batch_shape=()):
    hidden = jnp.broadcast_to(params["initial"], (*batch_shape, HIDDEN))
    trace = jnp.zeros((*batch_shape, HIDDEN, VECTOR))
    return {"hidden": hidden, "trace": trace, "count": jnp.zeros(batch_shape, "int32")}


def mixed_step_numpy(params, state, x):
    vector, (token,) = x
    h = np.tanh(
        params["embedding"][token]
        + params["kernel"].T.dot(vector)
        + params["recurrent"].T.dot(state["hidden"])
    )
    trace = state["trace"] / 2 + np.outer(h, vector)
    count = state["count"] + np.int32(1)
    return {"hidden": h, "trace": trace, "count": count}, (h + trace[:, 0] + trace[:, 1], count)


def mixed_init_numpy(params):
    trace = np.zeros((HIDDEN, VECTOR))
    return {"hidden": params["initial"], "trace": trace, "count": np.int32(0)}


def singular_step(params, state, x):
    """Inputs and states are normalized: at zero, values and derivatives are NaN."""
    vector, _ = x
    vector = vector / jnp.sqrt((vector * vector).sum(axis=-1, keepdims=True))
    state = state / jnp.sqrt((state * state).sum(axis=-1, keepdims=True))
    h = jnp.log(2 + jnp.tanh(vector @ params["kernel"] + state @ params["recurrent"]))
    return h, h


def singular_step_numpy(params, state, x):
    vector, _ = x
    vector, state = vector / np.sqrt(vector.dot(vector)), state / np.sqrt(state.dot(state))
    h = np.log(2 + np.tanh(vector.dot(params["kernel"]) + state.dot(params["recurrent"])))
    return h, h


CELLS = {
    "mixed": (
        rnn.from_step(mixed_step, init_state=mixed_init),
        sequence_loop.Oracle(mixed_step_numpy, mixed_init_numpy),
    ),
    "singular": (
        rnn.from_step(singular_step, init_state=lambda p, b: mixed_init(p, b)["hidden"]),
        sequence_loop.Oracle(singular_step_numpy, lambda p: p["initial"]),
    ),
}
MIXED, MIXED_ORACLE = CELLS["mixed"]


def draw(name, seed, time=TIME, batch=(BATCH,)):
    """Random parameters, inputs and state."""
    rng = np.random.default_rng(seed)
    params = {
        "embedding": rng.normal(size=(TOKENS, HIDDEN)),
        "kernel": rng.normal(size=(VECTOR, HIDDEN)),
        "recurrent": rng.normal(size=(HIDDEN, HIDDEN)),
        "initial": rng.normal(size=HIDDEN),
    }
    vectors = rng.normal(size=(time, *batch, VECTOR))
    xs = vectors, rng.integers(0, TOKENS, size=(time, *batch, 1)).astype("int32")
    state = {
        "hidden": rng.normal(size=(*batch, HIDDEN)),
        "trace": rng.normal(size=(*batch, HIDDEN, VECTOR)),
        "count": rng.integers(0, 9, size=batch).astype("int32"),
    }
    return params, xs, state if name == "mixed" else state["hidden"]


def poisoned(xs, mask, value):
    """Inputs whose padding is ``value``, with tokens out of range."""
    vectors, tokens = xs
    vectors = np.where(mask[..., None], vectors, value)
    return vectors, np.where(mask[..., None], tokens, np.int32(-(10**6)))


@functools.partial(jax.jit, static_argnums=0)
def run_both(name, params, xs, state, flags):
    """Forward and in reverse: ``(final, ys)`` and the gradients of a sum over both."""
    floats, join = split((params, xs, state))

    def objective(floats, reverse):
        params, xs, state = join(floats)
        out = rnn.unroll(CELLS[name][0], params, xs, state, reverse=reverse, **flags)
        return weighted_sum(out), out

    return [jax.grad(objective, has_aux=True)(floats, reverse) for reverse in (False, True)]


def check(name, seed, flags, mask, starts, poison):
    """Compares values with the loop, and gradients along a random direction with its derivative."""
    oracle = CELLS[name][1]
    params, clean, state = draw(name, seed)
    xs = poisoned(clean, mask, poison)
    floats, join = split((params, clean, state))
    rng = np.random.default_rng(seed + 1)
    directions = [rng.normal(size=leaf.shape) for leaf in floats]
    tilted = join([x + 1e-30j * d for x, d in zip(floats, directions, strict=True)])
    both = run_both(name, params, xs, state, flags)
    for reverse, (grads, out) in zip((False, True), both, strict=True):
        want = sequence_loop.run(oracle, params, clean, state, mask, starts, reverse)
        assert_near(out, want, 1e-12)
        tilted_out = sequence_loop.run(oracle, *tilted, mask, starts, reverse)
        slope = weighted_sum(jax.tree.map(np.imag, tilted_out)) / 1e-30
        along = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
        np.testing.assert_allclose(along, slope, rtol=1e-10, atol=1e-10)
        _, (vectors, _), _ = join(grads)
        assert (vectors[~mask] == 0).all(), "a gradient flows through a skipped step"


@examples
@hypothesis.given(FLAGS, FLAGS, SEEDS, st.sampled_from(POISON), st.sampled_from(sorted(CELLS)))
def test_masks_and_starts(mask, starts, seed, poison, name):
    check(name, seed, {"mask": mask, "starts": starts}, mask, starts, poison)


@examples
@hypothesis.given(LENGTHS, FLAGS, SEEDS, st.sampled_from(POISON))
def test_lengths_and_starts(lengths, starts, seed, poison):
    mask = np.arange(TIME)[:, None] < lengths
    check("mixed", seed, {"lengths": lengths, "starts": starts}, mask, starts, poison)


@few
@hypothesis.given(FLAGS, SEEDS)
def test_starts_alone(starts, seed):
    check("mixed", seed, {"starts": starts}, np.ones_like(starts), starts, 0.0)


@few
@hypothesis.given(FLAGS, SEEDS, st.sampled_from(POISON), st.sampled_from(sorted(CELLS)))
def test_masks_alone(mask, seed, poison, name):
    check(name, seed, {"mask": mask}, mask, np.zeros_like(mask), poison)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_nothing_valid_at_all(name):
    """All steps skipped: the initial state, zeros, and no gradient for anything else."""
    mask, starts = np.zeros((TIME, BATCH), bool), np.ones((TIME, BATCH), bool)
    for poison in POISON:
        check(name, 0, {"mask": mask, "starts": starts}, mask, starts, poison)


@few
@hypothesis.given(LENGTHS, SEEDS)
def test_length_zero_gives_the_initial_state(lengths, seed):
    """Given or not, bit for bit."""
    lengths = np.where([True, False, True], 0, lengths)
    params, xs, state = draw("mixed", seed)
    for given_state, initial in ((state, state), (None, mixed_init(params, (BATCH,)))):
        final, ys = run_lengths(params, xs, given_state, lengths)
        for leaf, first in zip(jax.tree.leaves(final), jax.tree.leaves(initial), strict=True):
            np.testing.assert_array_equal(leaf[::2], first[::2])
        assert not any(np.any(leaf[:, ::2]) for leaf in jax.tree.leaves(ys))


@jax.jit
def run_lengths(params, xs, state, lengths):
    return rnn.unroll(MIXED, params, xs, state, lengths=lengths)


@functools.partial(jax.jit, static_argnames="reverse")
def run_flags(params, xs, state, mask, starts, reverse=False):
    return rnn.unroll(MIXED, params, xs, state, mask=mask, starts=starts, reverse=reverse)


@few
@hypothesis.given(FLAGS, FLAGS, SEEDS, st.booleans())
def test_two_halves_are_the_whole(mask, starts, seed, reverse):
    """With the state carried over (in reverse, the later half first), no start at the boundary."""
    half = TIME // 2
    step, rows = np.arange(TIME)[:, None], range(BATCH)
    valid = [np.flatnonzero(mask[:, row]) for row in rows]
    if reverse:  # starts that take effect only in the other half
        seam = [v[v >= half].min(initial=TIME - 1) for v in valid]
        starts = starts & ~((step >= half) & (step <= seam))
    else:
        seam = [v[v < half].max(initial=-1) for v in valid]
        starts = starts & ~((step < half) & (step > seam))
    params, xs, state = draw("mixed", seed)
    sequence = xs, mask, starts
    early = jax.tree.map(lambda leaf: leaf[:half], sequence)
    late = jax.tree.map(lambda leaf: leaf[half:], sequence)

    def run(sequence, state):
        xs, mask, starts = sequence
        return run_flags(params, xs, state, mask, starts, reverse=reverse)

    final, ys = run(sequence, state)
    middle, first = run(late if reverse else early, state)
    end, second = run(early if reverse else late, middle)
    both = (second, first) if reverse else (first, second)
    assert_near(
        (end, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *both)), (final, ys), 1e-12
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_batch_axes(batch, reverse):
    """No, one and two batch axes, each row compared with the loop."""
    rng = np.random.default_rng(0)
    mask, starts = rng.integers(0, 2, size=(2, TIME, *batch)).astype(bool)
    params, xs, state = draw("mixed", 1, batch=batch)
    rows = int(np.prod(batch))

    def flat(tree, axis):
        return jax.tree.map(
            lambda x: x.reshape(*x.shape[:axis], rows, *x.shape[axis + len(batch) :]), tree
        )

    work = flat(xs, 1), flat(state, 0), flat(mask, 1), flat(starts, 1)
    want = sequence_loop.run(MIXED_ORACLE, params, *work, reverse)
    final, ys = run_flags(params, poisoned(xs, mask, np.nan), state, mask, starts, reverse=reverse)
    assert_near((flat(final, 0), flat(ys, 1)), want, 1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("time", "batch"), [(0, (3,)), (5, (0,)), (0, (0,)), (0, ()), (4, (2, 0))])
def test_empty_time_and_batch(time, batch, reverse):
    """The state comes back, the outputs are empty, and gradients are those of the identity."""
    params, xs, state = draw("mixed", 2, time, batch)
    flags = np.ones((time, *batch), bool)
    floats, join = split((params, xs, state))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradients(floats):
        params, xs, state = join(floats)
        out = rnn.unroll(MIXED, params, xs, state, mask=flags, starts=flags, reverse=reverse)
        return weighted_sum(out), out

    grads, (final, ys) = gradients(floats)
    assert_near(final, jax.tree.map(jnp.asarray, state), 0.0)
    assert_near(ys, (jnp.zeros((time, *batch, HIDDEN)), jnp.zeros((time, *batch), "int32")), 0.0)
    grad_params, _, grad_state = join(grads)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grad_params))
    identity, _ = split(jax.grad(lambda floats: weighted_sum(floats))(split(state)[0]))
    assert_near(split(grad_state)[0], identity, 1e-15)
