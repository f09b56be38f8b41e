"""memax: its Equinox layers that follow their papers, with starts, and models of two layers."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import convert
from tests.parity.comparison import BATCH, HIDDEN, INPUT, TIME, Comparison, run_ours, through_jax

H = HIDDEN
STARTS = np.zeros((TIME, BATCH), bool)
STARTS[2, 1] = STARTS[3, 2] = True
OUTPUT = 5


def gates(inputs, recurrent, size=H, recurrent_bias=False):
    algebra = "algebra.algebra."
    shapes = {f"{algebra}W_{k}.weight": (size, size) for k in inputs}
    shapes |= {f"{algebra}W_{k}.bias": (size,) for k in inputs}
    shapes |= {f"{algebra}U_{k}.weight": (size, size) for k in recurrent}
    return shapes | ({f"{algebra}U_{k}.bias": (size,) for k in recurrent} if recurrent_bias else {})


LAYERS = {
    "GRU": gates("zrh", "zrh"),
    "MGU": gates("fh", "fh"),
    "Elman": gates("", "h", recurrent_bias=True)
    | {"W_h.weight": (H, H), "W_y.weight": (H, H), "W_y.bias": (H,)},
    "LRU": {
        **dict.fromkeys(("nu_log", "theta_log", "gamma_log", "D"), (H,)),
        **dict.fromkeys(("B_re", "B_im", "C_re", "C_im"), (H, H)),
    },
}
MODELS = ("GRU", "Elman", "LRU")


def model_shapes(kind):
    shapes = {
        "map_in.weight": (H, INPUT),
        "map_in.bias": (H,),
        "map_out.weight": (OUTPUT, H),
        "map_out.bias": (OUTPUT,),
    }
    for layer in range(2):
        shapes |= {f"layers.{layer}.{n}": shape for n, shape in LAYERS[kind].items()}
        shapes |= {f"ff.{layer}.layers.0.weight": (H, H), f"ff.{layer}.layers.0.bias": (H,)}
    return shapes


def layer(kind):
    family = "semigroups" if kind == "LRU" else "set_actions"
    module = importlib.import_module(f"memax.equinox.{family}.{kind.lower()}")
    options = {"hidden_size": H} if kind in ("Elman", "LRU") else {}
    return getattr(module, kind)(recurrent_size=H, key=jax.random.key(0), **options)


def model(kind):
    from memax.equinox.models.residual import ResidualModel

    def make_layer(recurrent_size, key):
        return layer(kind)

    return ResidualModel(make_layer, INPUT, OUTPUT, H, key=jax.random.key(0))


def load(module, weights):
    """The module with these arrays, which must be all that it has."""
    flat, structure = jax.tree_util.tree_flatten_with_path(module)
    leaves = []
    left = dict(weights)
    for path, leaf in flat:
        name = ".".join(str(getattr(k, "name", getattr(k, "idx", k))) for k in path)
        leaves.append(left.pop(name) if name in left else leaf)
    assert not left, left.keys()
    return jax.tree.unflatten(structure, leaves)


def run(make, kind):
    def outputs(weights, inputs):
        module = load(make(kind), weights)

        def row(xs, starts):
            return module(module.initialize_carry(), (xs, starts))[1]

        ys = jax.vmap(row, (1, 1), 1)(inputs["xs"], jnp.asarray(inputs["starts"]))
        return {"ys": ys.astype(inputs["xs"].dtype)}  # its initial carry is float64

    return through_jax(outputs)


def ours(weights, inputs):
    network, params = convert.from_memax(weights)
    state = network.init_state(params, inputs["xs"].shape[1:-1])
    leaves, starts = jax.tree.leaves(state), inputs["starts"]
    return {"ys": run_ours(network, params, inputs["xs"], leaves, starts=starts)[0]}


def comparison(name, kind, make, shapes, size):
    return Comparison(
        f"memax_{name}",
        ("equinox", "memax.equinox"),
        shapes,
        {"xs": (TIME, BATCH, size), "starts": STARTS},
        run(make, kind),
        ours,
        1e-5 if kind == "LRU" else 1e-10,  # memax's LRU is complex64
        1e-4,  # normalizations of few features amplify the rounding
    )


COMPARISONS = [
    *(comparison(kind.lower(), kind, layer, LAYERS[kind], H) for kind in LAYERS),
    *(comparison(f"{k.lower()}_two_layers", k, model, model_shapes(k), INPUT) for k in MODELS),
]
