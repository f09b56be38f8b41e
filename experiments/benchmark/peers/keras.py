"""Keras 3 on JAX: its layers, called without state of their own; they want the batch first."""

import os

# Keras reads this once, when it is imported.
os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras

from experiments.benchmark.peers.work import JaxNetwork, Layer, Work, refusal, stack

CELLS = {
    "lstm": (keras.layers.LSTM, {}),
    "gru": (keras.layers.GRU, {"reset_after": True}),
    "elman": (keras.layers.SimpleRNN, {}),
    "reset-before-gru": (keras.layers.GRU, {"reset_after": False}),
}


def why_not(work: Work) -> str | None:
    """Its cells only, and only where nobody imported it with another backend before."""
    if keras.backend.backend() != "jax":
        return f"was imported before with the backend {keras.backend.backend()}"
    return refusal(work, CELLS)


def build(work: Work) -> JaxNetwork:
    """One Keras layer a layer and direction."""

    def make_layer(input_size: int, reverse: bool) -> Layer:
        kind, options = CELLS[work.cell]
        net = kind(
            work.hidden,
            return_sequences=True,
            return_state=True,
            go_backwards=reverse,
            dtype=work.dtype,
            # The weights are drawn below; an orthogonal matrix cannot be drawn in bfloat16.
            recurrent_initializer="glorot_uniform",
            **options,
        )
        net.build((work.batch, work.time, input_size))
        weights = [variable.value for variable in net.trainable_variables]
        others = [variable.value for variable in net.non_trainable_variables]
        hidden = jax.ShapeDtypeStruct((work.batch, work.hidden), work.dtype)
        state = [hidden] * (2 if work.cell == "lstm" else 1)

        def apply(weights, state, xs):
            (ys, *state), _ = net.stateless_call(weights, others, xs, initial_state=state)
            # Going backwards, Keras gives the last step's output first.
            return state, jnp.flip(ys, 1) if reverse else ys

        return Layer(apply, work.fill(weights, "weights"), work.fill(state, "state"))

    return stack(work, make_layer, jnp.asarray(work.draw_inputs().swapaxes(0, 1), work.dtype))
