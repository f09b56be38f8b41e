"""Plain `jax.lax.scan` over the textbook step, with everything in the loop.

The steps are written independently of the library's cells and use their weights, so that they also
check its results. Each starts from the input product, `z = x W + b`.
"""

from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn as rnn
from experiments.benchmark.peers.two_speed import TwoSpeedState, two_speed_cell
from experiments.benchmark.peers.workload import Contender, Layer, Workload, stacked


def product(x, kernel):
    """`x @ kernel`, accumulated in single precision or better."""
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=wide)


def lstm(z, params, state):
    """Long short-term memory."""
    i, f, g, o = jnp.split(z + product(state.hidden, params.recurrent_kernel), 4, axis=-1)
    cell = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return rnn.cells.LSTMState(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)


def gru(z, params, state):
    """Gated recurrent unit with the reset gate after the product."""
    z_r, z_z, z_n = jnp.split(z, 3, axis=-1)
    u_r, u_z, u_n = jnp.split(product(state.hidden, params.recurrent_kernel), 3, axis=-1)
    reset, update = jax.nn.sigmoid(z_r + u_r), jax.nn.sigmoid(z_z + u_z)
    candidate = jnp.tanh(z_n + reset * (u_n + params.candidate_bias.astype(z.dtype)))
    return rnn.cells.GRUState((1 - update) * candidate + update * state.hidden)


def elman(z, params, state):
    """Elman's simple recurrent network."""
    return rnn.cells.ElmanState(jnp.tanh(z + product(state.hidden, params.recurrent_kernel)))


def reset_before_gru(z, params, state):
    """Gated recurrent unit with the reset gate before the product."""
    hidden = state.hidden
    gates, candidate = jnp.split(params.recurrent_kernel, [2 * hidden.shape[-1]], axis=-1)
    z_r, z_z, z_n = jnp.split(z, 3, axis=-1)
    u_r, u_z = jnp.split(product(hidden, gates), 2, axis=-1)
    reset, update = jax.nn.sigmoid(z_r + u_r), jax.nn.sigmoid(z_z + u_z)
    new = jnp.tanh(z_n + product(reset * hidden, candidate))
    return rnn.cells.GRUState((1 - update) * new + update * hidden)


def two_speed(z, params, state):
    """The cell that no library has."""
    f, o, n = jnp.split(z + product(state.hidden, params.recurrent_kernel), 3, axis=-1)
    fast, slow = jax.nn.sigmoid(f), jax.nn.sigmoid(o)
    memory = (1 - fast) * state.memory + fast * jnp.tanh(n)
    return TwoSpeedState((1 - slow) * state.hidden + slow * memory, memory)


CELLS = {
    "lstm": rnn.LSTM,
    "gru": rnn.GRU,
    "elman": rnn.Elman,
    "reset-before-gru": rnn.ResetBeforeGRU,
    "two-speed": two_speed_cell,
}
STEPS = dict(zip(CELLS, (lstm, gru, elman, reset_before_gru, two_speed), strict=True))


def step_from_gates(cell: str, params: Any, state: Any, z: jax.Array):
    """The step from its input product, `z = x W + b`, in the dtype of the weights."""
    state = STEPS[cell](z.astype(jax.tree.leaves(state)[0].dtype), params, state)
    return state, state.hidden.astype(z.dtype)


def step(cell: str, params: Any, state: Any, x: jax.Array):
    """The step from its input."""
    z = product(x, params.input_kernel)
    state = STEPS[cell](z + params.bias.astype(z.dtype), params, state)
    return state, state.hidden.astype(x.dtype)


def draw(workload: Workload, input_size: int):
    """The weights and the state of one layer, in the structure of the library's cells."""
    cell = CELLS[workload.cell](workload.hidden)
    shapes = jax.eval_shape(
        lambda key: cell.init(key, input_size, workload.dtype), jax.random.key(0)
    )
    state = jax.eval_shape(lambda params: cell.init_state(params, (workload.batch,)), shapes)
    if workload.gates_given:
        shapes = shapes._replace(input_kernel=None, bias=None)
    return workload.fill(shapes, "weights"), workload.fill(state, "state")


def make_layer(workload: Workload, input_size: int, reverse: bool) -> Layer:
    """One scan."""
    body = step_from_gates if workload.gates_given else step

    def apply(weights, state, xs):
        return jax.lax.scan(
            lambda state, x: body(workload.cell, weights, state, x), state, xs, reverse=reverse
        )

    return Layer(apply, *draw(workload, input_size))


contender = Contender(
    "plain lax.scan", "jax", lambda workload: None, stacked(make_layer), same_weights=True
)
