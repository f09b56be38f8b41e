"""Haiku: VanillaRNN, LSTM (gates i, g, f, o; 1 added to f), GRU (inverted z)."""

import jax
import jax.numpy as jnp

from jaxrnn import convert
from tests.parity.comparison import (
    BATCH,
    HIDDEN,
    INPUT,
    TIME,
    Comparison,
    run_ours,
    through_jax,
)

CORES = {
    "vanilla_rnn": "VanillaRNN",
    "lstm": "LSTM",
    "gru": "GRU",
}
CONFIGS = {name: (name,) for name in CORES} | {"lstm_on_gru": ("gru", "lstm")}


def weight_shapes(cores):
    shapes, width = {}, INPUT
    for core in cores:
        if core == "lstm":
            shapes["lstm/linear:w"] = (width + HIDDEN, 4 * HIDDEN)
            shapes["lstm/linear:b"] = (4 * HIDDEN,)
        elif core == "gru":
            shapes["gru:w_i"] = (width, 3 * HIDDEN)
            shapes["gru:w_h"] = (HIDDEN, 3 * HIDDEN)
            shapes["gru:b"] = (3 * HIDDEN,)
        else:
            for linear, rows in (("linear", width), ("linear_1", HIDDEN)):
                shapes[f"vanilla_rnn/{linear}:w"] = (rows, HIDDEN)
                shapes[f"vanilla_rnn/{linear}:b"] = (HIDDEN,)
        width = HIDDEN
    return shapes


def by_module(weights):
    params = {}
    for name, array in weights.items():
        module, own = name.split(":")
        params.setdefault(module, {})[own] = array
    return params


def names(cores):
    return [f"{n}{i}" for i, core in enumerate(cores) for n in ("hc" if core == "lstm" else "h")]


def theirs(cores):
    def run(weights, inputs):
        import haiku as hk

        def forward(xs, leaves):
            net = hk.DeepRNN([getattr(hk, CORES[core])(HIDDEN) for core in cores])
            structure = jax.tree.structure(net.initial_state(BATCH))
            return hk.dynamic_unroll(net, xs, jax.tree.unflatten(structure, leaves))

        leaves = [inputs[name] for name in names(cores)]
        apply = hk.without_apply_rng(hk.transform(forward)).apply
        ys, final = apply(by_module(weights), inputs["xs"], leaves)
        return {"ys": ys, **dict(zip(names(cores), jax.tree.leaves(final), strict=True))}

    return through_jax(run)


def ours(cores):
    def run(weights, inputs):
        network, params = convert.from_haiku(by_module(weights), cores)
        leaves = [inputs[name] for name in names(cores)]
        ys, final = run_ours(network, params, jnp.asarray(inputs["xs"]), leaves)
        return {"ys": ys, **dict(zip(names(cores), final, strict=True))}

    return run


COMPARISONS = [
    Comparison(
        f"haiku_{name}",
        ("haiku",),
        weight_shapes(cores),
        {"xs": (TIME, BATCH, INPUT), **{name: (BATCH, HIDDEN) for name in names(cores)}},
        theirs(cores),
        ours(cores),
    )
    for name, cores in CONFIGS.items()
]
