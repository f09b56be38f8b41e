"""A trajectory as the solution of one system of equations, and its derivative.

All states h[0], ..., h[T-1] together solve h[t] = f(h[t-1], θ), with h[-1] given. Newton's method
linearises all T equations around a guess and solves them:

    d[t] = J[t] d[t-1] + (f(h[t-1]) - h[t]),   h ← h + d,   J[t] = ∂f/∂h at h[t-1]

which is a linear recurrence. After k iterations the first k states are exact, whatever the guess.

The derivative is that of the solution, not of the iterations: a tangent obeys the recurrence
dh[t] = J[t] dh[t-1] + ∂f/∂θ dθ with J at the solution, and a gradient obeys its transpose. Both are
exact whatever stood for J in the iterations.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._schedule.jacobian import Blocks
from jaxrnn._typing import Array
from jaxrnn.engines._block_linear import block_recurrence, transposed_matrices
from jaxrnn.engines._decide import cond_for_all
from jaxrnn.engines._transition import Fixed, Transition, from_blocks, to_blocks


class NewtonInfo(NamedTuple):
    """How Newton's method ended.

    Attributes:
        converged: whether the residual came below the tolerance; if not, the trajectory is the
            loop's.
        iterations: how many were done.
        residual: the largest |h[t] - f(h[t-1])| after the last of them.
    """

    converged: Array
    iterations: Array
    residual: Array


class Knowns(NamedTuple):
    """What determines a trajectory."""

    fixed: Fixed
    initial: Array  # [*batch, n]


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Solves for all states: ``trajectory(knowns, guess) -> (states, info)``.

    Args:
        transition: f.
        blocks: those of the Jacobian; None where it is too large to be formed, so that derivatives
            are recurrences in time's order.
        iterated: the blocks that the iterations use: the same, or those of the approximation.
        quasi: whether the iterations take the approximation.
        reverse: whether time runs backwards.
        damping: J is multiplied by 1 - damping.
        atol: absolute tolerance of the residual.
        rtol: tolerance of the residual relative to |h|.
        limit: how many iterations at most.
    """

    transition: Transition
    blocks: Blocks | None
    iterated: Blocks
    quasi: bool
    reverse: bool
    damping: float
    atol: float
    rtol: float
    limit: int

    def __call__(self, knowns: Knowns, guess: Array) -> tuple[Array, NewtonInfo]:
        """Returns the states ``[time, *batch, n]`` after each step."""

        @jax.custom_jvp
        def solve(knowns, guess):
            return self._solve(knowns, guess)

        def rule(primals, tangents):
            # Asking the function itself for the states makes further derivatives right, too.
            states, info = solve(*primals)
            dstates = self._tangent(primals[0], tangents[0], states, info.converged)
            none: Any = np.zeros((), jax.dtypes.float0)  # the tangent of what is no number
            moved = NewtonInfo(none, none, jnp.zeros_like(info.residual))
            return (states, info), (dstates, moved)

        solve.defjvp(rule, symbolic_zeros=True)
        return solve(knowns, guess)

    def before(self, states: Array, initial: Array) -> Array:
        """The state before each step."""
        if self.reverse:
            return jnp.concatenate([states[1:], initial[None]])
        return jnp.concatenate([initial[None], states[:-1]])

    def _solve(self, knowns: Knowns, guess: Array) -> tuple[Array, NewtonInfo]:
        fixed, initial = knowns

        def look(states):
            """F of the states, and whether they solve the equations."""
            new = self._all_steps(fixed, self.before(states, initial))
            error = jnp.abs(new - states)
            small = (error <= self.atol + self.rtol * jnp.abs(states)).all()
            return new, small, error.max(initial=0)

        def improve(carry):
            states, new, _, _, iterations = carry
            matrices = self.transition.jacobian(
                fixed, self.before(states, initial), self.iterated, quasi=self.quasi
            )
            change = to_blocks(new - states, self.iterated, 1)
            change = block_recurrence(matrices * (1 - self.damping), change, reverse=self.reverse)
            better = states + from_blocks(change, self.iterated, 1)
            # An iterate that overflowed is begun anew from a plain step, or from the guess.
            again = jnp.where(jnp.isfinite(new), new, guess)
            better = jnp.where(jnp.isfinite(better), better, again)
            return better, *look(better), iterations + 1

        def unfinished(carry):
            _, _, done, _, iterations = carry
            return ~done & (iterations < self.limit)

        carry = guess, *look(guess), jnp.int32(0)
        states, _, done, residual, iterations = jax.lax.while_loop(unfinished, improve, carry)
        states = cond_for_all(done, lambda states, knowns: states, self._one_by_one, states, knowns)
        return states, NewtonInfo(done, iterations, residual)

    def _all_steps(self, fixed: Fixed, before: Array) -> Array:
        def at(stacked, h):
            return self.transition.step(fixed._replace(stacked=stacked), h)

        return jax.vmap(at)(fixed.stacked, before)

    def _one_by_one(self, states: Array, knowns: Knowns) -> Array:
        """All states by the loop."""
        fixed, initial = knowns

        def body(h, slices):
            stacked, _ = slices
            h = self.transition.step(fixed._replace(stacked=stacked), h)
            return h, h

        slices = (fixed.stacked, states)  # the states tell how long the loop is
        return jax.lax.scan(body, initial, slices, reverse=self.reverse)[1]

    def _tangent(self, knowns: Knowns, tangents: Knowns, states: Array, converged: Array) -> Array:
        """Dh of dh[t] = J[t] dh[t-1] + ∂f/∂θ dθ."""
        leaves, structure = jax.tree.flatten(knowns)
        moved = [_tangent_or_none(t) for t in jax.tree.leaves(tangents, is_leaf=_is_zero)]

        def f(some):
            fixed, initial = structure.unflatten(
                leaf if s is None else s for leaf, s in zip(leaves, some, strict=True)
            )
            return self.transition.everywhere(fixed, self.before(states, initial))[0]

        some = [None if t is None else leaf for leaf, t in zip(leaves, moved, strict=True)]
        _, forced = jax.jvp(f, (some,), (moved,))
        return self._linear(knowns, states, forced, converged)

    def _linear(self, knowns: Knowns, states: Array, forced: Array, converged: Array) -> Array:
        """The solution of d[t] = J[t] d[t-1] + forced[t], with J at the states.

        JAX is told that this is a linear system, and of which operator; its derivatives follow.
        """
        fixed, initial = knowns
        before = self.before(states, initial)

        def residual(d):
            shifted = self.before(d, jnp.zeros_like(initial))
            push = jax.jvp(
                lambda h: self.transition.everywhere(fixed, h)[0], (before,), (shifted,)
            )[1]
            return d - push

        def solve(_, b):
            return self._choose(converged, self._forwards, fixed, before, b)

        def transpose_solve(_, b):
            return self._choose(converged, self._backwards, fixed, before, b)

        return jax.lax.custom_linear_solve(residual, forced, solve, transpose_solve)

    def _choose(self, converged: Array, in_turn: Any, fixed: Fixed, before: Array, b: Array):
        """In parallel; in turn where that is not possible, or where products of J may overflow."""
        if self.blocks is None:
            return in_turn(fixed, before, b)
        blocks, transposed = self.blocks, in_turn == self._backwards

        def in_parallel(fixed, before, b):
            a = self.transition.jacobian(fixed, before, blocks)
            if transposed:
                a = transposed_matrices(a, reverse=self.reverse)
            d = block_recurrence(a, to_blocks(b, blocks, 1), reverse=self.reverse != transposed)
            return from_blocks(d, blocks, 1)

        return cond_for_all(converged, in_parallel, in_turn, fixed, before, b)

    def _forwards(self, fixed: Fixed, before: Array, b: Array) -> Array:
        def body(d, slices):
            stacked, h, b = slices
            push = jax.jvp(self._at(fixed, stacked), (h,), (d,))[1]
            return push + b, push + b

        slices = (fixed.stacked, before, b)
        return jax.lax.scan(body, jnp.zeros_like(b[0]), slices, reverse=self.reverse)[1]

    def _backwards(self, fixed: Fixed, before: Array, b: Array) -> Array:
        def body(pulled, slices):
            stacked, h, b = slices
            g = pulled + b
            return jax.vjp(self._at(fixed, stacked), h)[1](g)[0], g

        slices = (fixed.stacked, before, b)
        return jax.lax.scan(body, jnp.zeros_like(b[0]), slices, reverse=not self.reverse)[1]

    def _at(self, fixed: Fixed, stacked: Any):
        return lambda h: self.transition.step(fixed._replace(stacked=stacked), h)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _tangent_or_none(tangent: Any) -> Any:
    return None if _is_zero(tangent) or tangent.dtype == jax.dtypes.float0 else tangent
