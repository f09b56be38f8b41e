import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, Floats, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid


def transcription(v_f, v_r, project, highway=True, alpha=3**0.5):
    def step(p, s, x):
        w_f, w_c, w_r, w_x = np.split(p.input_kernel, [4, 8, 12], axis=1)
        f = sigmoid(x @ w_f + p.bias[:4] + v_f(p) * s.cell)
        c = f * s.cell + (1 - f) * (x @ w_c)
        r = sigmoid(x @ w_r + p.bias[4:] + v_r(p) * s.cell)
        skip = alpha * (x @ w_x if project else x) if highway else 0
        return [c], r * c + (1 - r) * skip

    return step


def zero(p):
    return 0


@pytest.mark.parametrize("size", [3, 4])
def test_sru_follows_the_paper(size):
    assert_follows(
        Case(rnn.SRU(4), x=Floats((size,))), transcription(zero, zero, project=size != 4)
    )


@pytest.mark.parametrize("size", [3, 4])
def test_peephole_sru_follows_the_paper(size):
    step = transcription(
        lambda p: p.peephole_kernel[:4], lambda p: p.peephole_kernel[4:], project=size != 4
    )
    assert_follows(Case(rnn.PeepholeSRU(4), x=Floats((size,))), step)


def test_without_highway_and_with_another_scale():
    assert_follows(Case(rnn.SRU(4, highway=False)), transcription(zero, zero, False, highway=False))
    assert_follows(
        Case(rnn.SRU(4, highway_scale=1.0), x=Floats((4,))),
        transcription(zero, zero, False, alpha=1),
    )


def test_peepholes_of_zero_give_the_affine_cell():
    peephole, affine = Case(rnn.PeepholeSRU(4)), Case(rnn.SRU(4))
    params, xs = random_params(peephole), random_inputs(peephole, (6, 2))
    params = params._replace(peephole_kernel=jnp.zeros(8))
    got = rnn.unroll(peephole.cell, params, xs)
    want = rnn.unroll(affine.cell, rnn.cells.SRUParams(*params[:2]), xs)
    assert_near(got, want, 1e-14)
    assert rnn.is_affine(affine.cell)
    assert not rnn.is_affine(peephole.cell)


def test_peephole_sru_starts_with_gates_of_variance_one():
    # Half from the input, half from a state of variance 1.
    params = rnn.PeepholeSRU(512).init(jax.random.key(0), 300, "float64")
    f, c, r, skip = np.split(np.asarray(params.input_kernel), 4, axis=1)
    for block, variance in ((f, 0.5), (c, 1), (r, 0.5), (skip, 1)):
        np.testing.assert_allclose(300 * block.var(), variance, rtol=0.05)
    np.testing.assert_allclose(params.peephole_kernel.var(), 0.5, rtol=0.1)
