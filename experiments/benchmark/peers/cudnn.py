"""NVIDIA's cuDNN through JAX's own binding, `jax.experimental.rnn`; it wants the batch first."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import rnn as binding

from experiments.benchmark.peers.work import JaxNetwork, Work, refusal


def why_not(work: Work) -> str | None:
    """LSTM in float32 on a GPU only."""
    if jax.default_backend() != "gpu":
        return "needs a GPU"
    if work.dtype != "float32":
        return "takes float32 only"
    return refusal(work, ("lstm",))


def build(work: Work) -> JaxNetwork:
    """All layers and directions in one call, all weights in one vector."""
    sizes: dict[str, Any] = {
        "input_size": work.inputs,
        "hidden_size": work.hidden,
        "num_layers": work.layers,
        "bidirectional": work.bidirectional,
    }
    lengths = jnp.full(work.batch, work.time, jnp.int32)

    def apply(weights, state, xs):
        results: Any = binding.lstm(xs, *state, weights, seq_lengths=lengths, dropout=0.0, **sizes)
        ys, hidden, cell = results
        return (hidden, cell), ys

    weights = jax.ShapeDtypeStruct((binding.get_num_params_in_lstm(**sizes),), work.dtype)
    rows = work.layers * len(work.directions)
    hidden = jax.ShapeDtypeStruct((rows, work.batch, work.hidden), work.dtype)
    return JaxNetwork(
        work,
        apply,
        work.fill(weights, "weights"),
        work.fill((hidden, hidden), "state"),
        jnp.asarray(work.draw_inputs().swapaxes(0, 1), work.dtype),
    )
