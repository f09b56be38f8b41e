"""PyTorch: RNN, LSTM, GRU, with projection, two directions, two layers, packed lengths."""

import dataclasses

import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import (
    BATCH,
    HIDDEN,
    INPUT,
    LENGTHS,
    PROJECTION,
    TIME,
    Comparison,
    run_ours,
)


@dataclasses.dataclass(frozen=True)
class Config:
    kind: str
    options: tuple = ()  # of the module
    packed: bool = False

    @property
    def module_options(self):
        return {"num_layers": 1, "bidirectional": False, "bias": True, **dict(self.options)}


CONFIGS = {
    "rnn_tanh": Config("RNN"),
    "rnn_relu": Config("RNN", (("nonlinearity", "relu"),)),
    "rnn_bidirectional_packed": Config("RNN", (("bidirectional", True),), packed=True),
    "lstm": Config("LSTM"),
    "lstm_no_bias": Config("LSTM", (("bias", False),)),
    "lstm_packed": Config("LSTM", packed=True),
    "lstm_projected": Config("LSTM", (("proj_size", PROJECTION),)),
    "lstm_two_layers_bidirectional_packed": Config(
        "LSTM", (("num_layers", 2), ("bidirectional", True)), packed=True
    ),
    "lstm_projected_two_layers_bidirectional": Config(
        "LSTM", (("num_layers", 2), ("bidirectional", True), ("proj_size", PROJECTION))
    ),
    "gru": Config("GRU"),
    "gru_packed": Config("GRU", packed=True),
    "gru_two_layers": Config("GRU", (("num_layers", 2),)),
    "gru_two_layers_bidirectional_packed": Config(
        "GRU", (("num_layers", 2), ("bidirectional", True)), packed=True
    ),
}


def weight_shapes(config):
    options = config.module_options
    rows = {"RNN": 1, "LSTM": 4, "GRU": 3}[config.kind] * HIDDEN
    projection = options.get("proj_size", 0)
    fed_back = projection or HIDDEN
    shapes = {}
    for layer in range(options["num_layers"]):
        for direction in ("", "_reverse") if options["bidirectional"] else ("",):
            suffix = f"_l{layer}{direction}"
            width = INPUT if layer == 0 else fed_back * (1 + options["bidirectional"])
            shapes[f"weight_ih{suffix}"] = (rows, width)
            shapes[f"weight_hh{suffix}"] = (rows, fed_back)
            if options["bias"]:
                shapes[f"bias_ih{suffix}"] = (rows,)
                shapes[f"bias_hh{suffix}"] = (rows,)
            if projection:
                shapes[f"weight_hr{suffix}"] = (projection, HIDDEN)
    return shapes


def inputs(config):
    options = config.module_options
    count = options["num_layers"] * (1 + options["bidirectional"])
    arrays = {
        "xs": (TIME, BATCH, INPUT),
        "h": (count, BATCH, options.get("proj_size", 0) or HIDDEN),
    }
    if config.kind == "LSTM":
        arrays["c"] = (count, BATCH, HIDDEN)
    return arrays | ({"lengths": LENGTHS} if config.packed else {})


def module(config, dtype):
    import torch

    kind = getattr(torch.nn, config.kind)
    return kind(INPUT, HIDDEN, **config.module_options, dtype=getattr(torch, dtype))


def theirs(config):
    def run(weights, inputs, cotangents):
        import torch

        net = module(config, str(inputs["xs"].dtype))
        net.load_state_dict({n: torch.tensor(a) for n, a in weights.items()})
        tensors = {
            n: torch.tensor(a, requires_grad=True) for n, a in inputs.items() if n != "lengths"
        }
        xs = tensors["xs"]
        if config.packed:
            xs = torch.nn.utils.rnn.pack_padded_sequence(
                xs, torch.tensor(inputs["lengths"]).long(), enforce_sorted=False
            )
        state = (tensors["h"], tensors["c"]) if config.kind == "LSTM" else tensors["h"]
        ys, final = net(xs, state)
        if config.packed:
            ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys)
        outputs = {"ys": ys}
        outputs |= {"h": final[0], "c": final[1]} if config.kind == "LSTM" else {"h": final}
        chosen = cotangents(outputs)
        sum((outputs[n] * torch.tensor(chosen[n])).sum() for n in outputs).backward()
        gradients = {f"weights/{n}": p.grad.numpy() for n, p in net.named_parameters()}
        gradients |= {f"inputs/{n}": t.grad.numpy() for n, t in tensors.items()}
        return {n: o.detach().numpy() for n, o in outputs.items()}, gradients

    return run


def ours(config):
    def run(weights, inputs):
        activation = dict(config.options).get("nonlinearity", "tanh")
        network, params = convert.from_pytorch(weights, activation=activation)
        names = ("h", "c") if config.kind == "LSTM" else ("h",)
        leaves = [inputs[n][i] for i in range(inputs["h"].shape[0]) for n in names]
        ys, final = run_ours(network, params, inputs["xs"], leaves, lengths=inputs.get("lengths"))
        outputs = {n: jnp.stack(final[i :: len(names)]) for i, n in enumerate(names)}
        return {"ys": ys, **outputs}

    return run


COMPARISONS = [
    Comparison(
        f"pytorch_{name}",
        ("torch",),
        weight_shapes(config),
        inputs(config),
        theirs(config),
        ours(config),
    )
    for name, config in CONFIGS.items()
]
