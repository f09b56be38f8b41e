"""Keras 3: SimpleRNN, LSTM, GRU of both reset forms, masks, both directions of time."""

import dataclasses
import functools
import os

import jax.numpy as jnp
import numpy as np

from jaxrnn import convert
from tests.parity.comparison import BATCH, HIDDEN, INPUT, TIME, Comparison, run_ours, through_jax

INTERIOR = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]], bool)  # [batch, time]

os.environ.setdefault(
    "KERAS_BACKEND", "jax"
)  # the peers that differentiate here are JAX or PyTorch


@dataclasses.dataclass(frozen=True)
class Config:
    kind: str
    options: tuple = ()  # of the layer
    masked: bool = False
    bidirectional: bool = False
    layers: int = 1

    @property
    def names(self):
        """The leaves of the whole state: layers, then directions, then hidden and cell."""
        leaves = ("h", "c") if self.kind == "LSTM" else ("h",)
        directions = ("forward_", "backward_") if self.bidirectional else ("",)
        return [f"{d}{n}{i}" for i in range(self.layers) for d in directions for n in leaves]

    @property
    def go_backwards(self):
        return dict(self.options).get("go_backwards", False)


BEFORE, AFTER = (("reset_after", False),), (("reset_after", True),)
BACKWARDS = (("go_backwards", True),)

CONFIGS = {
    "simple": Config("SimpleRNN"),
    "simple_relu_masked": Config("SimpleRNN", (("activation", "relu"),), masked=True),
    "lstm": Config("LSTM"),
    "lstm_no_bias": Config("LSTM", (("use_bias", False),)),
    "lstm_masked": Config("LSTM", masked=True),
    "lstm_backwards_masked": Config("LSTM", BACKWARDS, masked=True),
    "lstm_bidirectional_masked": Config("LSTM", masked=True, bidirectional=True),
    "lstm_two_layers": Config("LSTM", layers=2),
    "gru_reset_after": Config("GRU", AFTER),
    "gru_reset_after_masked": Config("GRU", AFTER, masked=True),
    "gru_reset_after_backwards": Config("GRU", AFTER + BACKWARDS),
    "gru_reset_after_bidirectional": Config("GRU", AFTER, bidirectional=True),
    "gru_reset_before": Config("GRU", BEFORE),
    "gru_reset_before_masked": Config("GRU", BEFORE, masked=True),
    "gru_reset_before_backwards_masked": Config("GRU", BEFORE + BACKWARDS, masked=True),
}


def weight_shapes(config):
    gates = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}[config.kind]
    options = dict(config.options)
    shapes = []
    for layer in range(config.layers):
        width = INPUT if layer == 0 else HIDDEN
        for _ in range(1 + config.bidirectional):
            shapes += [(width, gates * HIDDEN), (HIDDEN, gates * HIDDEN)]
            if options.get("use_bias", True):
                two = (2,) if options.get("reset_after") else ()
                shapes.append((*two, gates * HIDDEN))
    return {f"{index:02}": shape for index, shape in enumerate(shapes)}


@functools.cache
def tanh():
    """Keras's own tanh narrows float64 to float32 on every backend but TensorFlow's."""
    import keras

    @keras.saving.register_keras_serializable("parity", "tanh")
    def wide_tanh(x):
        return jnp.tanh(x)

    return wide_tanh


def theirs(config):
    def run(weights, inputs):
        import keras

        def layer():
            return getattr(keras.layers, config.kind)(
                HIDDEN,
                return_sequences=True,
                return_state=True,
                dtype=dtype,
                **{"activation": tanh(), **dict(config.options)},
            )

        dtype = str(inputs["xs"].dtype)
        arrays = [weights[name] for name in sorted(weights)]
        ys, finals = jnp.swapaxes(inputs["xs"], 0, 1), []
        mask = inputs.get("mask")
        for index in range(config.layers):
            net = layer()
            if config.bidirectional:
                net = keras.layers.Bidirectional(net, dtype=dtype)
            net.build(ys.shape)
            own, arrays = arrays[: len(net.weights)], arrays[len(net.weights) :]
            frozen = [variable.value for variable in net.non_trainable_variables]
            state = [inputs[name] for name in config.names if name.endswith(str(index))]
            (ys, *final), _ = net.stateless_call(own, frozen, ys, initial_state=state, mask=mask)
            finals += final
        if mask is not None:
            valid = mask[:, ::-1] if config.go_backwards else mask
            ys = ys * valid[..., None]  # Keras repeats outputs at skipped steps
        if config.go_backwards:
            ys = ys[:, ::-1]  # Keras returns them in reversed order
        outputs = dict(zip(config.names, finals, strict=True))
        return {"ys": jnp.swapaxes(ys, 0, 1), **outputs}

    return through_jax(run)


def ours(config):
    def run(weights, inputs):
        options = dict(config.options)
        network, params = convert.from_keras(
            [weights[name] for name in sorted(weights)],
            bidirectional=config.bidirectional,
            use_bias=options.get("use_bias", True),
            activation=options.get("activation", "tanh"),
        )
        leaves = [inputs[name] for name in config.names]
        choices = {"mask": inputs["mask"].T} if config.masked else {}
        if config.go_backwards:
            choices["reverse"] = True
        ys, final = run_ours(network, params, inputs["xs"], leaves, **choices)
        return {"ys": ys, **dict(zip(config.names, final, strict=True))}

    return run


def inputs(config):
    arrays = {"xs": (TIME, BATCH, INPUT), **{name: (BATCH, HIDDEN) for name in config.names}}
    return arrays | ({"mask": INTERIOR} if config.masked else {})


COMPARISONS = [
    Comparison(
        f"keras_{name}",
        ("keras",),
        weight_shapes(config),
        inputs(config),
        theirs(config),
        ours(config),
    )
    for name, config in CONFIGS.items()
]
