"""StableHLO programs of networks: one step, or a whole sequence."""

import contextlib
from typing import Any

import jax
import jax.export

from jaxrnn._cell import can_step, input_rank, step_with_key
from jaxrnn._platform import for_platforms
from jaxrnn._typing import PyTree
from jaxrnn.export._sequence import sequence


def to_stablehlo(
    network: Any,
    params: PyTree,
    x: PyTree = None,
    *,
    xs: PyTree = None,
    carry: bool = False,
    lengths: bool = False,
    mask: bool = False,
    starts: bool = False,
    static: tuple[str, ...] = (),
    weights: bool = True,
    platforms: tuple[str, ...] | None = None,
) -> jax.export.Exported:
    """Exports one step of a network, or its run over a sequence, as a StableHLO program.

    The caller of the program needs JAX, but not jaxrnn, and no class of it: states are tuples of
    arrays, and the inputs and outputs of a sequence are dictionaries.

    Args:
        network: a cell or a layer; for one step, layers that run forward in time.
        params: its parameters.
        x: one step's input or its `jax.ShapeDtypeStruct`; batch axes may be symbolic, from
            `jax.export.symbolic_shape`.
        xs: instead, an example of a sequence ``[time, batch, ...]``, whose dtypes and last axes are
            read: time and batch of the program are symbolic unless ``static`` names them.
        carry: whether a sequence's program takes initial states.
        lengths: whether it takes ``lengths``, int32 ``[batch]``.
        mask: whether it takes ``mask``, bool ``[time, batch]``.
        starts: whether it takes ``starts``, bool ``[time, batch]``.
        static: which of ``"time"`` and ``"batch"`` keep the size that they have in ``xs``.
        weights: whether the program contains the parameters; otherwise ``tuple(jax.tree.leaves(
            params))`` is its first argument.
        platforms: the platforms to lower for, such as ``("cpu", "cuda")``; the program contains the
            schedule of each. None is the current one.

    Returns:
        Of a step, the exported function ``(state_leaves, x) -> (state_leaves, y)``, where
        ``state_leaves`` is ``tuple(jax.tree.leaves(state))``. Of a sequence, ``inputs -> outputs``,
        dictionaries with the names of `to_onnx`: ``xs``, ``initial_layer0_hidden``, ``ys``,
        ``layer0_hidden``.
        ``.serialize(vjp_order=1)`` (requires the package flatbuffers) returns bytes for
        `jax.export.deserialize`, with gradients to this order; ``.mlir_module()`` is the text.

    Raises:
        TypeError: the network has no step function, because it needs the whole sequence.
        ValueError: both or none of x and xs are given, or an option of sequences comes with x.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.GRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> exported = rnn.export.to_stablehlo(cell, params, jnp.zeros((2, 3)))
        >>> state = cell.init_state(params, batch_shape=(2,))
        >>> leaves, y = exported.call(tuple(jax.tree.leaves(state)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)
        >>> whole = rnn.export.to_stablehlo(cell, params, xs=jnp.zeros((1, 1, 3)))
        >>> whole.call({"xs": jnp.ones((7, 2, 3))})["ys"].shape
        (7, 2, 4)
    """
    if (x is None) == (xs is None):
        raise ValueError(
            "pass either x, one step's input, or xs, an example of a sequence; got "
            + ("both" if x is not None else "neither")
        )
    options: Any = dict(carry=carry, lengths=lengths, mask=mask, starts=starts, static=static)
    if xs is not None:
        run = sequence(network, params, xs, **options)
        return _export(run.call, params, (run.inputs,), weights, platforms)
    given = [name for name, value in options.items() if value]
    if given:
        raise ValueError(f"{' and '.join(given)} belong to a sequence: pass xs instead of x")
    return _step(network, params, x, weights, platforms)


def _step(network: Any, params: PyTree, x: PyTree, weights: bool, platforms: Any) -> Any:
    if not can_step(network):
        raise TypeError(
            f"network must have a step function, got {network!r}, which needs the whole sequence: "
            "pass xs, an example of one, instead of x"
        )
    first = jax.tree.leaves(x)[0]
    batch_shape = first.shape[: len(first.shape) - input_rank(network)]
    state = jax.eval_shape(lambda params: network.init_state(params, batch_shape), params)
    leaves, structure = jax.tree.flatten(state)

    def step(params, leaves, x):
        new, y = step_with_key(network, params, jax.tree.unflatten(structure, leaves), x, None)
        return tuple(jax.tree.leaves(new)), y

    return _export(step, params, (tuple(leaves), x), weights, platforms)


def _export(function: Any, params: PyTree, inputs: tuple, weights: bool, platforms: Any) -> Any:
    leaves, structure = jax.tree.flatten(params)

    def with_leaves(leaves, *inputs):
        return function(jax.tree.unflatten(structure, leaves), *inputs)

    specs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (tuple(leaves), *inputs))
    exporting: Any = with_leaves
    if weights:
        specs, exporting = specs[1:], lambda *inputs: function(params, *inputs)
    traced_for = contextlib.nullcontext() if platforms is None else for_platforms(*platforms)
    with traced_for:
        return jax.export.export(jax.jit(exporting), platforms=platforms)(*specs)
