"""ONNX's reference evaluator: RNN, LSTM with peepholes, GRU of both reset forms. Values only."""

import dataclasses

import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import BATCH, HIDDEN, INPUT, TIME, Comparison, run_ours


@dataclasses.dataclass(frozen=True)
class Config:
    op_type: str
    direction: str = "forward"
    peepholes: bool = False
    attributes: tuple = ()

    @property
    def count(self):
        return 2 if self.direction == "bidirectional" else 1

    @property
    def states(self):
        return ("h", "c") if self.op_type == "LSTM" else ("h",)


AFTER = (("linear_before_reset", 1),)

CONFIGS = {
    "rnn": Config("RNN"),
    "rnn_bidirectional": Config("RNN", "bidirectional"),
    "lstm": Config("LSTM"),
    "lstm_peepholes": Config("LSTM", peepholes=True),
    "lstm_peepholes_reverse": Config("LSTM", "reverse", peepholes=True),
    "lstm_peepholes_bidirectional": Config("LSTM", "bidirectional", peepholes=True),
    "gru_reset_before": Config("GRU"),
    "gru_reset_after": Config("GRU", attributes=AFTER),
    "gru_reset_after_bidirectional": Config("GRU", "bidirectional", attributes=AFTER),
}


def weight_shapes(config):
    rows = {"RNN": 1, "LSTM": 4, "GRU": 3}[config.op_type] * HIDDEN
    shapes = {
        "W": (config.count, rows, INPUT),
        "R": (config.count, rows, HIDDEN),
        "B": (config.count, 2 * rows),
    }
    return shapes | ({"P": (config.count, 3 * HIDDEN)} if config.peepholes else {})


def theirs(config):
    def run(weights, inputs, cotangents):
        import onnx
        from onnx.reference import ReferenceEvaluator

        states = {f"initial_{n}": inputs[n] for n in config.states}
        feeds = {"X": inputs["xs"], **weights, **states}
        element = onnx.helper.np_dtype_to_tensor_dtype(inputs["xs"].dtype)

        def value(name, shape):
            return onnx.helper.make_tensor_value_info(name, element, shape)

        roles = ("X", "W", "R", "B", "", "initial_h", "initial_c", "P")
        names = [role if role in feeds else "" for role in roles]
        while not names[-1]:
            names.pop()
        results = ["Y", *(f"Y_{n}" for n in config.states)]
        node = onnx.helper.make_node(
            config.op_type,
            names,
            results,
            hidden_size=HIDDEN,
            direction=config.direction,
            **dict(config.attributes),
        )
        graph = onnx.helper.make_graph(
            [node],
            config.op_type,
            [value(name, array.shape) for name, array in feeds.items()],
            [value(name, None) for name in results],
        )
        ys, *final = ReferenceEvaluator(onnx.helper.make_model(graph)).run(None, feeds)
        ys = ys.transpose(0, 2, 1, 3).reshape(TIME, BATCH, -1)
        return {"ys": ys, **dict(zip(config.states, final, strict=True))}, None

    return run


def ours(config):
    def run(weights, inputs):
        node = {"op_type": config.op_type, "direction": config.direction, **weights}
        network, params = convert.from_onnx(node | dict(config.attributes))
        leaves = [inputs[n][d] for d in range(config.count) for n in config.states]
        ys, final = run_ours(network, params, inputs["xs"], leaves)
        outputs = {
            n: jnp.stack(final[i :: len(config.states)]) for i, n in enumerate(config.states)
        }
        return {"ys": ys, **outputs}

    return run


COMPARISONS = [
    Comparison(
        f"onnx_{name}",
        ("onnx",),
        weight_shapes(config),
        {"xs": (TIME, BATCH, INPUT), **{n: (config.count, BATCH, HIDDEN) for n in config.states}},
        theirs(config),
        ours(config),
    )
    for name, config in CONFIGS.items()
]
