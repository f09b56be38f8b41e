import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

GATE, CANDIDATE = slice(0, 4), slice(4, 8)


def test_minimal_gated_unit_follows_the_paper():
    def step(p, s, x):
        w, u, b = p.input_kernel, p.recurrent_kernel, p.bias
        f = sigmoid(x @ w[:, GATE] + s.hidden @ u[:, GATE] + b[GATE])
        n = np.tanh(x @ w[:, CANDIDATE] + (f * s.hidden) @ u[:, CANDIDATE] + b[CANDIDATE])
        h = (1 - f) * s.hidden + f * n
        return [h], h

    assert_follows(Case(rnn.MinimalGatedUnit(4)), step)


def test_minimal_gated_unit_is_a_gru_whose_reset_and_update_gates_are_opposite():
    case = Case(rnn.MinimalGatedUnit(4))
    params, xs = random_params(case), random_inputs(case, (5, 2))

    def three_gates(leaf):
        f, n = jnp.split(leaf, 2, axis=-1)
        return jnp.concatenate([f, -f, n], axis=-1)  # r = f, z = 1 - f

    gru = rnn.cells.ResetBeforeGRUParams(*map(three_gates, params))
    want = rnn.unroll(rnn.ResetBeforeGRU(4), gru, xs)
    assert_near(rnn.unroll(case.cell, params, xs), want, 1e-12)


def test_minimal_gated_unit_is_flax_but_for_its_candidate():
    linen = pytest.importorskip("flax.linen")
    case = Case(rnn.MinimalGatedUnit(4))
    params, xs = random_params(case), random_inputs(case, (5, 2))
    # Flax lets f keep, not write, and gates the product h U_n, not h.
    params = params._replace(recurrent_kernel=params.recurrent_kernel.at[:, CANDIDATE].set(0.0))
    (w_f, w_n), (u_f, u_n), (b_f, b_n) = (jnp.split(leaf, 2, axis=-1) for leaf in params)
    flax = {
        "if": {"kernel": -w_f, "bias": -b_f},
        "hf": {"kernel": -u_f},
        "in": {"kernel": w_n, "bias": b_n},
        "hn": {"kernel": u_n, "bias": jnp.zeros(4)},
    }
    cell = linen.MGUCell(4, param_dtype=jnp.float64)
    h = jnp.zeros((2, 4))
    for x, got in zip(xs, rnn.unroll(case.cell, params, xs)[1], strict=True):
        h, want = cell.apply({"params": flax}, h, x)
        assert_near(got, want, 1e-12)


def test_update_gate_rnn_follows_the_paper():
    def step(p, s, x):
        w, u, b = p.input_kernel, p.recurrent_kernel, p.bias
        g = sigmoid(s.hidden @ u[:, GATE] + x @ w[:, GATE] + b[GATE])
        c = np.tanh(s.hidden @ u[:, CANDIDATE] + x @ w[:, CANDIDATE] + b[CANDIDATE])
        h = g * s.hidden + (1 - g) * c
        return [h], h

    assert_follows(Case(rnn.UpdateGateRNN(4)), step)


@pytest.mark.parametrize(("bias", "keeps"), [(50.0, True), (-50.0, False)])
def test_update_gate_rnn_keeps_or_is_elman_as_its_gate_says(bias, keeps):
    case = Case(rnn.UpdateGateRNN(4))
    params, xs = random_params(case), random_inputs(case, (5, 2))
    params = params._replace(bias=params.bias.at[GATE].set(bias))
    elman = rnn.cells.ElmanParams(
        params.input_kernel[:, CANDIDATE],
        params.recurrent_kernel[:, CANDIDATE],
        params.bias[CANDIDATE],
    )
    want = jnp.zeros((5, 2, 4)) if keeps else rnn.unroll(rnn.Elman(4), elman, xs)[1]
    assert_near(rnn.unroll(case.cell, params, xs)[1], want, 1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_janet_follows_the_paper(beta):
    def step(p, s, x):
        w, u, b = p.input_kernel, p.recurrent_kernel, p.bias
        forget = s.hidden @ u[:, GATE] + x @ w[:, GATE] + b[GATE]
        c = np.tanh(s.hidden @ u[:, CANDIDATE] + x @ w[:, CANDIDATE] + b[CANDIDATE])
        h = sigmoid(forget) * s.hidden + (1 - sigmoid(forget - beta)) * c
        return [h], h

    assert_follows(Case(rnn.JANET(4, beta)), step)


def test_janet_without_beta_is_update_gate_rnn():
    case = Case(rnn.JANET(4, beta=0.0))
    params, xs = random_params(case), random_inputs(case, (5, 2))
    want = rnn.unroll(rnn.UpdateGateRNN(4), params, xs)
    assert_near(rnn.unroll(case.cell, params, xs), want, 1e-12)


def test_gates_start_open_to_the_past():
    for cell in (rnn.UpdateGateRNN(4), rnn.JANET(4)):
        assert cell.init(jax.random.key(0), 3).bias.tolist() == [1.0] * 4 + [0.0] * 4
