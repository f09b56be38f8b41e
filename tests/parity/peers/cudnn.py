"""The LSTM of ``jax.experimental.rnn``: its reference, from cuDNN's flat weights."""

import dataclasses

import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import (
    BATCH,
    HIDDEN,
    INPUT,
    LENGTHS,
    TIME,
    Comparison,
    run_ours,
    through_jax,
)


@dataclasses.dataclass(frozen=True)
class Config:
    num_layers: int = 1
    bidirectional: bool = False
    lengths: bool = False

    @property
    def count(self):
        return self.num_layers * (1 + self.bidirectional)

    @property
    def sizes(self):
        return {
            "input_size": INPUT,
            "hidden_size": HIDDEN,
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
        }


CONFIGS = {
    "lstm": Config(),
    "lstm_lengths": Config(lengths=True),
    "lstm_two_layers_bidirectional_lengths": Config(2, True, True),
}


def length(config):
    widths = [INPUT] + [HIDDEN * (1 + config.bidirectional)] * (config.num_layers - 1)
    return sum(4 * HIDDEN * (w + HIDDEN + 2) for w in widths) * (1 + config.bidirectional)


def theirs(config):
    def run(weights, inputs):
        from jax.experimental import rnn

        unpacked = rnn.unpack_lstm_weights(weights["flat"], *config.sizes.values())
        lengths = inputs.get("lengths", jnp.full(BATCH, TIME, jnp.int32))
        xs = jnp.swapaxes(inputs["xs"], 0, 1)
        ys, h, c = rnn.lstm_ref(
            xs, inputs["h"], inputs["c"], *unpacked, lengths, dropout=0.0, **config.sizes
        )
        return {"ys": jnp.swapaxes(ys, 0, 1), "h": h, "c": c}

    return through_jax(run)


def ours(config):
    def run(weights, inputs):
        network, params = convert.from_cudnn(weights["flat"], **config.sizes)
        leaves = [inputs[n][i] for i in range(config.count) for n in ("h", "c")]
        ys, final = run_ours(network, params, inputs["xs"], leaves, lengths=inputs.get("lengths"))
        return {"ys": ys, "h": jnp.stack(final[::2]), "c": jnp.stack(final[1::2])}

    return run


def inputs(config):
    state = (config.count, BATCH, HIDDEN)
    arrays = {"xs": (TIME, BATCH, INPUT), "h": state, "c": state}
    return arrays | ({"lengths": LENGTHS} if config.lengths else {})


COMPARISONS = [
    Comparison(
        f"cudnn_{name}",
        ("jax.experimental.rnn",),
        {"flat": (length(config),)},
        inputs(config),
        theirs(config),
        ours(config),
    )
    for name, config in CONFIGS.items()
]
