import jax
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

LSTM = Case(rnn.LayerNormLSTM(4, epsilon=1e-3))
GRU = Case(rnn.LightGRU(4, epsilon=1e-3))


def norm(a):
    mean = sum(a) / len(a)
    variance = sum((a - mean) ** 2) / len(a)
    return (a - mean) / np.sqrt(variance + 1e-3)


def test_layer_norm_lstm_follows_the_paper():
    def step(p, s, x):
        gates = norm(s.hidden @ p.recurrent_kernel) * p.recurrent_scale
        gates = gates + norm(x @ p.input_kernel) * p.input_scale + p.bias
        i, f, g, o = (gates[4 * k : 4 * k + 4] for k in range(4))
        c = sigmoid(f) * s.cell + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(norm(c) * p.cell_scale + p.cell_bias)
        return [h, c], h

    assert_follows(LSTM, step)


def test_light_gru_follows_the_paper():
    def step(p, s, x):
        at = norm(x @ p.input_kernel) * p.input_scale + p.bias
        at = at + s.hidden @ p.recurrent_kernel
        z, candidate = sigmoid(at[:4]), np.maximum(0, at[4:])
        h = z * s.hidden + (1 - z) * candidate
        return [h], h

    assert_follows(GRU, step)


@pytest.mark.thorough
def test_light_gru_is_torch_layer_norm_before_the_recurrence():
    torch = pytest.importorskip("torch")
    params, x = random_params(GRU), random_inputs(GRU, (2,))
    norm = torch.nn.functional.layer_norm
    scale, bias = (torch.from_numpy(np.array(a)) for a in (params.input_scale, params.bias))
    product = torch.from_numpy(np.array(x @ params.input_kernel))
    want = norm(product, (8,), scale, bias, 1e-3).numpy()
    z, n = sigmoid(want[:, :4]), np.maximum(0, want[:, 4:])
    _, got = GRU.cell.step(params, GRU.cell.init_state(params, (2,)), x)  # from h = 0
    assert_near(got, (1 - z) * n, 1e-12)


@pytest.mark.parametrize(
    ("cell", "factors"),
    [
        (rnn.LayerNormLSTM(4, epsilon=0.0), {"input_kernel": 7.0, "recurrent_kernel": 0.3}),
        (rnn.LightGRU(4, epsilon=0.0), {"input_kernel": 7.0}),
    ],
)
def test_outputs_do_not_change_with_the_scale_of_the_kernels(cell, factors):
    case = Case(cell)
    params, xs, state = random_params(case), random_inputs(case, (5, 2)), random_state(case, (2,))
    scaled = params._replace(**{name: k * getattr(params, name) for name, k in factors.items()})
    want = rnn.unroll(cell, params, xs, state)
    assert np.ptp(want[1]) > 0.1
    assert_near(rnn.unroll(cell, scaled, xs, state), want, 1e-10)


def test_gradients_are_finite_from_a_state_of_zeros():
    for case in (LSTM, GRU):
        params, xs = random_params(case), random_inputs(case, (3, 2))

        def loss(params, case=case, xs=xs):
            return rnn.unroll(case.cell, params, xs)[1].sum()

        gradient = jax.grad(loss)(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
