"""The engine that solves for a whole trajectory at once."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_size, is_number
from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._schedule.flat_state import FlatState, batch_rank
from jaxrnn._schedule.jacobian import Blocks, rows_are_apart, state_blocks
from jaxrnn._schedule.partition import Schedule, schedule
from jaxrnn._schedule.products import over_time
from jaxrnn._schedule.trace import (
    INPUTS,
    PARAMS,
    Step,
    canonical_step,
    is_literal,
    nested_jaxprs,
    separates_gates,
)
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines._trajectory import Knowns, NewtonInfo, Trajectory
from jaxrnn.engines._transition import Fixed, Transition
from jaxrnn.engines.sequential import Sequential

LARGEST_BLOCK = 256
"""A Jacobian of larger blocks is not formed: it is a matrix of this size at every time step."""


@frozen
class Newton:
    """Parallel in time for nonlinear cells: Newton's method on all states at once.

        d[t] = J[t] d[t-1] + f(h[t-1], x[t]) - h[t],   h ← h + d     until |h - f(h)| is small

    A step is evaluated at all times at once, and the linear recurrence takes log time steps. J, the
    Jacobian of a step, is exact, and as sparse as the cell: diagonal for `IndRNN`, `BRC` and
    `ParaGRU`, 2×2 blocks for `ParaLSTM`, dense for `GRU`, which is read off the step's equations.
    Gradients are exact, by one linear recurrence in reverse, whatever the iterations used. If the
    iterations do not converge, the loop runs instead, for the whole batch.

    This pays for few rows, long sequences and small or diagonal Jacobians, on an accelerator. A
    dense Jacobian of n elements costs n² numbers and n³ operations a step and row, against n² of
    the loop, and on a CPU the loop wins. How many iterations are needed follows from the cell's
    Lyapunov exponent (`jaxrnn.analysis.lyapunov_exponents`): a few if it is negative, as many as
    there are steps if it is positive, so that a chaotic cell falls back.

    Takes cells whose state is floating-point, real or complex. Every JAX transformation works, but
    arrays may be laid over a mesh along axes of ``AxisType.Auto`` only.

    Args:
        quasi: let the iterations see of square recurrent kernels their diagonals only, so that J is
            cheap where it is dense: a step of LSTM has 2×2 blocks. More iterations are needed;
            gradients stay exact, and take the loop's time where the exact blocks are large.
        damping: in the iterations, J is multiplied by 1 - damping, which keeps the recurrence from
            overflowing while the guess is still far away; 0 is Newton, 1 repeats plain steps.
        atol: absolute tolerance of |h - f(h)|; None is 2e-6 for float32 and 1e-12 for float64.
        rtol: tolerance relative to |h|; None is the same.
        max_iterations: the loop takes over after so many (or after as many as there are steps).

    Raises:
        TypeError, ValueError: an option has the wrong kind or value; or, when called, the cell is
            one that this engine does not take: the message says why.

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
        nothing but the recurrence. With bfloat16 parameters the state is rounded before each
        product, so that a dense cell has no derivative to speak of, and falls back.
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
        """Says why this engine refuses the work, or None if it takes it."""
        found = []
        jax.eval_shape(lambda *work: found.append(_prepare(self, cell, *work)), params, state, xs)
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
        """Runs the cell, and tells how the iterations went.

        Args:
            cell: what to run; under a mask or with starts, in `wrappers.Masked`.
            params: its parameters.
            state: the state before the first step.
            xs: inputs ``[time, *batch, ...]``.
            reverse: whether time runs backwards.
            guess: the state after each step as far as it is known, a pytree like ``state`` with
                leaves ``[time, *batch, ...]``: a warm start. It changes how many iterations are
                needed, never the result, and has no gradient. None is ``state``, repeated.

        Returns:
            ``(state, ys, info)``: the final state, all outputs, and a `NewtonInfo`.
        """
        time = jax.tree.leaves(xs)[0].shape[0]
        if time == 0:
            info = NewtonInfo(jnp.array(True), jnp.int32(0), jnp.zeros((), "float32"))
            return *Sequential()(cell, params, state, xs, reverse=reverse), info
        work = _prepare(self, cell, params, state, xs)
        if isinstance(work, str):
            raise ValueError(f"engine={self!r} cannot run this: {work}")
        plan, flat = work.plan, work.flat
        once, stacked = _hoisted(work, params, xs)
        initial = flat.pack(jax.tree.leaves(state))
        tolerance = 2e-6 if jnp.finfo(flat.dtype).bits == 32 else 1e-12
        trajectory = Trajectory(
            Transition(plan, flat),
            blocks=work.blocks if work.blocks.size <= LARGEST_BLOCK else None,
            iterated=work.iterated,
            quasi=self.quasi,
            reverse=bool(reverse),
            damping=float(self.damping),
            atol=tolerance if self.atol is None else float(self.atol),
            rtol=tolerance if self.rtol is None else float(self.rtol),
            limit=min(self.max_iterations, time),
        )
        fixed = Fixed(
            kernels=tuple(once[product.kernel] for product in plan.products),
            constants=tuple(once[v] for v in plan.constants),
            stacked=tuple(stacked[v] for v in plan.stacked),
        )
        first = _first_guess(guess, state, flat, initial, time)
        states, info = trajectory(Knowns(fixed, initial), jax.lax.stop_gradient(first))

        # What is put out is most often the state itself; else a step is taken at all times.
        old = flat.unpack(trajectory.before(states, initial))
        new = flat.unpack(states)
        known = {v: h for v, h in zip(plan.state_out, new, strict=True) if not is_literal(v)}
        known |= dict(zip(plan.state_in, old, strict=True)) | stacked
        if any(v not in known for v in plan.emitted):
            before = trajectory.before(states, initial)
            known |= trajectory.transition.everywhere(fixed, before)[1]
        stacked.update((v, known[v]) for v in plan.emitted)
        over_time(plan.after, once, stacked)
        ys = [_output(v, once, stacked, time) for v in plan.outputs]
        final = [leaf[0 if reverse else -1] for leaf in new]
        return *jax.tree.unflatten(work.step.out_tree, [*final, *ys]), info


class _Work(NamedTuple):
    """What is found out about a cell before it is run."""

    step: Step
    plan: Schedule
    flat: FlatState
    blocks: Blocks
    iterated: Blocks


def _prepare(engine: Newton, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> _Work | str:
    """The analysis of a cell, or the reason why it is not taken."""
    leaves = jax.tree.leaves(state)
    if _laid_by_type((params, state, xs)):
        return (
            "arrays are laid over a mesh in a way that types tell (axes of AxisType.Explicit, or "
            "jax.shard_map), which the iterations do not keep; use axes of AxisType.Auto, or "
            "engines.Hoisted()"
        )
    if sum(leaf.size for leaf in leaves) == 0:
        return "the state has no elements to solve for; use engines.Hoisted()"
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return (
                f"Newton's method needs a floating-point state, and a leaf of this cell's has "
                f"dtype {leaf.dtype}; use engines.Hoisted()"
            )
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    step = canonical_step(cell.step, params, state, x, separate=separates_gates())
    if step.jaxpr.effects:
        return "the step has side effects, whose order would be lost; use engines.Hoisted()"
    if any(_has_only_a_vjp(eqn) for eqn in step.jaxpr.eqns):
        return (
            "the step calls a function with jax.custom_vjp, which has no tangents to make a "
            "Jacobian of; give it jax.custom_jvp, or use engines.Hoisted()"
        )
    plan = schedule(step, len(leaves))
    rank = batch_rank(cell, params, state)
    flat = FlatState.of(leaves, rank)
    if not rows_are_apart(step, plan, flat, rank):
        return (
            "the rows of a batch act on each other (or the step uses an operation of which that "
            "cannot be told), so that their Jacobian is not one of each row; use engines.Hoisted()"
        )
    blocks = state_blocks(step, plan, flat, rank)
    iterated = state_blocks(step, plan, flat, rank, quasi=True) if engine.quasi else blocks
    if iterated.size > LARGEST_BLOCK:
        remedy = "" if engine.quasi else "engines.Newton(quasi=True) or "
        return (
            f"its Jacobian has a block of {iterated.size}x{iterated.size} numbers at every time "
            f"step and row, and {LARGEST_BLOCK} is the limit; use {remedy}engines.Hoisted()"
        )
    return _Work(step, plan, flat, blocks, iterated)


def _laid_by_type(tree: PyTree) -> bool:
    if jax.sharding.get_abstract_mesh().manual_axes:
        return True
    return any(any(jax.typeof(leaf).sharding.spec) for leaf in jax.tree.leaves(tree))


def _has_only_a_vjp(eqn: Any) -> bool:
    return eqn.primitive.name.startswith("custom_vjp") or any(
        _has_only_a_vjp(inner) for jaxpr in nested_jaxprs(eqn) for inner in jaxpr.eqns
    )


def _hoisted(work: _Work, params: PyTree, xs: PyTree) -> tuple[dict, dict]:
    """What is computed before the iterations: once, and for all time steps."""
    step, plan = work.step, work.plan

    def of_kind(wanted):
        pairs = zip(plan.jaxpr.invars, step.kinds, strict=True)
        return [v for v, kind in pairs if kind == wanted]

    once = dict(zip(of_kind(PARAMS), [*step.constants, *jax.tree.leaves(params)], strict=True))
    plan.before(once)
    stacked = dict(zip(of_kind(INPUTS), jax.tree.leaves(xs), strict=True))
    over_time(plan.inputs, once, stacked)
    return once, stacked


def _first_guess(guess: PyTree, state: PyTree, flat: FlatState, initial: Array, time: int) -> Array:
    if guess is None:
        return jnp.broadcast_to(initial, (time, *initial.shape))
    wanted = jax.tree.map(lambda leaf: (time, *leaf.shape), state)
    if jax.tree.structure(guess) != jax.tree.structure(state):
        raise TypeError(
            f"guess must be a pytree like the state, {jax.tree.structure(state)}, got "
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


def _output(v: Any, once: dict, stacked: dict, time: int) -> Array:
    if not is_literal(v) and v in stacked:
        return stacked[v]
    value = jnp.asarray(v.val, v.aval.dtype) if is_literal(v) else once[v]
    return jnp.broadcast_to(value, (time, *value.shape))
