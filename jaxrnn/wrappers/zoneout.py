"""States that are held at random."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_rate
from jaxrnn._cell import is_affine, is_stochastic, step_with_key
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper, split_key


@frozen
class Zoneout(Wrapper):
    """Holds each element of the state at random, where dropout would set it to zero.

        s' = d ⊙ s + (1 - d) ⊙ ŝ,    ŝ = cell.step(params, s, x),    d ~ Bernoulli(rate)

    Each part of the state is drawn for itself, at each step anew; without a key d is its
    expectation, the rate. The parts of ŝ are those of the undisturbed step: an LSTM's hidden state
    comes from its whole new cell state. What the cell gives out is read from s': if the output is a
    part of the new state, as it is for most cells, it becomes that part of s'; for an `AffineCell`
    it is the readout of s'. Integers in a state (counters) are not held.

    Args:
        cell: a cell whose output is a part of its new state, or an `AffineCell`.
        rate: the probability with which an element is held; one number for all parts of the state,
            or the state's NamedTuple of numbers, e.g. ``LSTMState(hidden=0.05, cell=0.5)``.

    Raises:
        TypeError, ValueError: a rate is no number in [0, 1); in `step`, ``rate`` has another
            structure than the state, or the output is not a part of the new state.

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
        Some implementations hold the state and yet give out the output of the undisturbed step;
        here, as in the paper, the next layer sees the held one.
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
        """Whether there is something to draw, here or in the wrapped cell."""
        return any(jax.tree.leaves(self.rate)) or is_stochastic(self.cell)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell, of which a part is held."""
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
        """``(a, b)`` of the wrapped cell without a key, of which the part ``rate`` is (1, 0)."""
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
        """Which part of the new state each part of the output is, read from the traced step."""
        traced = jax.make_jaxpr(lambda *work: self.cell.step(*work))(params, state, x).jaxpr
        casts = [eqn for eqn in traced.eqns if eqn.primitive.name == "convert_element_type"]
        count = len(jax.tree.leaves(state))
        parts, outputs = traced.outvars[:count], traced.outvars[count:]

        def find(output):
            cast = [eqn.invars[0] for eqn in casts if eqn.outvars[0] is output]
            same = [i for i, part in enumerate(parts) if part is output or part in cast]
            if not same:
                raise ValueError(
                    "Zoneout reads the output from the state that it has held, but the output of "
                    f"{type(self.cell).__name__} is not a part of its new state; put wrappers that "
                    "change the output outside, e.g. Residual(Zoneout(cell, rate)), or declare "
                    "affine and readout"
                )
            return same[0]

        return [find(output) for output in outputs]


def _hold_part(old: Array, new: Array, rate: float, key: Array | None) -> Array:
    if not jnp.issubdtype(new.dtype, jnp.inexact):
        return new
    if key is None:
        return rate * old + (1 - rate) * new
    return jnp.where(jax.random.bernoulli(key, rate, new.shape), old, new)
