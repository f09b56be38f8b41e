"""Zoneout: states that are randomly preserved."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_rate
from jaxrnn._cell import is_affine, is_stochastic, step_with_key
from jaxrnn._frozen import frozen
from jaxrnn._sharding import sharded_as
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper, split_key


@frozen
class Zoneout(Wrapper):
    """Zoneout: randomly preserves elements of the state, where dropout would set them to zero.

        s' = d ⊙ s + (1 - d) ⊙ ŝ,    ŝ = cell.step(params, s, x),    d ~ Bernoulli(rate)

    Each part of the state has its own d, drawn at each step; without a key d is its expectation,
    the rate. ŝ is the state of the undisturbed step: an LSTM's hidden state is computed from its
    full new cell state. The output follows from s': if the output is a part of the new state, as
    for most cells, it is that part of s'; for an `AffineCell` it is the readout of s'. Integers in
    a state (counters) are not preserved.

    Args:
        cell: a cell whose output is a part of its new state, or an `AffineCell`.
        rate: the probability of preserving an element; one number for all parts of the state, or
            the state's NamedTuple of numbers, e.g. ``LSTMState(hidden=0.05, cell=0.5)``.

    Raises:
        TypeError, ValueError: a rate is not a number in [0, 1); in `step`, the structures of
            ``rate`` and state differ, or the output is not a part of the new state.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.wrappers.Zoneout(rnn.LSTM(4), rate=rnn.LSTMState(hidden=0.05, cell=0.5))
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.numpy.ones((7, 2, 3))
        >>> final, ys = rnn.unroll(cell, params, xs, key=jax.random.key(1))
        >>> bool((final.hidden == ys[-1]).all())
        True

    References:
        D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations",
        2016.

    Note:
        Some implementations preserve the state but return the output of the undisturbed step; here,
        as in the paper, the output is zoned out too.
    """

    rate: Any

    def __post_init__(self):
        super().__post_init__()
        if not jax.tree.leaves(self.rate):
            check_rate("rate", self.rate)
        for path, rate in jax.tree_util.tree_leaves_with_path(self.rate):
            check_rate(f"rate{jax.tree_util.keystr(path)}", rate)

    @property
    def stochastic(self) -> bool:
        """Whether the wrapper or the wrapped cell uses a key."""
        return any(jax.tree.leaves(self.rate)) or is_stochastic(self.cell)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell, with a part of the state preserved."""
        key, inner = split_key(key)
        new, y = step_with_key(self.cell, params, state, x, inner)
        held = self._hold(state, new, key)
        if is_affine(self.cell):
            return held, self.cell.readout(params, held, x)
        parts = jax.tree.leaves(held)
        leaves, structure = jax.tree.flatten(y)
        chosen = [parts[i] for i in self._outputs(params, state, x)]
        y = [part.astype(leaf.dtype) for part, leaf in zip(chosen, leaves, strict=True)]
        return held, jax.tree.unflatten(structure, y)

    def affine(self, params: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """``(a, b)`` of the wrapped cell, mixed with (1, 0) in proportion ``rate``."""
        a, b = super().affine(params, x)
        a = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), a, b)
        ones, zeros = jax.tree.map(jnp.ones_like, a), jax.tree.map(jnp.zeros_like, b)
        return self._hold(ones, a, None), self._hold(zeros, b, None)

    def _hold(self, old: PyTree, new: PyTree, key: Array | None) -> PyTree:
        """Mixes the parts of an old and of a new state."""
        leaves, structure = jax.tree.flatten(old)
        rates = jax.tree.leaves(self.rate)
        if isinstance(self.rate, int | float):
            rates = rates * len(leaves)
        elif jax.tree.structure(self.rate) != structure:
            raise TypeError(
                f"rate must be a number, or have the structure {structure} of the state, got "
                f"{self.rate!r}"
            )
        keys = [None] * len(leaves) if key is None else jax.random.split(key, len(leaves))
        parts = zip(leaves, jax.tree.leaves(new), rates, keys, strict=True)
        return jax.tree.unflatten(structure, [_hold_part(*part) for part in parts])

    def _outputs(self, params: PyTree, state: PyTree, x: PyTree) -> list[int]:
        """The index of the part of the new state that each output is, found in the traced step."""
        traced = jax.make_jaxpr(lambda *work: self.cell.step(*work))(params, state, x).jaxpr
        casts = [eqn for eqn in traced.eqns if eqn.primitive.name == "convert_element_type"]
        count = len(jax.tree.leaves(state))
        parts, outputs = traced.outvars[:count], traced.outvars[count:]

        def find(output):
            cast = [eqn.invars[0] for eqn in casts if eqn.outvars[0] is output]
            same = [i for i, part in enumerate(parts) if part is output or part in cast]
            if not same:
                raise ValueError(
                    "Zoneout needs a cell whose output is a part of its new state, got "
                    f"{type(self.cell).__name__}; apply wrappers that change the output outside, "
                    "e.g. Residual(Zoneout(cell, rate)), or define affine and readout"
                )
            return same[0]

        return [find(output) for output in outputs]


def _hold_part(old: Array, new: Array, rate: float, key: Array | None) -> Array:
    if not jnp.issubdtype(new.dtype, jnp.inexact):
        return new
    if key is None:
        return rate * old + (1 - rate) * new
    hold = sharded_as(jax.random.bernoulli(key, rate, new.shape), new)
    return jnp.where(hold, old, new)
