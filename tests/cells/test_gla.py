import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_params
from tests.support.chunks import assert_chunk_is_the_recurrence
from tests.support.helpers import assert_near, thorough_but
from tests.support.oracle import assert_follows, sigmoid

CELL = rnn.GatedLinearAttention(6, num_heads=2, key_size=4, gate_rank=3, gate_temperature=2.0)
CASE = Case(CELL)


def test_follows_the_paper():
    def step(p, s, x):
        q, k, v, low_rank = np.split(x @ p.input_kernel, [4, 8, 14])
        alpha = sigmoid(low_rank @ p.gate_kernel + p.gate_bias) ** (1 / 2)
        memory, y = np.empty_like(s.memory), []
        for h in range(2):
            rows, columns = slice(2 * h, 2 * h + 2), slice(3 * h, 3 * h + 3)
            memory[h] = np.diag(alpha[rows]) @ s.memory[h] + np.outer(k[rows], v[columns])
            y.append(q[rows] @ memory[h])
        return [memory], np.concatenate(y)

    assert_follows(CASE, step)


@pytest.mark.parametrize("time", thorough_but(37, 1, 2, 7, 16))
def test_chunk_is_the_recurrence(time):
    assert_chunk_is_the_recurrence(CASE, random_params(CASE), time)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), thorough_but(("float32", 1e-5), ("float64", 1e-10))
)
def test_chunk_is_the_recurrence_where_gates_close(dtype, tolerance):
    # Gates between e^-500 and almost 1, in turn: a product of decays from the beginning of the
    # chunk would underflow, and sums of their logarithms from there would lose the later ones.
    params = random_params(CASE, dtype)
    params = params._replace(gate_bias=jnp.array([-1e3, -30.0, 0.0, 20.0], dtype))
    assert_chunk_is_the_recurrence(CASE, params, 37, tolerance=tolerance)
    loud = params._replace(gate_kernel=300 * params.gate_kernel, gate_bias=jnp.zeros(4, dtype))
    assert_chunk_is_the_recurrence(CASE, loud, 37, tolerance=tolerance)


def test_open_gates_give_linear_attention():
    params = random_params(CASE)
    params = params._replace(gate_kernel=jnp.zeros((3, 4)), gate_bias=jnp.full(4, 1e3))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)))
    _, ys = CELL.chunk(params, CELL.init_state(params), xs)
    q, k, v, _ = np.split(np.asarray(xs @ params.input_kernel), [4, 8, 14], axis=1)
    heads = [
        np.tril(q[:, [2 * h, 2 * h + 1]] @ k[:, [2 * h, 2 * h + 1]].T) @ v[:, 3 * h : 3 * h + 3]
        for h in range(2)
    ]
    assert_near(ys, np.concatenate(heads, axis=1), 1e-12)


def test_errors_name_the_heads():
    with pytest.raises(ValueError, match="num_heads must divide hidden_size, got num_heads=3"):
        rnn.GatedLinearAttention(4, num_heads=3)
    with pytest.raises(ValueError, match="num_heads must divide key_size"):
        rnn.GatedLinearAttention(4, num_heads=2, key_size=3)
    with pytest.raises(ValueError, match="gate_temperature must be positive"):
        rnn.GatedLinearAttention(4, gate_temperature=0.0)
