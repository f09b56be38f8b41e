"""torchrecurrent: the cells that follow their papers, run from a state, and layers in a stack."""

import dataclasses

import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import BATCH, HIDDEN, INPUT, TIME, Comparison, run_ours
from tests.parity.modules import through_module

H = HIDDEN


@dataclasses.dataclass(frozen=True)
class Config:
    kind: str
    ih: int  # gates of weight_ih and of its bias
    hh: int  # gates of weight_hh and of its bias
    options: tuple = ()  # of the class and, for a state dict, of the converter
    extra: tuple = ()  # further weights, with their shapes
    without: tuple = ()  # weights that the cell has no counterpart for, or not at all
    states: tuple = ("h",)
    constants: tuple = ()  # weights that jaxrnn has as static options
    layers: int = 0  # the layer class around so many cells, instead of a cell


CONFIGS = {
    "antisymmetric": Config("AntisymmetricRNN", 1, 1, (("epsilon", 0.3), ("gamma", 0.2))),
    "gated_antisymmetric": Config(
        "GatedAntisymmetricRNN", 2, 1, (("epsilon", 0.3), ("gamma", 0.2))
    ),
    "br": Config("BR", 3, 2, (("bias", False),), (("weight_hh", (2 * H,)),), ("bias_ih",)),
    "nbr": Config("NBR", 3, 2, (("bias", False),), without=("bias_ih",)),
    "cornn": Config(
        "coRNN",
        1,
        1,
        (("dt", 0.2), ("gamma", 1.4), ("epsilon", 0.7)),
        (("weight_ch", (H, H)), ("bias_ch", (H,))),
        states=("h", "c"),
    ),
    "fastrnn": Config("FastRNN", 1, 1, extra=(("alpha", (1,)), ("beta", (1,)))),
    "fastrnn_relu": Config(
        "FastRNN", 1, 1, (("nonlinearity", "relu"),), (("alpha", (1,)), ("beta", (1,)))
    ),
    "fastgrnn": Config(
        "FastGRNN",
        1,
        1,
        (("nonlinearity", "sigmoid"),),
        (("zeta", (1,)), ("nu", (1,)), ("bias_ih", (2 * H,)), ("bias_hh", (2 * H,))),
    ),
    "indrnn": Config("IndRNN", 1, 1, (), (("vector_u", (H,)),), ("weight_hh",)),
    "janet": Config("JANET", 2, 2, constants=(("beta", 0.75),)),
    "mgu": Config("MGU", 2, 2),
    "multiplicative_lstm": Config(
        "MultiplicativeLSTM",
        5,
        1,
        (("bias", False), ("recurrent_bias", False)),
        (("weight_mh", (4 * H, H)), ("bias_mh", (4 * H,))),
        ("bias_ih", "bias_hh"),
        ("h", "c"),
    ),
    "mut2": Config("MUT2", 3, 3),
    "peephole_lstm": Config(
        "PeepholeLSTM", 4, 4, extra=(("weight_ph", (3 * H,)),), states=("h", "c")
    ),
    "star": Config("STAR", 2, 1),
    "star_two_layers": Config("STAR", 2, 1, layers=2),
    "trnn": Config("TRNN", 2, 2, without=("weight_hh", "bias_hh")),
    "ugrnn": Config("UGRNN", 2, 2),
    "unicornn": Config(
        "UnICORNN",
        1,
        1,
        (("dt", 0.3), ("alpha", 1.2), ("recurrent_bias", True)),
        (("weight_hh", (H,)), ("weight_ch", (H,))),
        states=("h", "c"),
    ),
    "unicornn_two_layers": Config(
        "UnICORNN",
        1,
        1,
        (("dt", 0.3), ("alpha", 1.2)),
        (("weight_hh", (H,)), ("weight_ch", (H,))),
        ("bias_hh",),
        ("h", "c"),
        layers=2,
    ),
}


def weight_shapes(config):
    def cell(inputs):
        shapes = {
            "weight_ih": (config.ih * H, inputs),
            "weight_hh": (config.hh * H, H),
            "bias_ih": (config.ih * H,),
            "bias_hh": (config.hh * H,),
        } | dict(config.extra)
        return {name: shape for name, shape in shapes.items() if name not in config.without}

    if not config.layers:
        return cell(INPUT)
    return {
        f"cells.{layer}.{name}": shape
        for layer in range(config.layers)
        for name, shape in cell(H if layer else INPUT).items()
    }


def inputs(config):
    layers = (config.layers,) if config.layers else ()
    return {"xs": (TIME, BATCH, INPUT)} | {n: (*layers, BATCH, H) for n in config.states}


def make(config):
    def module():
        import torch
        import torchrecurrent

        name = config.kind if config.layers else f"{config.kind}Cell"
        options = dict(config.options) | ({"num_layers": config.layers} if config.layers else {})
        made = getattr(torchrecurrent, name)(INPUT, H, **options)
        for constant, value in config.constants:
            with torch.no_grad():
                getattr(made, constant).copy_(value)
        return made

    return module


def run(config):
    def outputs(module, tensors):
        import torch

        state = tuple(tensors[n] for n in config.states)
        if config.kind == "JANET":
            state *= 2  # its output and its memory are the same array
        state = state if len(state) > 1 else state[0]
        if config.layers:
            ys, state = module(tensors["xs"], state)
        else:
            ys = []
            for x in tensors["xs"]:
                state = module(x, state)
                ys.append(state[0] if isinstance(state, tuple) else state)
            ys = torch.stack(ys)
        final = state if isinstance(state, tuple) else (state,)
        return {"ys": ys, **dict(zip(config.states, final, strict=False))}

    return outputs


def ours(config):
    def run(weights, inputs):
        options = {n: v for n, v in config.options if not n.endswith("bias")}
        options |= dict(config.constants)
        network, params = convert.from_torchrecurrent(weights, kind=config.kind, **options)
        leaves = [inputs[n] for n in config.states]
        if config.layers:
            leaves = [inputs[n][layer] for layer in range(config.layers) for n in config.states]
        ys, final = run_ours(network, params, inputs["xs"], leaves)
        outputs = dict(zip(config.states, final, strict=not config.layers))
        if config.layers:
            count = len(config.states)
            outputs = {n: jnp.stack(final[i::count]) for i, n in enumerate(config.states)}
        return {"ys": ys, **outputs}

    return run


COMPARISONS = [
    Comparison(
        f"torchrecurrent_{name}",
        ("torch", "torchrecurrent"),
        weight_shapes(config),
        inputs(config),
        through_module(make(config), run(config)),
        ours(config),
    )
    for name, config in CONFIGS.items()
]
