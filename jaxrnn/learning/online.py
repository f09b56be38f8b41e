"""Learning from a stream, step by step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxrnn import _validation as checks
from jaxrnn._arguments import brief, check_key
from jaxrnn._cell import Cell, bind_with_key, is_stochastic
from jaxrnn._frozen import frozen
from jaxrnn._masking import MaskedInput, safe_inputs, zero_skipped
from jaxrnn._schedule.dependence import dependence
from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._sharding import equally_varying, specs_of, with_automatic_axes
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import Keyed, key_of_rule, key_of_sequence, settled
from jaxrnn.engines import Hoisted
from jaxrnn.learning._forward import (
    ForwardRule,
    Sequence,
    broadcast_initial,
    instantaneous,
    restart,
    select_state,
    separate,
    step_keys,
)
from jaxrnn.learning._real_step import RealStep
from jaxrnn.learning._stream import (
    Last,
    Stream,
    automatically,
    batch_shape,
    input_like,
    one,
    pulled,
    pushed,
    specs_of_rows,
)
from jaxrnn.learning._tracker import Sample, Tracker
from jaxrnn.learning.tbptt import TBPTT
from jaxrnn.wrappers.masked import Masked


@frozen
class Online:
    """Learns from a stream: one step at a time, in memory that does not grow.

        carry = learner.init(params, state)
        carry, y = learner.step(params, carry, x)            for each x of the stream
        gradient = learner.gradient(params, carry, dloss_dy)

    ``gradient`` is that of the loss of the last step with respect to the parameters, through all
    steps so far as the rule has it. With constant parameters the sum over all steps is what
    `jaxrnn.unroll` with ``engine=rule`` has. The parameters may change at any step, as in the
    papers: influence then mixes derivatives at former parameters.

    A stream with episodes is a stream of `jaxrnn.wrappers.Masked`: its inputs are
    ``MaskedInput(x, valid, start)``.

    Args:
        cell: the cell; a `jaxrnn.layers.Stack` of unidirectional layers is one.
        rule: a rule from `jaxrnn.learning`. `TBPTT` keeps the last ``window`` states and inputs,
            and goes back from each step.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> learner = rnn.learning.Online(rnn.LRU(8), rnn.learning.RTRL())
        >>> params = learner.cell.init(jax.random.key(0), input_size=3)
        >>> carry = learner.init(params, learner.cell.init_state(params))
        >>> for x in jax.random.normal(jax.random.key(1), (10, 3)):
        ...     carry, y = learner.step(params, carry, x)
        ...     gradient = learner.gradient(params, carry, 2 * (y - 1))
        ...     params = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
    """

    cell: Cell
    rule: ForwardRule | TBPTT

    def __post_init__(self):
        checks.check_cell(self.cell)
        if not isinstance(self.rule, ForwardRule | TBPTT):
            raise TypeError(
                f"rule must be a rule from jaxrnn.learning, got {brief(self.rule)}; pass e.g. "
                "rule=jaxrnn.learning.RTRL()"
            )

    def init(
        self, params: PyTree, state: PyTree = None, key: Array | None = None, *, x: PyTree = None
    ) -> Stream:
        """What is remembered before the first step.

        Args:
            params: the parameters.
            state: the state before the first step, a constant; None is ``cell.init_state(params)``
                without batch axes, through which the parameters have influence.
            key: a random key, for `UORO` and for stochastic cells: as in `jaxrnn.unroll`.
            x: an input of one step, of which only the type counts. It is needed where shape and
                dtype do not follow from ``cell.init`` and the shapes of ``params``, and where the
                batch is sharded explicitly or within `jax.shard_map`, since all that is remembered
                of a row is sharded as its input.

        Raises:
            TypeError, ValueError: an argument has the wrong type or shape; ``x`` is needed; the
                rule needs a key or does not accept the cell.
        """
        if key is not None:
            check_key(key)
            key = jnp.copy(key)  # as the state below
        elif getattr(self.rule, "stochastic", False):
            raise ValueError(
                f"{self.rule!r} draws random numbers and needs a key, got key=None; pass "
                "init(params, state, key=jax.random.key(...))"
            )
        own = state is None
        state = self.cell.init_state(params, ()) if own else checks.as_arrays("state", state)
        batch = batch_shape(self.cell, params, state)
        if x is None:
            x = input_like(self.cell, params, batch, jax.tree.leaves(params))
        x = jax.tree.map(jnp.zeros_like, x)
        count = jnp.zeros((), jnp.int32)
        cell, bound, inputs = self._bound(params, state, x, key, count)
        draw = None if key is None else key_of_rule(key)
        bound, state, inputs, draw = equally_varying((bound, state, inputs, draw))
        state = settled(cell, bound, state, one(inputs), len(batch))
        if isinstance(self.rule, TBPTT):
            window = self.rule.window
            kept = jax.tree.map(
                lambda leaf: jnp.broadcast_to(leaf, (window, *leaf.shape)), (state, inputs)
            )
            state, last = jax.tree.map(jnp.copy, (state, Last(kept[0], None, kept[1])))
            return Stream(count, key, state, jnp.asarray(own), last)
        learned = self._learned(params, state, key)
        found: list[RealStep] = []

        def begin(bound, state, inputs, draw):
            given, tracker, arrays, _ = self._tracker(cell, bound, state, inputs, learned)
            found.append(given.step)
            if own:
                memory = tracker.of_initial_state(arrays, draw)
            else:
                memory = tracker.nothing(batch, draw, arrays)
            return equally_varying((memory, inputs))[0]

        args = bound, state, inputs, draw

        def specs():
            types = jax.eval_shape(with_automatic_axes(begin, P()), *args)
            return specs_of_rows(types, state, found[0].rank)

        memory = automatically(begin, specs, *args)
        before = memory if found[0].output_reads_old_state else None
        # Copies, so that a program may be given the stream to overwrite.
        state, memory, last = jax.tree.map(jnp.copy, (state, memory, Last(state, before, inputs)))
        return Stream(count, key, state, memory, last)

    def step(self, params: PyTree, carry: Stream, x: PyTree) -> tuple[Stream, PyTree]:
        """Takes a step: ``(params, carry, x) -> (carry, y)``."""
        x = checks.as_arrays("x", x)
        checks.check_one_float_dtype(params, x)
        if not isinstance(carry, Stream):
            raise TypeError(f"carry must be what init or step returned, got {brief(carry)}")
        cell, bound, inputs = self._bound(params, carry.state, x, carry.key, carry.count)
        draws = step_keys(None if carry.key is None else key_of_rule(carry.key), carry.count)
        bound, inputs, draws, state, memory, last = equally_varying(
            (bound, inputs, draws, carry.state, carry.memory, carry.last)
        )
        new, y = cell.step(bound, state, inputs)
        count = carry.count + 1
        if isinstance(self.rule, TBPTT):
            last = pushed(last, carry.count == 0, state, inputs)
            return Stream(count, carry.key, new, memory, last), y
        learned = self._learned(params, carry.state, carry.key)

        def advance(bound, state, inputs, draws, memory):
            given, tracker, arrays, inputs = self._tracker(cell, bound, state, inputs, learned)
            step, old = given.step, given.step.split_state(jax.tree.leaves(state))
            x, valid, start = inputs if given.unmasked else (inputs, None, None)
            if start is not None:
                start = start if valid is None else start & valid
                old = select_state(start, broadcast_initial(step, arrays, start.shape), old)
                memory = restart(start, tracker.of_initial_state(arrays, draws[0]), memory)
            moved = tracker.advance(memory, arrays, old, x, draws[1])
            if valid is not None:
                moved = restart(valid, moved, memory)
            before = memory if step.output_reads_old_state else None
            state = jax.tree.unflatten(step.structure, step.join_state(old))
            return moved, Last(state, before, inputs)

        def specs():
            return specs_of((memory, Last(state, last.memory, inputs)))

        moved, last = automatically(advance, specs, bound, state, inputs, draws, memory)
        return Stream(count, carry.key, new, moved, last), y

    def gradient(self, params: PyTree, carry: Stream, dloss_dy: PyTree) -> PyTree:
        """The gradient of the last step's loss, given its gradient with respect to ``y``.

        Args:
            params: the parameters, those of the step.
            carry: what `step` returned.
            dloss_dy: like ``y``; the loss is summed over the rows of a batch. Leaves for integers
                are ignored; ``jax.grad(..., allow_int=True)`` makes them.

        Returns:
            A pytree like ``params``; zero for integers. As that of `jax.grad`, it is summed over
            the devices that have the same parameters.
        """
        dy = [leaf for leaf in jax.tree.leaves(dloss_dy) if is_inexact(leaf)]
        of = self._of_influence
        if isinstance(self.rule, TBPTT):
            of = functools.partial(self._of_window, self.rule.window)
        return automatically(of, lambda: specs_of(params), params, carry, dy)

    def _of_influence(self, params: PyTree, carry: Stream, dy: list) -> PyTree:
        """The gradient of a rule that accumulates influence."""
        # The key of the last step is in its input; that of the sequence binds the parameters.
        bind, carry, dy = self._varying(params, carry, dy)
        bound = bind(params)
        cell = self._keyed(carry.key)
        learned = self._learned(params, carry.state, carry.key)
        given, tracker, arrays, inputs = self._tracker(
            cell, bound, carry.state, carry.last.x, learned
        )
        step = given.step
        new, old = (step.split_state(jax.tree.leaves(s)) for s in (carry.state, carry.last.state))
        x, valid, _ = inputs if given.unmasked else (inputs, None, None)
        dy = zero_skipped(dy, valid)
        loss = instantaneous(step, tracker.learned, arrays, new, old, x, dy)
        total = jax.tree.map(
            lambda a, b: a + b.astype(a.dtype),
            tracker.contract(carry.memory, loss.new)[0],
            loss.theta,
        )
        if carry.last.memory is not None:
            found = tracker.contract(carry.last.memory, loss.old)[0]
            total = jax.tree.map(jnp.add, total, found)
        cotangents = tracker.learned.cotangents(total, arrays)
        floats = step.learned(map(is_inexact, jax.tree.leaves(bound))).positions
        found = [cotangents.get(n, jnp.zeros_like(arrays[n])) for n in floats]
        return pulled(bind, params, found)

    def _of_window(self, window: int, params: PyTree, carry: Stream, dy: list) -> PyTree:
        """The gradient of `TBPTT`: back through the last window."""
        bind, carry, dy = self._varying(params, carry, dy)
        first = jax.tree.map(lambda leaf: leaf[0], carry.last.state)  # of the first valid step
        batch = batch_shape(self.cell, params, carry.state)
        valid = jnp.arange(window, dtype=jnp.int32) >= window - carry.count
        valid = jnp.broadcast_to(valid.reshape(-1, *(1 for _ in batch)), (window, *batch))
        cell, own = Masked(self._keyed(carry.key)), carry.memory & (carry.count <= window)
        xs = self._without_skipped(carry.last.x, valid)

        def output(params):
            bound = bind(params)
            initial = cell.init_state(bound, batch)
            begin = jax.tree.map(lambda a, b: jnp.where(own, a.astype(b.dtype), b), initial, first)
            _, ys = Hoisted()(cell, bound, begin, MaskedInput(xs, valid))
            return [y[-1] for y in jax.tree.leaves(ys) if is_inexact(y)]

        return pulled(output, params, dy)

    def _without_skipped(self, xs: PyTree, valid: Array) -> PyTree:
        """The inputs of a window, where those of skipped steps may be NaN, without them."""
        if not isinstance(self.cell, Masked):
            return xs
        keyed = not isinstance(xs, MaskedInput)
        own = xs[0] if keyed else xs
        if own.valid is not None:
            own = own._replace(x=safe_inputs(own.x, own.valid & valid))
        return (own, xs[1]) if keyed else own

    def _varying(self, params: PyTree, carry: Stream, dy: list) -> tuple[Callable, Stream, list]:
        """``params -> bound``, and what is read, varying over the devices of `jax.shard_map`."""
        read = carry.state, carry.memory, carry.last, dy
        _, (state, memory, last, dy) = equally_varying((params, read))

        def bind(params):  # its gradient is summed over devices
            return self._bind(equally_varying((params, read))[0], state, carry.key)

        return bind, carry._replace(state=state, memory=memory, last=last), dy

    def _keyed(self, key: Array | None) -> Any:
        return self.cell if key is None or not is_stochastic(self.cell) else Keyed(self.cell)

    def _bind(self, params: PyTree, state: PyTree, key: Array | None) -> PyTree:
        batch = batch_shape(self.cell, params, state)
        draw = None if key is None else key_of_sequence(key)
        return bind_with_key(self.cell, params, draw, batch)

    def _bound(self, params, state, x, key, count) -> tuple[Any, PyTree, PyTree]:
        """The cell with its key, the bound parameters, and the input with the key of the step."""
        cell = self._keyed(key)
        x = (x, jax.random.fold_in(key, count)) if cell is not self.cell else x
        return cell, self._bind(params, state, key), x

    def _learned(self, params: PyTree, state: PyTree, key: Array | None) -> list[bool]:
        """Which leaves of the bound parameters depend on the parameters: dropout masks do not.

        Through integers too: a rule of one's own may have a gradient there, as a spike has.
        """
        closed = jax.make_jaxpr(lambda params: self._bind(params, state, key))(params)
        labels: list[Any] = [np.ones((1,) * (leaf.ndim + 1), np.uint8) for leaf in closed.in_avals]
        found = dependence(closed.jaxpr, labels, through_integers=True)
        pairs = zip(found, closed.out_avals, strict=True)
        return [label is not None and is_inexact(leaf) for label, leaf in pairs]

    def _tracker(
        self, cell: Any, bound: PyTree, state: PyTree, x: PyTree, learned: list[bool]
    ) -> tuple[Sequence, Tracker, list[Any], PyTree]:
        rule: Any = self.rule
        given = separate(cell, bound, state, one(x), local=rule.local)
        step, arrays = given.step, given.step.arrays(bound)
        inner = x.x if given.unmasked else x
        own = step.split_state(jax.tree.leaves(state))
        tracker = rule.track(Sample(step, arrays, step.learned(learned), own, inner, False))
        return given, tracker, arrays, x
