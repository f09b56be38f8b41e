"""Flax nnx: SimpleCell, LSTMCell, OptimizedLSTMCell, GRUCell; RNN with seq_lengths."""

import jax
import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import HIDDEN, INPUT, Comparison, nest, through_jax
from tests.parity.peers.linen import Config, carries, inputs, ours, outputs, weight_shapes

CONFIGS = {
    "simple": Config("SimpleCell"),
    "simple_relu_lengths": Config("SimpleCell", lengths=True, relu=True),
    "lstm_lengths": Config("LSTMCell", lengths=True),
    "optimized_lstm": Config("OptimizedLSTMCell"),
    "optimized_lstm_bidirectional_lengths": Config(
        "OptimizedLSTMCell", lengths=True, bidirectional=True
    ),
    "gru": Config("GRUCell"),
    "gru_lengths": Config("GRUCell", lengths=True),
    "gru_bidirectional": Config("GRUCell", bidirectional=True),
}


def cell_shapes(cell):
    """The parameters of one cell of nnx."""
    if cell == "LSTMCell":
        shapes = {f"{name}/kernel": (INPUT, HIDDEN) for name in ("ii", "if_", "ig", "io")}
        shapes |= {f"h{letter}/kernel": (HIDDEN, HIDDEN) for letter in "ifgo"}
        return shapes | {f"h{letter}/bias": (HIDDEN,) for letter in "ifgo"}
    columns = {"SimpleCell": 1, "GRUCell": 3, "OptimizedLSTMCell": 4}[cell] * HIDDEN
    biased = "dense_h" if cell == "OptimizedLSTMCell" else "dense_i"
    return {
        "dense_i/kernel": (INPUT, columns),
        "dense_h/kernel": (HIDDEN, columns),
        f"{biased}/bias": (columns,),
    }


def theirs(config):
    def run(weights, inputs):
        from flax import nnx

        dtype = inputs["xs"].dtype

        def layer():
            options = {"activation_fn": jax.nn.relu} if config.relu else {}
            kind = getattr(nnx, config.cell)
            cell = kind(INPUT, HIDDEN, param_dtype=dtype, dtype=dtype, rngs=nnx.Rngs(0), **options)
            return nnx.RNN(cell, return_carry=True)

        net = nnx.Bidirectional(layer(), layer(), return_carry=True)
        if not config.bidirectional:
            net = layer()
        nnx.update(net, nest(weights))
        carry, ys = net(
            jnp.swapaxes(inputs["xs"], 0, 1),
            initial_carry=carries(config, inputs),
            seq_lengths=inputs.get("lengths"),
        )
        return outputs(config, carry, ys)

    return through_jax(run)


COMPARISONS = [
    Comparison(
        f"nnx_{name}",
        ("flax.nnx",),
        weight_shapes(config, cell_shapes),
        inputs(config),
        theirs(config),
        ours(config, convert.from_nnx),
    )
    for name, config in CONFIGS.items()
]
