"""Flax linen: SimpleCell, LSTMCell, OptimizedLSTMCell, GRUCell; RNN with seq_lengths."""

import dataclasses

import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import (
    BATCH,
    HIDDEN,
    INPUT,
    LENGTHS,
    TIME,
    VALID,
    Comparison,
    nest,
    run_ours,
    through_jax,
)


@dataclasses.dataclass(frozen=True)
class Config:
    cell: str
    lengths: bool = False
    bidirectional: bool = False
    relu: bool = False

    @property
    def names(self):
        leaves = ("h", "c") if "LSTM" in self.cell else ("h",)
        directions = ("forward_", "backward_") if self.bidirectional else ("",)
        return [f"{d}{n}" for d in directions for n in leaves]


CONFIGS = {
    "simple": Config("SimpleCell"),
    "simple_relu_lengths": Config("SimpleCell", lengths=True, relu=True),
    "lstm": Config("LSTMCell"),
    "optimized_lstm_lengths": Config("OptimizedLSTMCell", lengths=True),
    "lstm_bidirectional_lengths": Config("LSTMCell", lengths=True, bidirectional=True),
    "gru": Config("GRUCell"),
    "gru_lengths": Config("GRUCell", lengths=True),
    "gru_bidirectional": Config("GRUCell", bidirectional=True),
}


def cell_shapes(cell):
    """Linen's parameters of one cell."""
    if cell == "SimpleCell":
        return {"i/kernel": (INPUT, HIDDEN), "i/bias": (HIDDEN,), "h/kernel": (HIDDEN, HIDDEN)}
    letters, biased = ("rzn", "i") if cell == "GRUCell" else ("ifgo", "h")
    shapes = {f"i{letter}/kernel": (INPUT, HIDDEN) for letter in letters}
    shapes |= {f"h{letter}/kernel": (HIDDEN, HIDDEN) for letter in letters}
    shapes |= {f"{biased}{letter}/bias": (HIDDEN,) for letter in letters}
    return shapes | ({"hn/bias": (HIDDEN,)} if cell == "GRUCell" else {})


def weight_shapes(config, of_cell=cell_shapes):
    places = ["cell"]
    if config.bidirectional:
        places = ["forward_rnn/cell", "backward_rnn/cell"]
    return {f"{place}/{n}": s for place in places for n, s in of_cell(config.cell).items()}


def inputs(config):
    arrays = {"xs": (TIME, BATCH, INPUT), **{name: (BATCH, HIDDEN) for name in config.names}}
    return arrays | ({"lengths": LENGTHS} if config.lengths else {})


def carries(config, inputs):
    """Flax carries an LSTM's state as (cell, hidden)."""
    leaves = [inputs[name] for name in config.names]
    per = 2 if "LSTM" in config.cell else 1
    states = [tuple(leaves[i : i + per][::-1]) for i in range(0, len(leaves), per)]
    states = [state if per == 2 else state[0] for state in states]
    return tuple(states) if config.bidirectional else states[0]


def outputs(config, carry, ys):
    """Flax's outputs past a row's length are what the padding gives; they are not compared."""
    states = carry if config.bidirectional else (carry,)
    leaves = [leaf for s in states for leaf in ((s[1], s[0]) if "LSTM" in config.cell else (s,))]
    ys = jnp.swapaxes(ys, 0, 1)
    if config.lengths:
        ys = jnp.where(VALID[..., None], ys, 0)
    return {"ys": ys, **dict(zip(config.names, leaves, strict=True))}


def theirs(config):
    def run(weights, inputs):
        import flax.linen as nn
        import jax

        def layer():
            options = {"activation_fn": jax.nn.relu} if config.relu else {}
            cell = getattr(nn, config.cell)(HIDDEN, param_dtype=inputs["xs"].dtype, **options)
            return nn.RNN(cell, return_carry=True)

        net = nn.Bidirectional(layer(), layer(), return_carry=True)
        if not config.bidirectional:
            net = layer()
        carry, ys = net.apply(
            {"params": nest(weights)},
            jnp.swapaxes(inputs["xs"], 0, 1),
            initial_carry=carries(config, inputs),
            seq_lengths=inputs.get("lengths"),
        )
        return outputs(config, carry, ys)

    return through_jax(run)


def ours(config, convert_from=convert.from_linen):
    def run(weights, inputs):
        activation = "relu" if config.relu else "tanh"
        network, params = convert_from(nest(weights), activation=activation)
        leaves = [inputs[name] for name in config.names]
        ys, final = run_ours(network, params, inputs["xs"], leaves, lengths=inputs.get("lengths"))
        return {"ys": ys, **dict(zip(config.names, final, strict=True))}

    return run


COMPARISONS = [
    Comparison(
        f"linen_{name}",
        ("flax.linen",),
        weight_shapes(config),
        inputs(config),
        theirs(config),
        ours(config),
    )
    for name, config in CONFIGS.items()
]
