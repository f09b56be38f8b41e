"""StableHLO programs of today's version, with inputs and what they must give.

    python -m tests.support.stablehlo_files FOLDER       writes them
    OTHER_PYTHON tests/support/read_stablehlo.py FOLDER  reads them, without jaxrnn

Steps and sequences, with their weights inside and as arguments; time and batch are symbolic.
"""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from tests.support.networks import network, random_params

XS = np.random.default_rng(0).normal(size=(6, 3, 2))
NETWORKS = {
    "stack": rnn.layers.Stack((rnn.LSTM(3), rnn.GRU(4)), dropout=0.5),
    "bidirectional": network("gru", "bidirectional"),
    "affine": rnn.MinGRU(3),
    "chunked": rnn.DeltaNet(4, num_heads=2, key_size=4),
    "step of the user": rnn.from_step(
        lambda params, state, x: (0.5 * state + jnp.tanh(x @ params["kernel"]), state),
        init=lambda key, size, dtype=None: {"kernel": jnp.zeros((size, 3), dtype)},
        init_state=lambda params, batch_shape=(): jnp.zeros((*batch_shape, 3)),
        output_size=3,
    ),
}
PLATFORMS = ("cpu", "cuda")


@dataclasses.dataclass(frozen=True)
class File:
    """A program, and for each of some sizes its inputs and outputs."""

    exported: Any
    runs: list[tuple[Any, Any]]


def step_file(net: Any, params: Any, weights: bool) -> File:
    """One step, for any batch."""
    (batch,) = jax.export.symbolic_shape("batch")
    spec = jax.ShapeDtypeStruct((batch, 2), "float64")
    options: Any = dict(weights=weights, platforms=PLATFORMS)
    exported = rnn.export.to_stablehlo(net, params, spec, **options)
    runs = []
    for rows in (1, 3):
        state, x = net.init_state(params, (rows,)), jnp.asarray(XS[0, :rows])
        state = jax.tree.map(lambda leaf: leaf + 0.25, state)
        new, y = net.step(params, state, x)
        inputs = tuple(jax.tree.leaves(state)), x
        given = inputs if weights else (tuple(jax.tree.leaves(params)), *inputs)
        runs.append((given, (tuple(jax.tree.leaves(new)), y)))
    return File(exported, runs)


def sequence_file(net: Any, params: Any, weights: bool) -> File:
    """A sequence of any length, for any batch, with lengths and initial states."""
    options: Any = dict(carry=True, lengths=True, weights=weights, platforms=PLATFORMS)
    exported = rnn.export.to_stablehlo(net, params, xs=XS, **options)
    (*_, names), _ = exported.in_tree.unflatten(exported.in_avals)
    layer = net if isinstance(net, rnn.layers.Layer) else rnn.layers.Recurrent(net)
    runs = []
    for time, rows in ((6, 3), (2, 1)):
        given = {"xs": jnp.asarray(XS[:time, :rows])}
        given["lengths"] = jnp.asarray([time, 1, 0][:rows], "int32")
        rng = np.random.default_rng(time)
        for name, aval in names.items():
            if name not in given:
                shape = (rows, *aval.shape[1:])
                given[name] = jnp.asarray(rng.normal(size=shape), aval.dtype)
        own = layer.init_state(params, (rows,))
        # The fields of a state stand in one order, and a dictionary in that of its names.
        paths = [path for path, _ in jax.tree.leaves_with_path(own)]
        prefix = "layer" if isinstance(layer, rnn.layers.Stack) else "layer0_"
        labels = [
            prefix + "_".join(str(getattr(k, "name", getattr(k, "idx", k))) for k in path)
            for path in paths
        ]
        labels = [label.rstrip("_") for label in labels]
        initial = [given[f"initial_{label}"] for label in labels]
        state = jax.tree.unflatten(jax.tree.structure(own), initial)
        final, ys = layer.apply(params, state, given["xs"], lengths=given["lengths"])
        outputs = {"ys": ys} | dict(zip(labels, jax.tree.leaves(final), strict=True))
        inputs = (given,) if weights else (tuple(jax.tree.leaves(params)), given)
        runs.append((inputs, outputs))
    return File(exported, runs)


def files() -> dict[str, File]:
    """All programs by name."""
    params = {name: random_params(net) for name, net in NETWORKS.items()}
    found = {}
    for weights, where in ((True, "inside"), (False, "as arguments")):
        name = f"stack, step, weights {where}"
        found[name] = step_file(NETWORKS["stack"], params["stack"], weights)
    for number, (name, net) in enumerate(NETWORKS.items()):
        weights = number % 2 == 1
        where = "inside" if weights else "as arguments"
        found[f"{name}, sequence, weights {where}"] = sequence_file(net, params[name], weights)
    return found


def loss(leaves: list[Any]) -> Any:
    """The sum of the squares of the floating-point numbers."""
    return sum((leaf**2).sum() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating))


def write(folder: pathlib.Path) -> int:
    """Writes each program, with its gradient, and its runs as arrays without a structure."""
    folder.mkdir(parents=True, exist_ok=True)
    written = files()
    for name, file in written.items():
        data = file.exported.serialize(vjp_order=1)
        (folder / f"{name}.bin").write_bytes(data)
        for number, (inputs, outputs) in enumerate(file.runs):
            inputs, structure = jax.tree.flatten(inputs)
            floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in inputs]

            def total(moving, file=file, inputs=inputs, structure=structure, floating=floating):
                left = iter(moving)
                leaves = [next(left) if f else x for f, x in zip(floating, inputs, strict=True)]
                results = file.exported.call(*jax.tree.unflatten(structure, leaves))
                return loss(jax.tree.leaves(results))

            gradient = jax.grad(total)([x for f, x in zip(floating, inputs, strict=True) if f])
            parts = {"in": inputs, "out": jax.tree.leaves(outputs), "grad": gradient}
            arrays = {f"{k}{i}": np.asarray(x) for k, v in parts.items() for i, x in enumerate(v)}
            np.savez(folder / f"{name}.{number}.npz", **arrays)
    return len(written)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(f"{write(pathlib.Path(sys.argv[1]))} programs, written by jax {jax.__version__}")
