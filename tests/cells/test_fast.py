import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

FAST, GATED = Case(rnn.FastRNN(4)), Case(rnn.FastGRNN(4))
INFINITY = jnp.array(jnp.inf)


def test_fast_rnn_follows_the_paper():
    def step(p, s, x):
        candidate = np.tanh(x @ p.input_kernel + s.hidden @ p.recurrent_kernel + p.bias)
        h = sigmoid(p.alpha_logit) * candidate + sigmoid(p.beta_logit) * s.hidden
        return [h], h

    assert_follows(FAST, step)


def test_fast_grnn_follows_the_paper():
    def step(p, s, x):
        shared = x @ p.input_kernel + s.hidden @ p.recurrent_kernel
        z, candidate = sigmoid(shared + p.bias[:4]), np.tanh(shared + p.bias[4:])
        zeta, nu = sigmoid(p.zeta_logit), sigmoid(p.nu_logit)
        h = (zeta * (1 - z) + nu) * candidate + z * s.hidden
        return [h], h

    assert_follows(GATED, step)


def test_fast_rnn_without_its_residual_is_elman():
    params, xs = random_params(FAST), random_inputs(FAST, (5, 2))
    params = params._replace(alpha_logit=INFINITY, beta_logit=-INFINITY)
    _, want = rnn.unroll(rnn.Elman(4), rnn.cells.ElmanParams(*params[:3]), xs)
    assert_near(rnn.unroll(FAST.cell, params, xs)[1], want, 1e-12)


def test_fast_grnn_with_plain_weights_is_update_gate_rnn_with_shared_kernels():
    params, xs = random_params(GATED), random_inputs(GATED, (5, 2))
    params = params._replace(zeta_logit=INFINITY, nu_logit=-INFINITY)
    twice = [jnp.concatenate([kernel, kernel], axis=-1) for kernel in params[:2]]
    shared = rnn.cells.SingleGateParams(*twice, params.bias)
    _, want = rnn.unroll(rnn.UpdateGateRNN(4), shared, xs)
    assert_near(rnn.unroll(GATED.cell, params, xs)[1], want, 1e-12)
