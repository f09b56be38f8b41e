"""The gradient of a rule that accumulates influence forward in time."""

import abc
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._masking import select, zero_skipped
from jaxrnn._schedule.flat_state import batch_rank, is_inexact
from jaxrnn._sharding import equally_varying, is_explicit, specs_of, with_automatic_axes
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines import Hoisted
from jaxrnn.learning._custom import Wanted, Work, explicit, with_gradient
from jaxrnn.learning._real_step import (
    Learned,
    Reals,
    RealStep,
    Refused,
    State,
    real_step,
)
from jaxrnn.learning._tracker import Cost, Sample, Tracker
from jaxrnn.wrappers.masked import Masked


class ForwardRule(abc.ABC):
    """A rule that stands where an engine stands, and accumulates influence forward in time."""

    local: ClassVar[bool] = False  # whether products pass no gradient to what they multiply
    stochastic: ClassVar[bool] = False  # whether the rule takes a key

    @abc.abstractmethod
    def track(self, sample: Sample) -> Tracker:
        """The tracker for a step, found from values of one time step."""

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why the rule cannot run the work, or None if it can."""
        found: list[str | None] = []

        def look(params, state, xs):
            try:
                found.append(_refusal(separate(cell, params, state, xs, local=self.local).step))
                if found[0] is None:
                    tracker(self, cell, params, state, xs)
            except Refused as error:
                found[:] = [str(error)]

        jax.eval_shape(look, params, state, xs)
        return found[0]

    def cost(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> Cost:
        """What the rule costs for a cell whose parameters are all learned."""
        found: list[Cost] = []

        def look(params, state, xs):
            made, batch = tracker(self, cell, params, state, xs)
            found.append(made.cost(batch))

        jax.eval_shape(look, params, state, xs)
        return found[0]

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``, with the rule's gradient."""
        return run(self, cell, params, state, xs, reverse)


def tracker(
    rule: ForwardRule, cell: Cell, params: PyTree, state: PyTree, xs: PyTree
) -> tuple[Tracker, tuple[int, ...]]:
    """The tracker of all floating-point parameters, and the batch shape."""
    step, xs, *_ = separate(cell, params, state, xs, local=rule.local)
    arrays, x = step.arrays(params), jax.tree.map(lambda leaf: leaf[0], xs)
    learned = step.learned(map(is_inexact, jax.tree.leaves(params)))
    own = step.split_state(jax.tree.leaves(state))
    return rule.track(Sample(step, arrays, learned, own, x, False)), own.vector.shape[:-1]


def _refusal(step: RealStep) -> str | None:
    if step.step.jaxpr.effects:
        return (
            "the step has side effects, which the second pass of a learning rule would repeat; use "
            "engines.Hoisted()"
        )
    return None


class Sequence(NamedTuple):
    """A step and what it is given, with masks and starts apart."""

    step: RealStep
    xs: PyTree
    valid: Array | None
    start: Array | None
    unmasked: bool  # whether the step is that of the cell inside `Masked`


def separate(cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, local: bool) -> Sequence:
    """The step of a cell, without the `Masked` around it where rows are separate."""
    rank = batch_rank(cell, params, state)
    if isinstance(cell, Masked):
        x = jax.tree.map(lambda leaf: leaf[0], xs.x)
        step = real_step(cell.cell, params, state, x, local=local)
        if step.rank == rank:
            return Sequence(step, xs.x, xs.valid, xs.start, True)
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    return Sequence(real_step(cell, params, state, x, local=local), xs, None, None, False)


def run(
    rule: ForwardRule,
    cell: Cell,
    params: PyTree,
    state: PyTree,
    xs: PyTree,
    reverse: bool,
    key: Array | None = None,
) -> tuple[PyTree, PyTree]:
    """`Hoisted`, with the gradient of a rule."""
    if is_explicit((params, state, xs)):  # the rows of a sharded batch cannot be taken one by one
        wanted = jax.eval_shape(functools.partial(Hoisted(), cell), params, state, xs)

        def automatic(params, state, xs, key):
            return run(rule, cell, params, state, xs, reverse, key)

        return with_automatic_axes(automatic, specs_of(wanted))(params, state, xs, key)
    params, state, xs, key = equally_varying((params, state, xs, key))
    given = separate(cell, params, state, xs, local=rule.local)
    refusal = _refusal(given.step)
    if refusal is not None:
        raise Refused(f"engine={rule!r} cannot run this: {refusal}")
    whole, constants = explicit(cell, params, state, xs)
    count = len(given.step.arrays(())), jax.tree.structure(params)
    layout = jax.tree.structure(xs)

    def value(work: Work):
        own = jax.tree.unflatten(count[1], work.arrays[count[0] :])
        state = jax.tree.unflatten(given.step.structure, work.state)
        inputs = jax.tree.unflatten(layout, work.xs)
        return Hoisted()(whole, (work.constants, own), state, inputs, reverse=reverse)

    def gradient(work: Work, wanted: Wanted, cotangents: tuple[PyTree, PyTree]):
        inputs: Any = jax.tree.unflatten(layout, work.xs)
        flags: Any = jax.tree.unflatten(layout, wanted.xs)
        if given.unmasked:
            sequence = given._replace(xs=inputs.x, valid=inputs.valid, start=inputs.start)
            flags, apart = flags.x, len(work.xs) - len(jax.tree.leaves(inputs.x))
        else:
            sequence, apart = given._replace(xs=inputs), 0
        dstate, dys = cotangents
        arrays, dfirst, dxs = _gradient(
            rule, sequence, work, wanted, jax.tree.leaves(flags), dstate, dys, reverse
        )
        return arrays, dfirst, [*dxs, *[None] * apart]

    work = Work(
        given.step.arrays(params), constants, jax.tree.leaves(state), jax.tree.leaves(xs), key
    )
    return with_gradient(value, gradient, work)


def _gradient(
    rule: ForwardRule,
    sequence: Sequence,
    work: Work,
    wanted: Wanted,
    wanted_xs: list[bool],
    dstate: PyTree,
    dys: PyTree,
    reverse: bool,
) -> tuple[list, list, list]:
    """Cotangents of the arrays, the initial state and the inputs."""
    step, xs, valid, start, _ = sequence
    arrays, initial = work.arrays, step.split_state(work.state)
    learned = Learned(tuple(n for n, want in enumerate(wanted.arrays) if want))
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    past = rule.track(Sample(step, arrays, learned, initial, x, wanted.state))
    batch = initial.vector.shape[:-1]
    dfinal = _real_cotangent(step, initial.vector, dstate)
    time = jax.tree.leaves(xs)[0].shape[0]
    last = _last(valid, time, batch, reverse)
    beginning = None if work.key is None else jax.random.fold_in(work.key, time)
    total = tuple(jnp.zeros(leaf.shape, step.flat.dtype) for leaf in learned.reals(arrays))

    def body(carry, slices):
        state, memory, total, of_start = carry
        t, x, valid, start, dy, last = slices
        draws = step_keys(work.key, t)
        if start is not None:
            state = select_state(start, broadcast_initial(step, arrays, start.shape), state)
            memory = restart(start, past.of_initial_state(arrays, draws[0]), memory)
        moved = past.advance(memory, arrays, state, x, draws[1])
        new = advance_state(step, arrays, state, x)
        loss = instantaneous(step, learned, arrays, new, state, x, dy)
        parts = [(moved, loss.new)]
        if step.output_reads_old_state:
            parts.append((memory, loss.old))
        total = jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, loss.theta)
        for influence, cotangent in parts:
            found, of_initial = past.contract(influence, cotangent)
            total = jax.tree.map(jnp.add, total, found)
            of_start = of_start if of_initial is None else of_start + of_initial
        dx = None
        if any(wanted_xs):
            through = loss.new + jnp.where(last[..., None], dfinal, jnp.zeros_like(dfinal))
            dx = [
                a + b
                for a, b in zip(loss.x, _of_input(step, arrays, state, x, through), strict=True)
            ]
            dx = zero_skipped(dx, valid)
        if valid is not None:
            new, moved = select_state(valid, new, state), restart(valid, moved, memory)
        return (new, moved, total, of_start), dx

    dys = [dy for dy in jax.tree.leaves(dys) if dy is not None]
    if valid is not None:
        dys = zero_skipped(dys, valid)
    carry = (initial, past.nothing(batch, beginning, arrays), total, jnp.zeros_like(initial.vector))
    slices = (jnp.arange(time), xs, valid, start, dys, last)
    carry, _ = equally_varying((carry, slices))  # the carry of a scan has one type
    (_, memory, total, of_start), dxs = jax.lax.scan(body, carry, slices, reverse=reverse)
    found, of_initial = past.contract(memory, dfinal)
    total = jax.tree.map(jnp.add, total, found)

    cotangents = learned.cotangents(total, arrays)
    dfirst: list[Any] = [None] * len(work.state)
    if of_initial is not None:
        floats = [leaf for leaf in work.state if is_inexact(leaf)]
        pulled = iter(jax.vjp(step.flat.pack, floats)[1](of_start + of_initial)[0])
        dfirst = [next(pulled) if is_inexact(leaf) else None for leaf in work.state]
    moving = iter(dxs or ())
    leaves = [next(moving) if dxs and is_inexact(leaf) else None for leaf in jax.tree.leaves(xs)]
    leaves = [d if want else None for d, want in zip(leaves, wanted_xs, strict=True)]
    return [cotangents.get(n) for n in range(len(arrays))], dfirst, leaves


def step_keys(key: Array | None, t: Array) -> Any:
    """Two keys of a step, for a row that begins there and for the step itself."""
    return (None, None) if key is None else jax.random.split(jax.random.fold_in(key, t))


def _real_cotangent(step: RealStep, vector: Array, dstate: PyTree) -> Array:
    """The cotangent of the final state as that of its vector."""
    leaves = [leaf for leaf in jax.tree.leaves(dstate) if leaf is not None]
    return jax.vjp(step.flat.unpack, vector)[1](leaves)[0]


def _last(valid: Array | None, time: int, batch: tuple[int, ...], reverse: bool) -> Array:
    """Whether a step is the last valid one of its row, ``[time, *batch]``."""
    if valid is None:
        steps = jnp.arange(time) == (0 if reverse else time - 1)
        return jnp.broadcast_to(steps.reshape(-1, *(1 for _ in batch)), (time, *batch))
    ordered = valid if reverse else jnp.flip(valid, 0)
    last = ordered & (jnp.cumsum(ordered, axis=0) == 1)
    return last if reverse else jnp.flip(last, 0)


# One step of all rows -----------------------------------------------------------------------------


class Instantaneous(NamedTuple):
    """The gradient of a step's loss through y = g(θ, s', s, x), s' and s held constant."""

    theta: Reals
    new: Array
    old: Array
    x: list[Array]


def instantaneous(
    step: RealStep, learned: Learned, arrays: list, new: State, old: State, x: PyTree, dy: list
) -> Instantaneous:
    """The gradient of one step's loss, given the cotangents of the floating-point leaves of y."""
    leaves, layout = jax.tree.flatten(x)

    def outputs(theta, new_vector, old_vector, floats):
        whole, inputs = (
            learned.join(theta, arrays),
            jax.tree.unflatten(layout, _merge(leaves, floats)),
        )
        states = new._replace(vector=new_vector), old._replace(vector=old_vector)
        over_rows = step.over_rows(step.output, (False, True, True, True))
        return [y for y in over_rows(whole, *states, inputs) if is_inexact(y)]

    floats = [leaf for leaf in leaves if is_inexact(leaf)]
    return Instantaneous(
        *jax.vjp(outputs, learned.reals(arrays), new.vector, old.vector, floats)[1](dy)
    )


def _of_input(step: RealStep, arrays: list, state: State, x: PyTree, cotangent: Array) -> list:
    """The gradient that reaches the input through the new state."""
    leaves, layout = jax.tree.flatten(x)

    def new(floats):
        return advance_state(
            step, arrays, state, jax.tree.unflatten(layout, _merge(leaves, floats))
        ).vector

    return jax.vjp(new, [leaf for leaf in leaves if is_inexact(leaf)])[1](cotangent)[0]


def _merge(leaves: list, floats: list) -> list:
    moving = iter(floats)
    return [next(moving) if is_inexact(leaf) else leaf for leaf in leaves]


def advance_state(step: RealStep, arrays: list, state: State, x: PyTree) -> State:
    """The new state of all rows."""

    def row(arrays, state, x):
        return step(arrays, state, x)[0]

    return step.over_rows(row, (False, True, True))(arrays, state, x)


def broadcast_initial(step: RealStep, arrays: list, batch: tuple[int, ...]) -> State:
    """``cell.init_state`` of all rows."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*batch, *leaf.shape)), step.initial(arrays)
    )


def select_state(where: Array, on_true: State, on_false: State) -> State:
    """Selects rows of a state."""
    return jax.tree.map(lambda a, b: select(where, a, b), on_true, on_false)


def restart(where: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Selects rows of a memory; one without batch axes is broadcast."""

    def choose(a: Array, b: Array) -> Array:
        return select(where, jnp.broadcast_to(a, b.shape), b) if b.size else b

    return jax.tree.map(choose, on_true, on_false)
