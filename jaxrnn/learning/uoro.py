"""Unbiased online recurrent optimization: influence as one outer product."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._schedule.trace import all_eqns
from jaxrnn._typing import Array, PyTree
from jaxrnn.learning._forward import ForwardRule, run
from jaxrnn.learning._real_step import Learned, Reals, RealStep, Refused, State
from jaxrnn.learning._tracker import Cost, Sample


@frozen
class UORO(ForwardRule):
    """Unbiased online recurrent optimization: influence is estimated by one outer product.

        M ≈ s̃ θ̃ᵀ,   E[s̃ θ̃ᵀ] = M
        s̃' = ρ₀ J s̃ + ρ₁ ν,   θ̃' = θ̃ / ρ₀ + νᵀ B / ρ₁,   ν random signs
        ρ₀ = √(|θ̃| / |J s̃|),   ρ₁ = √(|νᵀ B| / |ν|)

    Each row of a batch has an estimate and draws of its own. The estimate is unbiased, and its
    variance grows with the size of the state. `jaxrnn.unroll` takes the random numbers from its
    ``key``, with which dropout and zoneout are active too.

    Raises:
        ValueError: there is no key, or the step calls a function under `jax.custom_vjp`, which has
            no tangent.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> def loss(params, key):
        ...     xs = jax.numpy.ones((20, 2, 3))
        ...     return rnn.unroll(cell, params, xs, key=key, engine=rnn.learning.UORO())[1].sum()
        >>> jax.grad(loss)(params, jax.random.key(1)).recurrent_kernel.shape
        (4, 12)

    References:
        C. Tallec and Y. Ollivier, "Unbiased online recurrent optimization", 2018, algorithm 1 and
        equations 11 to 15.
    """

    stochastic: ClassVar[bool] = True

    def track(self, sample: Sample) -> "RankOne":
        """The estimate that the rule carries."""
        step, arrays, learned, *_ = sample
        names = (eqn.primitive.name for eqn in all_eqns(step.step.jaxpr.eqns))
        if any(name.startswith("custom_vjp") for name in names):
            raise Refused(
                "UORO multiplies tangents by the Jacobian of a step, and this step calls a "
                "function with jax.custom_vjp, which has no tangent; use jax.custom_jvp instead, "
                "or learning.RTRL()"
            )
        sizes = [leaf.size for leaf in learned.reals(arrays)]
        return RankOne(step, learned, sample.from_start, sum(sizes))

    def __call__(
        self,
        cell: Cell,
        params: PyTree,
        state: PyTree,
        xs: PyTree,
        *,
        reverse: bool = False,
        key: Array | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``, with the rule's gradient."""
        if key is None:
            raise ValueError(
                "UORO draws random numbers and needs a key, got key=None; pass "
                "key=jax.random.key(...) to unroll"
            )
        return run(self, cell, params, state, xs, reverse, key)


class Estimate(NamedTuple):
    """The two factors of the influence, ``[*batch, ...]``."""

    state: Array
    theta: Reals
    start: Array | None  # the factor of the initial state


@dataclasses.dataclass(frozen=True, eq=False)
class RankOne:
    """Influence as an outer product with random signs."""

    step: RealStep
    learned: Learned
    from_start: bool
    parameters: int

    def cost(self, batch: tuple[int, ...]) -> Cost:
        """What is kept and done, without the two products of the step's derivative."""
        rows = math.prod(batch) if self.step.rank else 1
        elements = rows * (self.step.size * (1 + self.from_start) + self.parameters)
        return Cost(elements, elements * self.step.flat.dtype.itemsize, 8 * elements)

    def nothing(self, batch: tuple[int, ...], key: Array, arrays: list[Any]) -> Estimate:
        """The estimate before the first step: of the initial state's influence on itself."""
        batch, dtype = batch if self.step.rank else (), self.step.flat.dtype
        shape = (*batch, self.step.size)
        theta = [jnp.zeros((*batch, *x.shape), dtype) for x in self.learned.reals(arrays)]
        if not self.from_start:
            return Estimate(jnp.zeros(shape, dtype), tuple(theta), None)
        signs = jax.random.rademacher(key, shape, dtype)
        return Estimate(signs, tuple(theta), signs)

    def of_initial_state(self, arrays: list[Any], key: Array) -> Estimate:
        """The estimate of the influence on ``cell.init_state``, of one row."""
        dtype = self.step.flat.dtype
        signs = jax.random.rademacher(key, (self.step.size,), dtype)

        def initial(theta):
            return self.step.initial(self.learned.join(theta, arrays)).vector

        (theta,) = jax.vjp(initial, self.learned.reals(arrays))[1](signs)
        theta = tuple(leaf.astype(dtype) for leaf in theta)
        return Estimate(signs, theta, jnp.zeros_like(signs) if self.from_start else None)

    def advance(
        self, memory: Estimate, arrays: list[Any], state: State, x: PyTree, key: Array
    ) -> Estimate:
        """The estimate after a step from ``state``."""
        dtype = self.step.flat.dtype
        signs = jax.random.rademacher(key, memory.state.shape, dtype)

        def row(memory, arrays, state, x, signs):
            def transition(theta, vector):
                whole = self.learned.join(theta, arrays)
                return self.step.transition(whole, State(vector, state.rest), x)

            theta = self.learned.reals(arrays)
            moved = jax.jvp(lambda s: transition(theta, s), (state.vector,), (memory.state,))[1]
            (pushed,) = jax.vjp(lambda theta: transition(theta, state.vector), theta)[1](signs)
            pushed = tuple(leaf.astype(dtype) for leaf in pushed)
            past = (memory.theta, memory.start)
            rho = _balance(past, moved), _balance(pushed, signs)
            new = jax.tree.map(lambda a, b: a / rho[0] + b / rho[1], memory.theta, pushed)
            start = None if memory.start is None else memory.start / rho[0]
            return Estimate(rho[0] * moved + rho[1] * signs, new, start)

        over_rows = self.step.over_rows(row, (True, False, True, True, True))
        return over_rows(memory, arrays, state, x, signs)

    def contract(self, memory: Estimate, cotangent: Array) -> tuple[Reals, Array | None]:
        """``(s̄ · s̃) θ̃``, summed over the rows."""
        factor = (cotangent * memory.state).sum(axis=-1)
        rank = factor.ndim
        theta = tuple(jnp.tensordot(factor, leaf, axes=rank) for leaf in memory.theta)
        return theta, None if memory.start is None else factor[..., None] * memory.start


def _balance(theta: PyTree, state: Array) -> Array:
    """``√(|θ| / |s|)``, 1 where that is undefined: what makes the two factors equally long."""
    squared = sum((leaf * leaf).sum() for leaf in jax.tree.leaves(theta))
    squared, other = jnp.asarray(squared, state.dtype), (state * state).sum()
    defined = (squared > 0) & (other > 0)
    ratio = jnp.where(defined, squared, 1) / jnp.where(defined, other, 1)
    return ratio**0.25
