"""Greedy decoding and sampling against loops in NumPy, distributions, and their errors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import decoding
from tests.support import decoding_models as models

V, H, END = 5, 4, 2
PARAMS = models.draw(V, H)


def likeliest(h, first, length, end):
    """Greedy decoding of a row."""
    tokens = []
    while len(tokens) < length and (not tokens or tokens[-1] != end):
        tokens.append(int(models.log_probs(PARAMS, h, (first, *tokens)).argmax()))
    return tokens


# Greedy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [None, END])
def test_greedy_takes_the_most_probable_token_of_each_row_until_it_ends(end):
    batch, length = (3, 4), 6
    state = models.states(batch, H)
    first = np.random.default_rng(2).integers(0, V, batch)
    decoded = decoding.greedy(models.step, PARAMS, state, first, length=length, end=end)
    assert decoded.tokens.shape == (length, *batch)
    ended = 0
    for row in np.ndindex(batch):
        want = likeliest(state[0][row], first[row], length, end)
        ended += want[-1] == end
        fill = [end] * (length - len(want))
        assert list(decoded.tokens[(slice(None), *row)]) == want + fill
        assert decoded.lengths[row] == len(want) - (want[-1] == end)
        score = models.score(PARAMS, state[0][row], first[row], want)
        np.testing.assert_allclose(decoded.scores[row], score, rtol=1e-9)
    assert end is None or 0 < ended < 12, "the test should see rows of both kinds"


def test_decoding_stops_when_all_rows_have_ended():
    calls = []

    def step(state, token):
        jax.debug.callback(lambda: calls.append(0), ordered=True)
        return state + 1, jax.nn.one_hot(jnp.where(state < 3, 0, 1), 2)

    decoded = decoding.greedy(
        step, None, jnp.zeros(2, "int32"), jnp.zeros(2, int), length=99, end=1
    )
    jax.effects_barrier()
    assert len(calls) == 4
    assert list(decoded.lengths) == [3, 3]


def test_a_stack_decodes_as_one_cell():
    """Embedding and output layer as cells of a stack, against the same stack unrolled."""

    def stateless(function, size, rank, features):
        return rnn.from_step(
            lambda table, state, x: (state, function(table, x)),
            init_state=lambda table, batch: (),
            init=lambda key, n, dtype: jax.random.normal(key, (n, features), dtype),
            output_size=features,
            input_rank=rank,
        )

    embed = stateless(lambda table, x: table[x], V, 0, 3)
    readout = stateless(lambda table, x: 3 * x @ table, H, 1, V)
    stack = rnn.layers.Stack((embed, rnn.LSTM(4), rnn.GRU(4), readout))
    params = stack.init(jax.random.key(0), V)
    first = jnp.array([0, 1, 4])
    decoded = decoding.greedy(stack, params, None, first, length=7)
    assert len(np.unique(decoded.tokens)) > 2
    read = jnp.concatenate([first[None], decoded.tokens[:-1]])
    _, logits = rnn.unroll(stack, params, read)
    np.testing.assert_array_equal(logits.argmax(-1), decoded.tokens)
    want = jax.nn.log_softmax(logits).max(-1).sum(0)
    np.testing.assert_allclose(decoded.scores, want, rtol=1e-9)


def test_a_closed_over_step_and_an_explicit_one_agree():
    state, first = models.states((2,), H), jnp.array([1, 3])
    closed = decoding.greedy(
        lambda state, token: models.step(PARAMS, state, token), None, state, first, length=5
    )
    explicit = decoding.greedy(models.step, PARAMS, state, first, length=5)
    np.testing.assert_array_equal(closed.tokens, explicit.tokens)


def test_bfloat16_logits_are_scored_in_float32():
    table = jnp.asarray(PARAMS[3] @ PARAMS[3].T, jnp.bfloat16)

    def step(table, state, token):
        return state, table[token]

    size = len(table)
    decoded = decoding.greedy(step, table, (), jnp.arange(size), length=3)
    assert decoded.scores.dtype == jnp.float32


# Sampling -----------------------------------------------------------------------------------------


def kept(probabilities, top_k, top_p):
    """The truncated distribution, by sorting in NumPy."""
    order = np.argsort(-probabilities, kind="stable")
    left = np.zeros_like(probabilities)
    chosen = order[:top_k]
    total = probabilities[chosen].sum()
    for n, token in enumerate(chosen, 1):
        left[token] = probabilities[token]
        if top_p is not None and probabilities[chosen[:n]].sum() >= top_p * total:
            break
    return left / left.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.6, None, None), (1.7, 3, None), (0.6, None, 0.7), (1.7, 4, 0.8)]
    + [
        pytest.param(*case, marks=pytest.mark.thorough)
        for case in ((1.7, None, None), (0.6, 3, None), (1.7, None, 0.7), (0.6, 4, 0.8))
    ],
)
def test_samples_follow_their_distribution(temperature, top_k, top_p):
    rows = 20_000
    h = np.random.default_rng(6).normal(size=H) * 0.5
    params = (*PARAMS[:3], PARAMS[3] * 0.4, PARAMS[4] * 0.4)
    state = np.broadcast_to(h, (rows, H)), np.zeros(rows, np.int32)
    drawn = decoding.sample(
        models.step,
        params,
        state,
        np.full(rows, 3),
        jax.random.key(7),
        length=2,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    pairs = np.zeros((V, V))
    np.add.at(pairs, tuple(np.asarray(drawn.tokens)), 1)
    expected = np.zeros((V, V))
    for token in range(V):
        for prefix, where in (((3,), "first"), ((3, token), "second")):
            tempered = np.exp(models.log_probs(params, h, prefix) / temperature)
            left = kept(tempered / tempered.sum(), top_k, top_p)
            if where == "first":
                share = left[token]
            else:
                expected[token] = rows * share * left
    assert (pairs[expected == 0] == 0).all()
    seen = expected > 0
    chi2 = ((pairs - expected)[seen] ** 2 / expected[seen]).sum()
    degrees = seen.sum() - 1
    assert chi2 < degrees + 5 * np.sqrt(2 * degrees)
    for row in range(5):
        score = models.score(params, h, 3, drawn.tokens[:, row])
        np.testing.assert_allclose(drawn.scores[row], score, rtol=1e-9)


def test_temperature_zero_top_k_1_and_a_tiny_top_p_are_greedy():
    state, first = models.states((9,), H), np.arange(9) % V
    want = decoding.greedy(models.step, PARAMS, state, first, length=6, end=END)
    for options in (
        {"temperature": 0},
        {"top_k": 1},
        {"top_p": 1e-9},
        {"temperature": 0.0, "top_p": 0.5},
    ):
        got = decoding.sample(
            models.step, PARAMS, state, first, jax.random.key(1), length=6, end=END, **options
        )
        np.testing.assert_array_equal(got.tokens, want.tokens, err_msg=str(options))
        np.testing.assert_allclose(got.scores, want.scores, rtol=1e-12)


def test_each_row_may_have_its_own_temperature():
    first = np.full((2, 500), 3)
    h = np.broadcast_to(np.float64(0.1), (2, 500, H)), np.zeros((2, 500), np.int32)
    temperature = np.stack([np.zeros(500), np.full(500, 3.0)])
    drawn = decoding.sample(
        models.step, PARAMS, h, first, jax.random.key(1), length=1, temperature=temperature
    )
    cold, hot = np.asarray(drawn.tokens[0])
    assert len(set(cold)) == 1 and len(set(hot)) == V


def test_a_sampled_end_token_ends_the_row():
    state, first = models.states((200,), H), np.zeros(200, int)
    drawn = decoding.sample(
        models.step, PARAMS, state, first, jax.random.key(1), length=4, end=END, temperature=2.0
    )
    tokens = np.asarray(drawn.tokens)
    for row in range(200):
        n = int(drawn.lengths[row])
        assert (tokens[:n, row] != END).all() and (tokens[n:, row] == END).all()
        score = models.score(PARAMS, state[0][row], 0, tokens[: n + 1, row])
        np.testing.assert_allclose(drawn.scores[row], score, rtol=1e-9)
    assert set(np.asarray(drawn.lengths)) == {0, 1, 2, 3, 4}


def test_an_empty_batch():
    state, first = models.states((0,), H), np.zeros(0, int)
    for decoded in (
        decoding.greedy(models.step, PARAMS, state, first, length=3, end=END),
        decoding.sample(models.step, PARAMS, state, first, jax.random.key(0), length=3, top_p=0.5),
    ):
        assert decoded.tokens.shape == (3, 0) and decoded.scores.shape == (0,)


def test_decoding_within_jit_and_under_vmap():
    state, first = models.states((2, 3), H), np.arange(6).reshape(2, 3) % V

    def decode(state, first):
        return decoding.greedy(models.step, PARAMS, state, first, length=5, end=END)

    want = decode(state, first)
    mapped = jax.jit(jax.vmap(decode))(state, first)
    np.testing.assert_array_equal(jnp.swapaxes(mapped.tokens, 0, 1), want.tokens)
    np.testing.assert_array_equal(mapped.scores, want.scores)


# Errors -------------------------------------------------------------------------------------------

STATE = models.states((2,), H)
FIRST = np.zeros(2, int)


class Unhashable:
    __hash__ = None  # pyright: ignore

    def __call__(self, params, state, token):
        return models.step(params, state, token)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"step": 3}, TypeError, "step must be a function (params, state, token) -> (state, logi"),
        ({"step": rnn.LSTM}, TypeError, "or a cell that takes tokens, got <class"),
        ({"step": Unhashable()}, TypeError, "step must be hashable, but unhashable type"),
        ({"token": [0.0, 1.0]}, TypeError, "token must be an array of integers, got float64"),
        ({"token": [0, 1, 2]}, ValueError, "state[0] must have shape [*batch, ...] with the batch"),
        ({"state": None}, TypeError, "cannot unpack"),
        ({"length": 0}, ValueError, "length must be a positive int, got 0"),
        ({"length": 2.5}, TypeError, "length must be a positive int, got 2.5"),
        ({"end": -1}, ValueError, "end must be 0 or more, the index of a token, got -1"),
        ({"end": V}, ValueError, f"end must be one of the {V} tokens that step returns logits for"),
        ({"end": True}, TypeError, "end must be an int, the index of a token, got True"),
        ({"step": lambda p, s, t: s}, TypeError, "state must have the structure"),
        ({"step": lambda p, s, t: (s, s, t)}, TypeError, "must return a pair (state, logits)"),
        ({"step": lambda p, s, t: (s, t)}, TypeError, "must return floating-point logits"),
        (
            {"step": lambda p, s, t: (s, jnp.zeros((V, 2)))},
            ValueError,
            "logits of shape [*batch, vocabulary] with the batch shape (2,) of the tokens, got (5",
        ),
        (
            {"step": lambda p, s, t: ((s[0][:1], s[1]), jnp.zeros((2, V)))},
            ValueError,
            "state[0] must have shape (2, 4) (as step took it, and must return it), got (1, 4)",
        ),
    ],
)
def test_errors_of_all_decoders(change, error, message):
    arguments = {"step": models.step, "params": PARAMS, "state": STATE, "token": FIRST, "length": 2}
    with pytest.raises(error, match=re.escape(message)):
        decoding.greedy(**(arguments | change))
    with pytest.raises(error, match=re.escape(message)):
        decoding.beam_search(**(arguments | change), width=2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": 0}, TypeError, "key must be one JAX random key"),
        ({"temperature": -1.0}, ValueError, "temperature must be 0 or more, got -1.0"),
        ({"temperature": float("nan")}, ValueError, "temperature must be 0 or more, got nan"),
        ({"temperature": True}, TypeError, "temperature must be a number or an array of numbers"),
        ({"temperature": [1.0, 1.0, 1.0]}, ValueError, "array of the batch shape (2,) of token"),
        ({"top_k": 0}, ValueError, "top_k must be a positive int, got 0"),
        ({"top_p": 0.0}, ValueError, "top_p must be in (0, 1], got 0.0"),
        ({"top_p": 1.5}, ValueError, "top_p must be in (0, 1], got 1.5"),
    ],
)
def test_errors_of_sampling(change, error, message):
    arguments = {"key": jax.random.key(0), "length": 2} | change
    with pytest.raises(error, match=re.escape(message)):
        decoding.sample(models.step, PARAMS, STATE, FIRST, **arguments)
