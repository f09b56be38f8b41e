"""Gradients of braintrace, an online-learning library, recorded for comparison.

python -m tests.learning.braintrace_peer    writes braintrace.safetensors, beside this file

Its D-RTRL moves influence on through what remains of a step when its products are cut, which is
what `EProp` does, and, for cells with one state a unit, `RFLO`. For a cell without recurrent
products, such as the LRU, that is exact. Its SnAp(1) is `SnAp(1)`, and SnAp(2) of a dense cell is
RTRL. Two things are left out. A gate that acts through another product (the reset gate of its GRU)
has no gradient there. And its LSTM counts the path through the cell state twice, in version 0.2.8:
after one step, where every rule is exact, it has twice the gradient.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

import jaxrnn as rnn
from jaxrnn.learning import RFLO, RTRL, EProp, SnAp

FILE = pathlib.Path(__file__).parent / "braintrace.safetensors"
TIME, INPUT, H = 7, 3, 4


class Peer(NamedTuple):
    """A cell of braintrace and ours, and which of our rules each of its rules is."""

    shapes: dict[str, tuple[int, ...]]  # of its weights
    outputs: int
    rules: dict[str, tuple[Any, ...]]

    def xs(self) -> np.ndarray:
        """The inputs."""
        return np.random.default_rng(0).normal(size=(TIME, INPUT))

    def dys(self) -> np.ndarray:
        """The gradient of the loss with respect to the outputs."""
        return np.random.default_rng(1).normal(size=(TIME, self.outputs))

    def weights(self) -> dict[str, np.ndarray]:
        """Random weights, biases among them."""
        draws = np.random.default_rng(2)
        return {name: draws.normal(size=s) / 2 for name, s in self.shapes.items()}


def dense(name: str, rows: int, columns: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns)}
    return shapes | ({f"{name}.bias": (columns,)} if bias else {})


LOCAL = (EProp(), RFLO())
DENSE = {"D_RTRL": LOCAL, "SnAp(1)": (SnAp(1),), "SnAp(2)": (SnAp(2), RTRL())}
PEERS = {
    "ValinaRNNCell": Peer(dense("W", INPUT + H, H), H, DENSE),
    "GRUCell": Peer(
        dense("Wz", INPUT + H, H) | dense("Wr", INPUT + H, H) | dense("Wh", INPUT + H, H), H, DENSE
    ),
    "LRUCell": Peer(
        {name: (H,) for name in ("nu_log", "theta_log", "gamma_log")}
        | dense("B_re", INPUT, H, bias=False)
        | dense("B_im", INPUT, H, bias=False)
        | dense("C_re", H, INPUT, bias=False)
        | dense("C_im", H, INPUT, bias=False)
        | {"D": (INPUT,)},
        INPUT,
        {"D_RTRL": (RTRL(), SnAp(2))},
    ),
}
CASES = [(cell, rule) for cell, peer in PEERS.items() for rule in peer.rules]


def ours(cell: str, w: dict[str, Any]) -> tuple[Any, Any]:
    """Our cell and its parameters, made of a peer's weights."""
    if cell == "ValinaRNNCell":
        kernel = w["W.weight"]
        return rnn.Elman(H), rnn.cells.elman.ElmanParams(
            kernel[:INPUT], kernel[INPUT:], w["W.bias"]
        )
    if cell == "GRUCell":  # its update gate is 1 - z
        kernel = jnp.concatenate([w["Wr.weight"], -w["Wz.weight"], w["Wh.weight"]], axis=1)
        bias = jnp.concatenate([w["Wr.bias"], -w["Wz.bias"], w["Wh.bias"]])
        params = rnn.cells.gru.ResetBeforeGRUParams(kernel[:INPUT], kernel[INPUT:], bias)
        return rnn.ResetBeforeGRU(H), params
    b = jnp.concatenate([w["B_re.weight"], w["B_im.weight"]], axis=1)
    c = jnp.concatenate([w["C_re.weight"], w["C_im.weight"]])
    logs = w["nu_log"], w["theta_log"], w["gamma_log"]
    return rnn.LRU(H, INPUT), rnn.cells.lru.LRUParams(*logs, b, c, jnp.diag(w["D"]))


def record(cell: str, rule: str) -> dict[str, np.ndarray]:
    """The gradient of each weight, by braintrace."""
    import brainstate
    import braintrace

    peer = PEERS[cell]
    brainstate.environ.set(precision=64)
    options = {"activation": "tanh"} if cell != "LRUCell" else {}
    model = getattr(braintrace.nn, cell)(INPUT, H, **options)
    weights = {name: jnp.asarray(value) for name, value in peer.weights().items()}
    for path, state in model.states(brainstate.ParamState).items():
        names = ".".join(map(str, (path if isinstance(path, tuple) else (path,))[:1]))
        value = state.value
        state.value = (
            {leaf: weights[f"{names}.{leaf}"] for leaf in value}
            if isinstance(value, dict)
            else weights[names]
        )
    name, _, order = rule.partition("(")
    own = {"n": int(order[:-1])} if order else {}
    xs, dys = jnp.asarray(peer.xs()), jnp.asarray(peer.dys())
    learner = braintrace.compile(model, getattr(braintrace, name), xs[0], **own)
    found = learner.etrace_grad(
        xs, dys, step_fn=lambda x, dy: (learner(x) * dy).sum(), reduction="sum"
    )
    gradients = {}
    for path, value in found.items():
        first = str(path[0] if isinstance(path, tuple) else path)
        leaves = value if isinstance(value, dict) else {None: value}
        for leaf, array in leaves.items():
            gradients[first if leaf is None else f"{first}.{leaf}"] = np.asarray(array)
    return gradients


def main() -> None:
    """Writes the file."""
    jax.config.update("jax_enable_x64", True)
    arrays = {
        f"{cell} {rule} {name}": array
        for cell, rule in CASES
        for name, array in record(cell, rule).items()
    }
    FILE.write_bytes(safetensors.numpy.save(arrays))


if __name__ == "__main__":
    main()
