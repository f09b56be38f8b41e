"""The engine that solves for all states at once, by Newton's method."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_size, is_number
from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._platform import kind_of
from jaxrnn._schedule.flat_state import FlatState, batch_rank, is_inexact
from jaxrnn._schedule.interpret import run_after, run_before, run_inputs
from jaxrnn._schedule.jacobian import Blocks, rows_are_independent, state_blocks
from jaxrnn._schedule.partition import Schedule, schedule_cell
from jaxrnn._schedule.trace import all_eqns, is_literal
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines._engine import why_not_symbolic
from jaxrnn.engines._trajectory import NewtonInfo, Trajectory
from jaxrnn.engines._transition import Transition
from jaxrnn.engines.sequential import Sequential

LARGEST_BLOCK = 256
"""Jacobians with larger blocks are not formed: a matrix of this size at every time step and row."""


@frozen
class Newton:
    """Parallel in time for nonlinear cells: Newton's method on all states at once.

        d[t] = J[t] d[t-1] + f(h[t-1], x[t]) - h[t],   h ← h + d     until |h - f(h)| is small

    A step is evaluated at all times at once, and the linear recurrence takes log time steps. J, the
    Jacobian of a step, is exact and as sparse as the cell: diagonal for `IndRNN`, `BRC` and
    `ParaGRU`, 2×2 blocks for `ParaLSTM`, dense for `GRU`; its structure is derived from the
    equations of the step. Gradients are exact, by one linear recurrence in reverse, for any number
    of iterations. If the iterations do not converge, the loop runs instead, for the whole batch.

    This pays for few rows, long sequences and small or diagonal Jacobians, on an accelerator. A
    dense Jacobian of n elements costs n² numbers and n³ operations per step and row, against n² of
    the loop, and on a CPU the loop is faster. The number of iterations depends on the largest
    Lyapunov exponent of the cell (`jaxrnn.analysis.lyapunov_exponents`): a few if it is negative,
    as many as there are steps if it is positive, so that a chaotic cell falls back to the loop.

    Accepts cells whose state is floating-point, real or complex. Supports every JAX transformation.

    Args:
        quasi: in the iterations, approximate square recurrent kernels by their diagonals, so that J
            is cheap where it is dense: a step of LSTM has 2×2 blocks. This needs more iterations;
            gradients stay exact, and take as long as the loop where the exact blocks are large.
        damping: in the iterations, J is multiplied by 1 - damping, which prevents overflow while
            the guess is far from the solution; 0 is Newton's method, 1 repeats plain steps.
        atol: absolute tolerance of |h - f(h)|; None is 2e-6 for float32 and 1e-12 for float64.
        rtol: tolerance relative to |h|; None is the same.
        max_iterations: the number of iterations (at most the number of steps) after which the loop
            runs instead.

    Raises:
        TypeError, ValueError: an option has the wrong type or value; or, when called, this engine
            cannot run the cell, with the reason.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.random.normal(jax.random.key(1), (200, 1, 3))
        >>> state = cell.init_state(params, (1,))
        >>> final, ys, info = rnn.engines.Newton().solve(cell, params, state, xs)
        >>> bool(info.converged), bool(info.iterations < 10)
        (True, True)
        >>> loop = rnn.unroll(cell, params, xs, engine=rnn.engines.Sequential())[1]
        >>> bool(abs(ys - loop).max() < 1e-5)
        True

    References:
        Y. H. Lim, Q. Zhu, J. Selfridge and M. F. Kasim, "Parallelizing non-linear sequential models
        over the sequence length", 2024 (DEER).
        X. Gonzalez, A. Warrington, J. T. H. Smith and S. W. Linderman, "Towards scalable and stable
        parallelization of nonlinear RNNs", 2024 (quasi-DEER and ELK).
        F. Danieli, P. Rodríguez, M. Sarabia, X. Suau and L. Zappella, "ParaRNN: unlocking parallel
        training of nonlinear RNNs for large language models", 2025.

    Note:
        ELK damps by a trust region, whose step is a Kalman filter; here J is scaled, which needs
        only the recurrence. With bfloat16 parameters the state is rounded before each product, so a
        dense cell is piecewise constant in it, does not converge, and falls back to the loop.
    """

    quasi: bool = False
    damping: float = 0.0
    atol: float | None = None
    rtol: float | None = None
    max_iterations: int = 100

    def __post_init__(self):
        if not isinstance(self.quasi, bool):
            raise TypeError(f"quasi must be True or False, got {self.quasi!r}")
        check_size("max_iterations", self.max_iterations)
        for name in ("damping", "atol", "rtol"):
            value = getattr(self, name)
            if value is None and name != "damping":
                continue
            if not is_number(value):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not 0 <= value <= (1 if name == "damping" else math.inf):
                wanted = "in [0, 1]" if name == "damping" else "0 or more"
                raise ValueError(f"{name} must be {wanted}, got {value!r}")

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why this engine cannot run the work, or None if it can."""
        found = []
        jax.eval_shape(lambda *work: found.append(_analyze(self, cell, *work)), params, state, xs)
        return found[0] if isinstance(found[0], str) else None

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        return self.solve(cell, params, state, xs, reverse=reverse)[:2]

    def solve(
        self,
        cell: Cell,
        params: PyTree,
        state: PyTree,
        xs: PyTree,
        *,
        reverse: bool = False,
        guess: PyTree = None,
    ) -> tuple[PyTree, PyTree, NewtonInfo]:
        """Runs the cell and reports how the iterations went.

        Args:
            cell: the cell; with a mask or starts, wrapped in `wrappers.Masked`.
            params: its parameters.
            state: the state before the first step.
            xs: inputs ``[time, *batch, ...]``.
            reverse: whether time runs backwards.
            guess: an estimate of the state after each step, a pytree like ``state`` with leaves
                ``[time, *batch, ...]``. It affects the number of iterations, not the result, and
                has no gradient. None repeats ``state``.

        Returns:
            ``(state, ys, info)``: the final state, all outputs, and a `NewtonInfo`.
        """
        time = jax.tree.leaves(xs)[0].shape[0]
        if time == 0:
            info = NewtonInfo(jnp.array(True), jnp.int32(0), jnp.zeros((), "float32"))
            return *Sequential()(cell, params, state, xs, reverse=reverse), info
        found = _analyze(self, cell, params, state, xs)
        if isinstance(found, str):
            raise ValueError(f"engine={self!r} cannot run this: {found}")
        plan, flat = found.plan, found.flat
        once = run_before(plan, params)
        operands, stacked = run_inputs(plan, once, xs)
        initial = flat.pack(jax.tree.leaves(state))
        tolerance = 2e-6 if jnp.finfo(flat.dtype).bits == 32 else 1e-12
        trajectory = Trajectory(
            Transition(plan, flat),
            blocks=found.blocks if found.blocks.size <= LARGEST_BLOCK else None,
            iterated=found.iterated,
            quasi=self.quasi,
            reverse=bool(reverse),
            damping=float(self.damping),
            atol=tolerance if self.atol is None else float(self.atol),
            rtol=tolerance if self.rtol is None else float(self.rtol),
            limit=min(self.max_iterations, time),
        )
        first = _first_guess(guess, state, flat, initial, time)
        states, info = trajectory(operands, initial, jax.lax.stop_gradient(first))

        # Outputs are most often the state itself; otherwise all steps are evaluated once more.
        before = trajectory.before(states, initial)
        new = flat.unpack(states)
        known = {v: h for v, h in zip(plan.state_out, new, strict=True) if not is_literal(v)}
        known |= dict(zip(plan.state_in, flat.unpack(before), strict=True)) | stacked
        if any(v not in known for v in plan.emitted):
            known |= trajectory.transition.all_steps(operands, before)[1]
        stacked.update((v, known[v]) for v in plan.emitted)
        ys = run_after(plan, once, stacked, time)
        final = [leaf[0 if reverse else -1] for leaf in new]
        return *jax.tree.unflatten(plan.step.out_tree, [*final, *ys]), info


class _Analysis(NamedTuple):
    """What the engine must know about a cell to run it."""

    plan: Schedule
    flat: FlatState
    blocks: Blocks
    iterated: Blocks


def _analyze(
    engine: Newton, cell: Cell, params: PyTree, state: PyTree, xs: PyTree
) -> _Analysis | str:
    """The analysis of a cell, or the reason why the engine cannot run it."""
    leaves = jax.tree.leaves(state)
    symbolic = why_not_symbolic(xs, "Newton's method", batch=True)
    if symbolic is not None:
        return symbolic
    if sum(leaf.size for leaf in leaves) == 0:
        return "the state has no elements to solve for; use engines.Hoisted()"
    for leaf in leaves:
        if not is_inexact(leaf):
            return (
                "Newton's method needs a floating-point state, and this state has a leaf of dtype "
                f"{leaf.dtype}; use engines.Hoisted()"
            )
    plan = schedule_cell(cell, params, state, xs, kind_of(params, state, xs))
    jaxpr = plan.step.jaxpr
    if jaxpr.effects:
        return "the step has side effects, whose order would be lost; use engines.Hoisted()"
    if any(eqn.primitive.name.startswith("custom_vjp") for eqn in all_eqns(jaxpr.eqns)):
        return (
            "the step calls a function with jax.custom_vjp, which has no tangent to form a "
            "Jacobian from; use jax.custom_jvp instead, or engines.Hoisted()"
        )
    rank = batch_rank(cell, params, state)
    flat = FlatState.of(leaves, rank)
    if not rows_are_independent(plan, flat, rank):
        return (
            "the rows of a batch are not independent (or the step uses an operation that could not "
            "be analyzed), so a row has no Jacobian of its own; use engines.Hoisted()"
        )
    blocks = state_blocks(plan, flat, rank)
    iterated = state_blocks(plan, flat, rank, quasi=True) if engine.quasi else blocks
    if iterated.size > LARGEST_BLOCK:
        remedy = "" if engine.quasi else "engines.Newton(quasi=True) or "
        return (
            f"its Jacobian has a block of {iterated.size}x{iterated.size} numbers at every time "
            f"step and row, and {LARGEST_BLOCK} is the limit; use {remedy}engines.Hoisted()"
        )
    return _Analysis(plan, flat, blocks, iterated)


def _first_guess(guess: PyTree, state: PyTree, flat: FlatState, initial: Array, time: int) -> Array:
    if guess is None:
        return jnp.broadcast_to(initial, (time, *initial.shape))
    wanted = jax.tree.map(lambda leaf: (time, *leaf.shape), state)
    if jax.tree.structure(guess) != jax.tree.structure(state):
        raise TypeError(
            f"guess must have the structure of the state, {jax.tree.structure(state)}, got "
            f"{jax.tree.structure(guess)}"
        )
    shapes = jax.tree.map(jnp.shape, guess)
    if shapes != wanted:
        raise ValueError(
            f"guess must hold a state for each time step, with shapes {wanted}, got {shapes}"
        )
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(guess)]
    packed = flat.pack([leaf.astype(d) for leaf, d in zip(leaves, flat.dtypes, strict=True)])
    return jnp.where(jnp.isfinite(packed), packed, initial)
