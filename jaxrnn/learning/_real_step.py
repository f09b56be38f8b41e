"""One step of a cell as a function of real vectors, the form in which influence is a matrix.

    s' = f(θ, s, x),   y = g(θ, s', s, x)

θ are the learned arrays, s the floating-point part of the state. The output is a function of the
new state where the step computes it from that, as papers write it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jaxrnn._cell import Cell
from jaxrnn._numerics import is_dropped
from jaxrnn._schedule.dependence import dependence
from jaxrnn._schedule.flat_state import FlatState, batch_rank, is_inexact
from jaxrnn._schedule.interpret import read, run_loop
from jaxrnn._schedule.partition import Schedule, schedule
from jaxrnn._schedule.products import multiply_and_add
from jaxrnn._schedule.trace import STATE, Step, canonical_step, evaluate, is_literal
from jaxrnn._sharding import equally_varying
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import Keyed

Reals = tuple[Array, ...]  # the learned arrays; a complex one is two


class Refused(ValueError):
    """A cell that a rule does not accept."""


class State(NamedTuple):
    """A state, split into its real vector and its other leaves."""

    vector: Array  # [*batch, n]
    rest: tuple[Array, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class RealStep:
    """The step of one row, or of the whole batch where its rows cannot be separated.

    Args:
        step: the traced step.
        init: the traced initial state, ``params -> leaves``.
        flat: the layout of the state's vector.
        structure: the tree structure of the state.
        floats: which leaves of the state are floating-point.
        rank: the number of batch axes over which the step is mapped; 0 if the batch is one row.
        local: the schedule, for steps whose products pass no gradient to their operands; or None.
    """

    step: Step
    init: Any
    flat: FlatState
    structure: Any
    floats: tuple[bool, ...]
    rank: int
    local: Schedule | None

    @property
    def size(self) -> int:
        """Real numbers in the state of one row."""
        return self.flat.size

    def split_state(self, leaves: Sequence[Array]) -> State:
        """The leaves of a state as a `State`."""
        pairs = list(zip(leaves, self.floats, strict=True))
        vector = self.flat.pack([leaf for leaf, moves in pairs if moves])
        return State(vector, tuple(leaf for leaf, moves in pairs if not moves))

    def join_state(self, state: State) -> list[Array]:
        """The inverse of `split_state`."""
        moving, rest = iter(self.flat.unpack(state.vector)), iter(state.rest)
        return [next(moving) if moves else next(rest) for moves in self.floats]

    def arrays(self, params: PyTree) -> list[Any]:
        """What a step reads in addition to state and input: the constants, then the parameters."""
        return [*self.step.constants, *self.init.consts, *jax.tree.leaves(params)]

    def learned(self, flags: Iterable[bool]) -> "Learned":
        """The positions in `arrays` of those leaves of the parameters that are flagged."""
        first = len(self.arrays(()))
        return Learned(tuple(first + n for n, flag in enumerate(flags) if flag))

    def over_rows(self, function: Callable, mapped: Sequence[bool]) -> Callable:
        """Maps a function of one row over the batch; ``mapped`` says which arguments have rows."""
        axes = tuple(0 if rows else None for rows in mapped)
        for _ in range(self.rank):
            function = jax.vmap(function, in_axes=axes)
        return function

    def __call__(self, arrays: Sequence[Any], state: State, x: PyTree) -> tuple[State, list[Array]]:
        """One step of one row: ``(state, leaves of y)``."""
        results = _evaluate(self.step.jaxpr, self._operands(arrays, state, x))
        count = len(self.floats)
        return self.split_state(results[:count]), results[count:]

    def transition(self, arrays: Sequence[Any], state: State, x: PyTree) -> Array:
        """The new state's vector, through which gradients flow as the rule has it."""
        if self.local is None:
            return self(arrays, state, x)[0].vector
        plan = self.local
        env = dict(zip(plan.step.jaxpr.invars, self._operands(arrays, state, x), strict=True))
        plan.before(env)
        plan.inputs(env)

        def product(number, operand, addends):
            item = plan.products[number]
            held = jax.lax.stop_gradient(operand)
            return multiply_and_add(item, held, env[item.kernel], addends)

        run_loop(plan, env, product)
        return self.split_state([read(v, env) for v in plan.state_out]).vector

    def initial(self, arrays: Sequence[Any]) -> State:
        """The initial state of one row."""
        first = len(self.step.constants)
        consts = arrays[first : first + len(self.init.consts)]
        params = arrays[first + len(self.init.consts) :]
        state = self.split_state(evaluate_closed(self.init, [*consts, *params]))
        return equally_varying((state, arrays))[0]

    def output(self, arrays, new: State, old: State, x: PyTree) -> list[Array]:
        """The leaves of y as a function g of the new state and the rest."""
        jaxpr, (eqns, pinned) = self.step.jaxpr, self._after
        env: dict[Any, Any] = dict(zip(jaxpr.invars, self._operands(arrays, old, x), strict=True))
        leaves = zip(jaxpr.outvars, self.join_state(new), strict=False)
        env.update((v, leaf) for v, leaf in leaves if not is_literal(v) and v in pinned)
        for eqn in eqns:
            free = list(dict.fromkeys(v for v in eqn.invars if not is_literal(v)))
            results = evaluate(jaxpr, [eqn], free, eqn.outvars, [env[v] for v in free])
            found = zip(eqn.outvars, results, strict=True)
            env.update((v, result) for v, result in found if v not in pinned)
        return [read(v, env) for v in jaxpr.outvars[len(self.floats) :]]

    @property
    def output_reads_old_state(self) -> bool:
        """Whether g depends on the old state."""
        eqns, pinned = self._after
        outputs = self.step.jaxpr.outvars[len(self.floats) :]
        reads = {v for eqn in eqns for v in eqn.invars if not is_literal(v)}
        reads |= {v for v in outputs if not is_literal(v)}
        return any(v in reads - pinned for v in self.step.invars(STATE))

    @property
    def _after(self) -> tuple[list[Any], set[Any]]:
        """The equations that compute y from the new state, and the variables of that state."""
        jaxpr, count = self.step.jaxpr, len(self.floats)
        pinned = {v for v in jaxpr.outvars[:count] if not is_literal(v)} - {*jaxpr.invars}
        needed, eqns = {v for v in jaxpr.outvars[count:] if not is_literal(v)} - pinned, []
        for eqn in reversed(jaxpr.eqns):
            if needed.intersection(eqn.outvars):
                eqns.append(eqn)
                needed |= {v for v in eqn.invars if not is_literal(v)} - pinned
        return eqns[::-1], pinned

    def _operands(self, arrays: Sequence[Any], state: State, x: PyTree) -> list[Any]:
        first = len(self.step.constants)
        constants, params = arrays[:first], arrays[first + len(self.init.consts) :]
        return [*constants, *params, *self.join_state(state), *jax.tree.leaves(x)]


def real_step(cell: Cell, params: PyTree, state: PyTree, x: PyTree, *, local: bool) -> RealStep:
    """Traces one step of a cell, for arrays ``[*batch, ...]``."""
    leaves = jax.tree.leaves(state)
    if not any(map(is_inexact, leaves)):
        raise Refused(
            "the state has no floating-point numbers, so that nothing has influence on it"
        )
    rank = batch_rank(cell, params, state)
    batch = leaves[0].shape[:rank]
    if not _rows_are_separate(cell, params, state, x, rank):
        rank = 0
    row_state, row_x = jax.tree.map(lambda leaf: leaf[(0,) * rank], (state, x))
    step = canonical_step(cell.step, params, row_state, row_x, separate=False)
    own = () if rank else batch
    init = jax.make_jaxpr(lambda params: cell.init_state(params, own))(params)
    leaves = jax.tree.leaves(row_state)
    return RealStep(
        step=step,
        init=init,
        flat=FlatState.of([leaf for leaf in leaves if is_inexact(leaf)], 0),
        structure=jax.tree.structure(state),
        floats=tuple(map(is_inexact, leaves)),
        rank=rank,
        local=schedule(step) if local else None,
    )


def _rows_are_separate(cell: Cell, params: PyTree, state: PyTree, x: PyTree, rank: int) -> bool:
    """Whether a row of a step's results depends on the same row of state and input only."""
    if rank == 0:
        return True
    if isinstance(cell, Keyed):
        return False  # a draw of the whole batch
    if any(map(is_dropped, jax.tree.leaves(params, is_leaf=is_dropped))):
        return False  # parameters with a row for each row of the batch
    batch = jax.tree.leaves(state)[0].shape[:rank]
    leaves = jax.tree.leaves((state, x))
    if any(leaf.shape[:rank] != batch for leaf in leaves):
        return False
    closed = jax.make_jaxpr(cell.step)(params, state, x)
    try:  # parameters that `bind` made may have a row for each row, too
        one = jax.eval_shape(cell.step, params, *jax.tree.map(lambda a: a[(0,) * rank], (state, x)))
    except (TypeError, ValueError):
        return False
    if [leaf.shape for leaf in jax.tree.leaves(one)] != [v.shape[rank:] for v in closed.out_avals]:
        return False
    numbers = np.arange(int(np.prod(batch)))[:, None]
    digits = numbers >> np.arange(max(1, int(numbers[-1, 0]).bit_length())) & 1
    own = np.packbits(np.concatenate([digits == 0, digits == 1], axis=-1), axis=-1)

    def rows(ndim: int) -> np.ndarray:
        return own.reshape(*batch, *(1,) * (ndim - rank), -1)

    labels = [None] * len(jax.tree.leaves(params)) + [rows(leaf.ndim) for leaf in leaves]
    results = dependence(closed.jaxpr, labels, through_integers=True)
    for v, found in zip(closed.jaxpr.outvars, results, strict=True):
        if v.aval.shape[:rank] != batch:
            return False
        if found is not None and (found & ~rows(v.aval.ndim)).any():
            return False
    return True


def evaluate_closed(closed: Any, args: Sequence[Any]) -> list[Array]:
    """Evaluates a traced function, given its constants and its arguments."""
    invars = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
    return _evaluate(closed.jaxpr.replace(constvars=(), invars=invars), args)


def _evaluate(jaxpr: jex.Jaxpr, args: Sequence[Any]) -> list[Array]:
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))(*args)


# Learned arrays -----------------------------------------------------------------------------------


class Learned(NamedTuple):
    """The positions of the learned arrays among all; hashable."""

    positions: tuple[int, ...]

    def reals(self, arrays: Sequence[Any]) -> Reals:
        """The learned arrays as real ones."""
        parts = []
        for position in self.positions:
            array = arrays[position]
            parts += [array.real, array.imag] if jnp.iscomplexobj(array) else [array]
        return tuple(parts)

    def join(self, reals: Reals, arrays: Sequence[Any]) -> list[Any]:
        """All arrays, with the learned ones replaced."""
        joined, parts = list(arrays), iter(reals)
        for position in self.positions:
            first = next(parts)
            if jnp.iscomplexobj(arrays[position]):
                first = jax.lax.complex(first, next(parts))
            joined[position] = first
        return joined

    def cotangents(self, gradients: Sequence[Any], arrays: Sequence[Any]) -> dict[int, Array]:
        """Gradients with respect to `reals` as cotangents of the arrays, by position."""
        found, parts = {}, iter(gradients)
        for position in self.positions:
            array, first = arrays[position], next(parts)
            if jnp.iscomplexobj(array):
                found[position] = jax.lax.complex(first, -next(parts)).astype(array.dtype)
            else:
                found[position] = first.astype(array.dtype)
        return found
