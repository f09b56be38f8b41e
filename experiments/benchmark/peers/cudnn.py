"""NVIDIA's cuDNN through JAX's own binding, `jax.experimental.rnn`, batch first."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import rnn as binding

from experiments.benchmark.peers.workload import Contender, JaxNetwork, Workload, supports


def limit(workload: Workload) -> str | None:
    """Requires a GPU and float32."""
    if jax.default_backend() != "gpu":
        return "needs a GPU"
    return None if workload.dtype == "float32" else "supports float32 only"


def build(workload: Workload) -> JaxNetwork:
    """All layers and directions in one call, all weights in one vector."""
    sizes: dict[str, Any] = {
        "input_size": workload.inputs,
        "hidden_size": workload.hidden,
        "num_layers": workload.layers,
        "bidirectional": workload.bidirectional,
    }
    lengths = jnp.full(workload.batch, workload.time, jnp.int32)

    def apply(weights, state, xs):
        results: Any = binding.lstm(xs, *state, weights, seq_lengths=lengths, dropout=0.0, **sizes)
        ys, hidden, cell = results
        return (hidden, cell), ys

    weights = jax.ShapeDtypeStruct((binding.get_num_params_in_lstm(**sizes),), workload.dtype)
    rows = workload.layers * len(workload.directions)
    hidden = jax.ShapeDtypeStruct((rows, workload.batch, workload.hidden), workload.dtype)
    return JaxNetwork(
        workload,
        apply,
        workload.fill(weights, "weights"),
        workload.fill((hidden, hidden), "state"),
        workload.xs(batch_first=True),
    )


contender = Contender("cuDNN by JAX", "jax", supports(("lstm",), limit), build)
