"""A trajectory as the solution of one system of equations, and its derivative.

The states h[0], ..., h[T-1] solve h[t] = f(h[t-1], θ), with h[-1] given. Newton's method linearizes
the T equations around a guess and solves them:

    d[t] = J[t] d[t-1] + (f(h[t-1]) - h[t]),   h ← h + d,   J[t] = ∂f/∂h at h[t-1]

which is a linear recurrence. After k iterations the first k states are exact for any guess.

The derivative is that of the solution, not of the iterations: a tangent obeys the recurrence
dh[t] = J[t] dh[t-1] + ∂f/∂θ dθ with J at the solution, and a gradient obeys its transpose. Both are
exact for any approximation of J in the iterations.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._schedule.interpret import Operands
from jaxrnn._schedule.jacobian import Blocks
from jaxrnn._schedule.tangents import push_nonzero, zero_tangent
from jaxrnn._sharding import equally_varying
from jaxrnn._typing import Array
from jaxrnn.engines._block_linear import block_recurrence, transposed_matrices
from jaxrnn.engines._transition import Transition, from_blocks, to_blocks


class NewtonInfo(NamedTuple):
    """The outcome of Newton's method.

    Attributes:
        converged: whether the residual is below the tolerance; if not, the trajectory was computed
            by the loop.
        iterations: the number of iterations.
        residual: the largest |h[t] - f(h[t-1])| after the last iteration.
    """

    converged: Array
    iterations: Array
    residual: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Solves for all states: ``trajectory(operands, initial, guess) -> (states, info)``.

    Args:
        transition: f.
        blocks: the blocks of the Jacobian; None where they are too large to be formed, so that
            derivatives are computed step by step.
        iterated: the blocks in the iterations: the same, or those of the approximation.
        quasi: whether the iterations use the approximation.
        reverse: whether time runs backwards.
        damping: J is multiplied by 1 - damping.
        atol: absolute tolerance of the residual.
        rtol: tolerance of the residual relative to |h|.
        limit: the largest number of iterations.
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

    def __call__(
        self, operands: Operands, initial: Array, guess: Array
    ) -> tuple[Array, NewtonInfo]:
        """Returns the states ``[time, *batch, n]`` after each step, from ``[*batch, n]``."""

        @jax.custom_jvp
        def solve(given, guess):
            operands, initial = given
            return self._solve(operands, initial, guess)

        def rule(primals, tangents):
            # The states come from the differentiable function: further derivatives are right, too.
            states, info = solve(*primals)
            dstates = self._tangent(primals[0], tangents[0], states, info.converged)
            return (states, info), (dstates, jax.tree.map(zero_tangent, info))

        solve.defjvp(rule, symbolic_zeros=True)
        return solve((operands, initial), guess)

    def before(self, states: Array, initial: Array) -> Array:
        """The state before each step."""
        if self.reverse:
            return jnp.concatenate([states[1:], initial[None]])
        return jnp.concatenate([initial[None], states[:-1]])

    def _solve(self, operands: Operands, initial: Array, guess: Array) -> tuple[Array, NewtonInfo]:
        all_steps = jax.vmap(lambda stacked, h: self._at(operands, stacked)(h))

        def evaluate(states):
            """F of the states, and whether they solve the equations."""
            new = all_steps(operands.stacked, self.before(states, initial))
            error = jnp.abs(new - states)
            small = (error <= self.atol + self.rtol * jnp.abs(states)).all()
            return new, small, error.max(initial=0)

        def iterate(carry):
            states, new, _, _, iterations = carry
            matrices = self.transition.jacobian(
                operands, self.before(states, initial), self.iterated, quasi=self.quasi
            )
            change = to_blocks(new - states, self.iterated, 1)
            change = block_recurrence(matrices * (1 - self.damping), change, reverse=self.reverse)
            better = states + from_blocks(change, self.iterated, 1)
            # Elements that overflowed restart from a plain step, or from the guess.
            restart = jnp.where(jnp.isfinite(new), new, guess)
            better = jnp.where(jnp.isfinite(better), better, restart)
            return better, *evaluate(better), iterations + 1

        def unfinished(carry):
            _, _, done, _, iterations = carry
            return ~done & (iterations < self.limit)

        carry = equally_varying((guess, *evaluate(guess), jnp.int32(0)))
        states, _, done, residual, iterations = jax.lax.while_loop(unfinished, iterate, carry)
        states = cond_for_all(
            done, lambda states, *_: states, self._step_by_step, states, operands, initial
        )
        return states, NewtonInfo(done, iterations, residual)

    def _step_by_step(self, states: Array, operands: Operands, initial: Array) -> Array:
        """All states by the loop."""

        def body(h, slices):
            stacked, _ = slices
            h = self._at(operands, stacked)(h)
            return h, h

        slices = (operands.stacked, states)  # the states give the number of steps
        return jax.lax.scan(body, initial, slices, reverse=self.reverse)[1]

    def _tangent(self, given: Any, tangents: Any, states: Array, converged: Array) -> Array:
        """Dh of dh[t] = J[t] dh[t-1] + ∂f/∂θ dθ."""

        def f(operands, initial):
            return self.transition.all_steps(operands, self.before(states, initial))[0]

        _, increments = push_nonzero(f, given, tangents)
        operands, initial = given
        return self._solve_linear(operands, initial, states, increments, converged)

    def _solve_linear(
        self,
        operands: Operands,
        initial: Array,
        states: Array,
        increments: Array,
        converged: Array,
    ) -> Array:
        """The solution of d[t] = J[t] d[t-1] + increments[t], with J at the states.

        Declared as a linear system with its operator, from which JAX derives the derivatives.
        """
        before = self.before(states, initial)

        def residual(d):
            shifted = self.before(d, jnp.zeros_like(initial))
            push = jax.jvp(
                lambda h: self.transition.all_steps(operands, h)[0], (before,), (shifted,)
            )[1]
            return d - push

        def solve(_, b):
            return self._solve_by(self._forwards, converged, operands, before, b)

        def transpose_solve(_, b):
            return self._solve_by(self._backwards, converged, operands, before, b)

        return jax.lax.custom_linear_solve(residual, increments, solve, transpose_solve)

    def _solve_by(self, loop: Any, converged: Array, operands: Operands, before: Array, b: Array):
        """In parallel; by the loop where J is too large, or where products of J may overflow."""
        if self.blocks is None:
            return loop(operands, before, b)
        blocks, transposed = self.blocks, loop == self._backwards

        def in_parallel(operands, before, b):
            a = self.transition.jacobian(operands, before, blocks)
            if transposed:
                a = transposed_matrices(a, reverse=self.reverse)
            d = block_recurrence(a, to_blocks(b, blocks, 1), reverse=self.reverse != transposed)
            return from_blocks(d, blocks, 1)

        return cond_for_all(converged, in_parallel, loop, operands, before, b)

    def _forwards(self, operands: Operands, before: Array, b: Array) -> Array:
        def body(d, slices):
            stacked, h, b = slices
            push = jax.jvp(self._at(operands, stacked), (h,), (d,))[1]
            return push + b, push + b

        slices = (operands.stacked, before, b)
        return jax.lax.scan(body, jnp.zeros_like(b[0]), slices, reverse=self.reverse)[1]

    def _backwards(self, operands: Operands, before: Array, b: Array) -> Array:
        def body(pulled, slices):
            stacked, h, b = slices
            g = pulled + b
            return jax.vjp(self._at(operands, stacked), h)[1](g)[0], g

        slices = (operands.stacked, before, b)
        return jax.lax.scan(body, jnp.zeros_like(b[0]), slices, reverse=not self.reverse)[1]

    def _at(self, operands: Operands, stacked: Any) -> Callable[[Array], Array]:
        return lambda h: self.transition.step(operands._replace(stacked=stacked), h)


def cond_for_all(
    predicate: Array, on_true: Callable[..., Any], on_false: Callable[..., Any], *operands: Any
) -> Any:
    """`jax.lax.cond` with one decision under `jax.vmap`: true where all predicates are true.

    Under `jax.vmap`, a `jax.lax.cond` with a mapped predicate computes both branches and selects.
    Here the predicate is reduced first, so that a branch that is not taken costs nothing. Each
    branch must be right for all members whenever it is taken for one.
    """

    @jax.custom_batching.custom_vmap
    def decide(predicate, *operands):
        return jax.lax.cond(predicate, on_true, on_false, *operands)

    @decide.def_vmap
    def mapped(axis_size, is_mapped, predicate, *operands):
        axes = jax.tree.map(lambda mapped: 0 if mapped else None, tuple(is_mapped[1:]))
        if is_mapped[0]:
            predicate = predicate.all()
        branches = (
            jax.vmap(branch, in_axes=axes, axis_size=axis_size) for branch in (on_true, on_false)
        )
        out = cond_for_all(predicate, *branches, *operands)
        return out, jax.tree.map(lambda _: True, out)

    return decide(predicate, *operands)
