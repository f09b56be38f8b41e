"""Equinox: LSTMCell and GRUCell."""

import jax

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

GATES = {"LSTMCell": 4, "GRUCell": 3}
NAMES = {"LSTMCell": ("h", "c"), "GRUCell": ("h",)}


def weight_shapes(kind):
    rows = GATES[kind] * HIDDEN
    shapes = {"weight_ih": (rows, INPUT), "weight_hh": (rows, HIDDEN), "bias": (rows,)}
    return shapes | ({"bias_n": (HIDDEN,)} if kind == "GRUCell" else {})


def theirs(kind):
    def run(weights, inputs):
        import equinox as eqx

        cell = getattr(eqx.nn, kind)(INPUT, HIDDEN, dtype=inputs["xs"].dtype, key=jax.random.key(0))
        cell = eqx.tree_at(
            lambda c: [getattr(c, name) for name in weights], cell, list(weights.values())
        )

        def step(state, x):
            state = jax.vmap(cell)(x, state)
            return state, state[0] if kind == "LSTMCell" else state

        leaves = tuple(inputs[name] for name in NAMES[kind])
        final, ys = jax.lax.scan(step, leaves if kind == "LSTMCell" else leaves[0], inputs["xs"])
        return {"ys": ys, **dict(zip(NAMES[kind], jax.tree.leaves(final), strict=True))}

    return through_jax(run)


def ours(kind):
    def run(weights, inputs):
        network, params = convert.from_equinox(weights)
        leaves = [inputs[name] for name in NAMES[kind]]
        ys, final = run_ours(network, params, inputs["xs"], leaves)
        return {"ys": ys, **dict(zip(NAMES[kind], final, strict=True))}

    return run


COMPARISONS = [
    Comparison(
        f"equinox_{kind.lower()}",
        ("equinox",),
        weight_shapes(kind),
        {"xs": (TIME, BATCH, INPUT), **{name: (BATCH, HIDDEN) for name in NAMES[kind]}},
        theirs(kind),
        ours(kind),
    )
    for kind in GATES
]
