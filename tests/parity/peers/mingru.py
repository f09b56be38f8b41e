"""minGRU-pytorch: minGRU and minLSTM, as a whole sequence and step by step from a state."""

import jax
import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import BATCH, INPUT, TIME, Comparison, run_ours
from tests.parity.modules import through_module

CONFIGS = {
    "mingru": ("minGRU", {}),
    "mingru_projected": ("minGRU", {"expansion_factor": 2.0}),
    "mingru_steps": ("minGRU", {}),
    "minlstm": ("minLSTM", {}),
    "minlstm_projected": ("minLSTM", {"expansion_factor": 2.0}),
    "minlstm_steps": ("minLSTM", {}),
}


def weight_shapes(kind, options):
    hidden = int(INPUT * options.get("expansion_factor", 1))
    gates, name = (2, "gate") if kind == "minGRU" else (3, "f_i_gate")
    shapes = {f"to_hidden_and_{name}.weight": (gates * hidden, INPUT)}
    return shapes | ({"to_out.weight": (INPUT, hidden)} if options else {})


def inputs(steps):
    arrays = {"xs": (TIME, BATCH, INPUT)}
    return arrays | ({"h": (BATCH, INPUT)} if steps else {})


def make(kind, options):
    def module():
        from minGRU_pytorch.minGRU import minGRU
        from minGRU_pytorch.minLSTM import minLSTM

        return {"minGRU": minGRU, "minLSTM": minLSTM}[kind](INPUT, **options)

    return module


def run(steps):
    def outputs(module, tensors):
        import torch

        xs = tensors["xs"]
        if not steps:
            ys, last = module(xs.transpose(0, 1), return_next_prev_hidden=True)
            return {"ys": ys.transpose(0, 1), "h": last[:, 0]}
        h, ys = tensors["h"].exp()[:, None], []  # states are positive
        for x in xs:
            y, h = module(x[:, None], h, return_next_prev_hidden=True)
            ys.append(y[:, 0])
        return {"ys": torch.stack(ys), "h": h[:, 0]}

    return outputs


def ours(weights, inputs):
    network, params = convert.from_mingru(weights)
    if "h" in inputs:
        leaves = [jnp.exp(inputs["h"])]
    else:
        state = network.init_state(params, inputs["xs"].shape[1:-1])
        leaves = [jnp.zeros_like(leaf) for leaf in jax.tree.leaves(state)]
    ys, final = run_ours(network, params, inputs["xs"], leaves)
    return {"ys": ys, "h": final[0]}


COMPARISONS = [
    Comparison(
        name,
        ("torch", "minGRU_pytorch"),
        weight_shapes(kind, options),
        inputs(name.endswith("steps")),
        through_module(make(kind, options), run(name.endswith("steps"))),
        ours,
    )
    for name, (kind, options) in CONFIGS.items()
]
