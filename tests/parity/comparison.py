"""Comparisons with another framework, run live or stored in a golden file.

A peer defines each comparison once: the shapes of its weights under the peer's own names, the
inputs, how the peer computes, and how jaxrnn computes from the same weights by `jaxrnn.convert`.
The peer's side returns a record, a flat mapping of arrays

    weights/...  inputs/...  cotangents/...  outputs/...
    gradients/weights/...  gradients/inputs/...

which is either checked at once or read back from a file. Gradients are those of the sum of
outputs * cotangents; conversions are differentiated too, so all gradients have the
peer's names. Weights, biases included, and initial states are random.
"""

import importlib
import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn

TIME, BATCH, INPUT, HIDDEN, PROJECTION = 4, 3, 2, 3, 2
LENGTHS = np.array([2, 4, 1], np.int32)
VALID = np.arange(TIME)[:, None] < LENGTHS

Arrays = dict[str, Any]
Cotangents = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]


class Comparison(NamedTuple):
    """One configuration of one peer.

    ``inputs`` holds shapes of what is drawn (floating point), or arrays as they are (lengths).
    ``theirs(weights, inputs, cotangents)`` gives outputs and gradients, the latter None for a peer
    that has none. ``ours(weights, inputs)`` is JAX, and gives the same outputs. ``tolerance`` is
    for float64, larger where a peer has float32 inside; ``single`` is for float32.
    """

    name: str
    needs: tuple[str, ...]
    weights: dict[str, tuple[int, ...]]
    inputs: dict[str, Any]
    theirs: Callable[[Arrays, Arrays, Cotangents], tuple[Arrays, Arrays | None]]
    ours: Callable[[Arrays, Arrays], Arrays]
    tolerance: float = 1e-10
    single: float = 1e-5

    def require(self) -> None:
        """Skips the test, and says why, where the peer is not installed."""
        for module in self.needs:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    importlib.import_module(module)
            except ImportError:
                pytest.skip(f"{module} is not installed; see the extras parity and trained")


def draw(comparison: Comparison, dtype: Any) -> dict[str, np.ndarray]:
    """The weights and inputs of a comparison; the same on every machine."""
    rng = np.random.default_rng(zlib.crc32(comparison.name.encode()))
    drawn = {}
    for kind, arrays in (("weights", comparison.weights), ("inputs", comparison.inputs)):
        for name, what in arrays.items():
            array = what if isinstance(what, np.ndarray) else rng.normal(size=what, scale=0.7)
            if not isinstance(what, np.ndarray):
                array = array.astype(dtype)
            drawn[f"{kind}/{name}"] = array
    return drawn


def record(comparison: Comparison, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """What the peer computes."""
    drawn = draw(comparison, dtype)
    rng = np.random.default_rng(0)
    cotangents = {}

    def cotangents_of(outputs):
        for name in sorted(outputs):
            shape = tuple(outputs[name].shape)
            cotangents[name] = rng.normal(size=shape).astype(dtype)
        return cotangents

    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")  # the peers' own
        outputs, gradients = comparison.theirs(
            under(drawn, "weights"), under(drawn, "inputs"), cotangents_of
        )
    whole = dict(drawn)
    whole |= {f"outputs/{name}": np.array(array) for name, array in outputs.items()}
    if gradients is not None:
        whole |= {f"cotangents/{name}": array for name, array in cotangents.items()}
        whole |= {f"gradients/{name}": np.array(array) for name, array in gradients.items()}
    return whole


def check(comparison: Comparison, kept: Mapping[str, np.ndarray], tolerance: float) -> None:
    """Compares jaxrnn's values and all gradients with a record, relative to their scale."""
    arrays = {name: jnp.asarray(array) for name, array in kept.items()}
    differentiable = {
        name: array
        for name, array in arrays.items()
        if name.startswith(("weights/", "inputs/")) and jnp.issubdtype(array.dtype, jnp.floating)
    }

    @jax.jit
    def ours(chosen):
        everything = arrays | chosen
        return comparison.ours(under(everything, "weights"), under(everything, "inputs"))

    outputs, pull_back = jax.vjp(ours, differentiable)
    wanted = under(kept, "outputs")
    assert outputs.keys() == wanted.keys()
    for name in wanted:
        close(f"outputs/{name}", outputs[name], wanted[name], tolerance)
    wanted = under(kept, "gradients")
    if wanted:
        (gradients,) = pull_back(under(arrays, "cotangents"))
        assert gradients.keys() == wanted.keys()
        for name in wanted:
            close(f"gradients/{name}", gradients[name], wanted[name], tolerance)


def close(name: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Fails unless the largest difference is within the tolerance of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape}, the peer has {theirs.shape}"
    assert ours.dtype == theirs.dtype, f"{name}: {ours.dtype}, the peer has {theirs.dtype}"
    scale = np.abs(theirs).max() or 1.0
    error = np.abs(ours - theirs).max() / scale
    assert error <= tolerance, f"{name} differs by {error:.1e} of its scale {scale:.1e}"


def under(arrays: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The entries ``kind/...``, without that prefix."""
    return {n.removeprefix(f"{kind}/"): a for n, a in arrays.items() if n.startswith(f"{kind}/")}


def through_jax(function: Callable[[Arrays, Arrays], Arrays]):
    """The peer's side of a comparison for peers that are JAX functions themselves."""

    def theirs(weights, inputs, cotangents):
        arrays = {f"weights/{n}": a for n, a in weights.items()}
        arrays |= {f"inputs/{n}": a for n, a in inputs.items()}
        fixed = {n: a for n, a in arrays.items() if a.dtype.kind != "f"}
        moving = {n: jnp.asarray(a) for n, a in arrays.items() if a.dtype.kind == "f"}

        def run(moving):
            everything = moving | fixed
            return function(under(everything, "weights"), under(everything, "inputs"))

        outputs, pull_back = jax.vjp(run, moving)
        chosen = {name: jnp.asarray(array) for name, array in cotangents(outputs).items()}
        return outputs, pull_back(chosen)[0]

    return theirs


def run_ours(network: Any, params: Any, xs: Any, leaves: list[Any], **options: Any):
    """Runs a network from a state given leaf by leaf; returns ys and the final state's leaves.

    A stack's state lists its layers in order, a layer's its directions, an LSTM's hidden and cell.
    """
    structure = jax.tree.structure(network.init_state(params, xs.shape[1:-1]))
    state = jax.tree.unflatten(structure, leaves)
    if isinstance(network, rnn.layers.Layer):
        final, ys = network.apply(params, state, xs, **options)
    else:
        final, ys = rnn.unroll(network, params, xs, state, **options)
    return ys, jax.tree.leaves(final)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Keys ``outer/inner`` as a nest of dicts."""
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *outer, inner = name.split("/")
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
        node[inner] = array
    return tree
