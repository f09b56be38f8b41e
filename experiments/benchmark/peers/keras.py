"""Keras 3 on JAX: stateless calls of its layers, batch first."""

import os

# Keras reads this only on import.
os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras

from experiments.benchmark.peers.workload import Contender, Layer, Workload, stacked, supports

CELLS = {
    "lstm": (keras.layers.LSTM, {}),
    "gru": (keras.layers.GRU, {"reset_after": True}),
    "elman": (keras.layers.SimpleRNN, {}),
    "reset-before-gru": (keras.layers.GRU, {"reset_after": False}),
}


def make_layer(workload: Workload, input_size: int, reverse: bool) -> Layer:
    """One Keras layer."""
    kind, options = CELLS[workload.cell]
    net = kind(
        workload.hidden,
        return_sequences=True,
        return_state=True,
        go_backwards=reverse,
        dtype=workload.dtype,
        # The weights are drawn below; an orthogonal matrix cannot be drawn in bfloat16.
        recurrent_initializer="glorot_uniform",
        **options,
    )
    net.build((workload.batch, workload.time, input_size))
    weights = [variable.value for variable in net.trainable_variables]
    others = [variable.value for variable in net.non_trainable_variables]
    hidden = jax.ShapeDtypeStruct((workload.batch, workload.hidden), workload.dtype)
    state = [hidden] * (2 if workload.cell == "lstm" else 1)

    def apply(weights, state, xs):
        (ys, *state), _ = net.stateless_call(weights, others, xs, initial_state=state)
        # In reverse, Keras returns the last step's output first.
        return state, jnp.flip(ys, 1) if reverse else ys

    return Layer(apply, workload.fill(weights, "weights"), workload.fill(state, "state"))


def limit(workload: Workload) -> str | None:
    """Requires the JAX backend, which an earlier import may have overridden."""
    backend = keras.backend.backend()
    return None if backend == "jax" else f"is already imported with the backend {backend}"


contender = Contender(
    "Keras on JAX", "jax", supports(CELLS, limit), stacked(make_layer, batch_first=True)
)
