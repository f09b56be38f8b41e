"""The loop of a schedule in one kernel, and its derivatives.

    forward    (operands, state) -> (final, emitted), and the states and sums of every step
    tangent    linear in the tangents of operands and state; in JAX's own operations
    backward   the transpose of the tangent: z̄ of every step from one kernel, then
               dW = Σₜ a[t]ᵀ z̄[t] in one product over time and batch

Each has a reference, which is the loop of `Hoisted`; it gives forward mode, higher derivatives,
`jax.vmap`, and other platforms.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._schedule.interpret import Operands
from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.products import multiply_over_time
from jaxrnn._sharding import equally_varying
from jaxrnn.engines._fused.heads import blocks_of
from jaxrnn.engines._fused.steps import Scan, backward_scan, forward_scan, pullbacks_of, sums_of
from jaxrnn.engines._fused.tiles import Shape
from jaxrnn.engines._loop import Loop, Residuals
from jaxrnn.engines._platforms import Function


class Machine(Protocol):
    """Runs a scan over tiles in one kernel, ``-> (carry, emitted)``; see `hopper.run`."""

    def __call__(
        self,
        scan: Scan,
        weights: Sequence[Any],
        constants: Sequence[Any],
        carry: Sequence[Any],
        stacked: Sequence[Any],
        *,
        time: int,
        reverse: bool,
    ) -> tuple[list[Any], list[Any]]:
        """Runs all steps."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class FusedLoop:
    """Runs a schedule's loop: ``loop(operands, state) -> (final, emitted)``.

    Args:
        schedule: the schedule.
        shape: the shape of its values.
        time: the number of steps.
        reverse: whether the last step comes first.
        machines: by platform, what runs a scan over tiles.
    """

    schedule: Schedule
    shape: Shape
    time: int
    reverse: bool
    machines: dict[str, Machine]

    def __call__(self, operands: Operands, state: tuple) -> tuple[tuple, tuple]:
        """Returns the final state and the stacked values that the steps emit."""
        return self._differentiable(keep=False)(operands, state)[:2]

    @functools.cached_property
    def _loop(self) -> Loop:
        return Loop(self.schedule, self.time, self.reverse, unroll=1)

    # Forward --------------------------------------------------------------------------------------

    def _differentiable(self, keep: bool) -> Callable:
        @jax.custom_jvp
        def run(operands: Operands, state: tuple):
            args, tree = jax.tree.flatten((operands, state))
            trees = []

            def reference(*args):
                operands, state = tree.unflatten(args)
                results, out = jax.tree.flatten(self._loop._primal(operands, state, keep))
                trees.append(out)
                return results

            def kernel(machine, *args):
                operands, state = tree.unflatten(args)
                results = self._run_forward(machine, operands, state, keep)
                leaves, out = jax.tree.flatten(results)
                trees.append(out)
                return leaves

            kernels = {
                name: functools.partial(kernel, machine) for name, machine in self.machines.items()
            }
            shared = tuple(range(len(operands.kernels)))
            results = Function(reference, kernels, shared=shared)(*args)
            return trees[-1].unflatten(results)

        @run.defjvp
        def rule(primals, tangents):
            final, emitted, residuals = self._differentiable(keep=True)(*primals)
            dfinal, demitted, dresiduals = self._tangent(primals, tangents, residuals, keep)
            out = (final, emitted, residuals if keep else ())
            return out, (dfinal, demitted, dresiduals)

        return run

    def _run_forward(self, machine: Machine, operands: Operands, state: tuple, keep: bool):
        plan = self.schedule
        scan = forward_scan(plan, keep)
        weights = [
            self._blocks(product, kernel)[:, None]
            for product, kernel in zip(plan.products, operands.kernels, strict=True)
        ]
        final, emitted = self._run(
            machine,
            scan,
            self.reverse,
            weights,
            self._spread(plan.constants, operands.constants),
            self._spread(plan.state_in, state),
            self._spread(plan.stacked, operands.stacked, over_time=True),
        )
        final = self._gather(scan.carry, final)
        emitted = self._gather(scan.emitted, emitted)
        if not keep:
            return final, emitted, ()
        cut = len(plan.emitted)
        states = emitted[cut : cut + len(state)]
        sums = iter(emitted[cut + len(state) :])
        parts = tuple(tuple(next(sums) for _ in product.outvars) for product in plan.products)
        return final, emitted[:cut], Residuals(states, parts)

    # Tangent and its transpose --------------------------------------------------------------------

    def _tangent(self, primals, tangents, residuals: Residuals, keep: bool):
        """The tangents of the results, for tangents of operands and state."""
        given, tree = jax.tree.flatten(tangents)
        moving = [tangent.dtype != jax.dtypes.float0 for tangent in given]
        linear = [tangent for tangent, moves in zip(given, moving, strict=True) if moves]
        others, other_tree = jax.tree.flatten((primals, residuals))
        args = equally_varying([*linear, *others])
        types = [jax.typeof(arg) for arg in args[: len(linear)]]
        trees = []

        def joined(floats):
            floats = iter(floats)
            return tree.unflatten(
                next(floats) if moves else tangent
                for tangent, moves in zip(given, moving, strict=True)
            )

        def apply(floats, others):
            (operands, state), residuals = other_tree.unflatten(others)
            doperands, dstate = joined(floats)
            dfinal, (demitted, dresiduals) = self._loop._tangent(
                operands, state, doperands, dstate, residuals, keep
            )
            results, out = jax.tree.flatten((dfinal, demitted, dresiduals))
            trees.append(out)
            return results

        def reference(*args):
            return apply(args[: len(linear)], args[len(linear) :])

        def transpose(others, cotangents):
            def by_reference(*args):
                others, cotangents = args[: -len(trees_out)], args[-len(trees_out) :]
                pull = jax.linear_transpose(lambda *floats: apply(floats, others), *types)
                return list(pull(list(cotangents)))

            def by_kernel(machine, *args):
                others, cotangents = args[: -len(trees_out)], args[-len(trees_out) :]
                (operands, state), residuals = other_tree.unflatten(others)
                dfinal, demitted, _ = trees[-1].unflatten(cotangents)
                results = self._run_backward(machine, operands, residuals, dfinal, demitted)
                results = jax.tree.leaves(results, is_leaf=lambda leaf: leaf is None)
                return [r for r, moves in zip(results, moving, strict=True) if moves]

            trees_out = cotangents
            kernels = {
                name: functools.partial(by_kernel, machine)
                for name, machine in ({} if keep else self.machines).items()
            }
            shared = tuple(range(len(self.schedule.products)))
            return Function(by_reference, kernels, shared=shared)(*others, *cotangents)

        results = Function(reference, {}, len(linear), transpose)(*args)
        return trees[-1].unflatten(results)

    def _run_backward(self, machine: Machine, operands, residuals, dfinal, demitted):
        """The cotangents of operands and state, None for integers."""
        plan = self.schedule
        scan = backward_scan(plan, pullbacks_of(plan))
        weights = [
            self._blocks(product, kernel).transpose(0, 2, 3, 1)[:, :, :, None]
            for product, kernel in zip(plan.products, operands.kernels, strict=True)
        ]
        constants = dict(zip(plan.constants, operands.constants, strict=True))
        values = dict(zip(plan.stacked, operands.stacked, strict=True))
        values |= dict(zip(plan.state_in, residuals.states, strict=True))
        values |= zip(sums_of(plan), (z for parts in residuals.sums for z in parts), strict=True)
        kept = scan.stacked[: len(scan.stacked) - len(plan.emitted)]
        slopes = scan.carry[len(plan.state_in) :]
        zeros = [jnp.zeros(v.aval.shape, v.aval.dtype) for v in slopes]
        stacked = self._spread(kept, [values[v] for v in kept], over_time=True)
        stacked += self._spread(plan.emitted, demitted, over_time=True)
        carry, emitted = self._run(
            machine,
            scan,
            not self.reverse,
            weights,
            self._spread(scan.constants, [constants[v] for v in scan.constants]),
            self._spread(scan.carry, [*dfinal, *zeros]),
            stacked,
        )
        dstate = self._gather(plan.state_in, carry[: len(plan.state_in)])
        found: dict[Any, Any] = dict(
            zip(slopes, self._gather(slopes, carry[len(plan.state_in) :]), strict=True)
        )
        found |= zip(scan.emitted, self._gather(scan.emitted, emitted), strict=True)
        return self._cotangents(operands, residuals, found), dstate

    def _cotangents(self, operands: Operands, residuals: Residuals, found: dict) -> Operands:
        """The cotangents of the operands from those of the sums and of what the pieces read."""
        plan, kernels = self.schedule, []
        inputs = self._loop._product_operands(operands, residuals)
        total = {v: found[v] for v in (*plan.constants, *plan.stacked) if v in found}
        for product, kernel, xs in zip(plan.products, operands.kernels, inputs, strict=True):
            dsums = tuple(found[v] for v in product.outvars)
            narrow = tuple(
                z.astype(v.aval.dtype) for z, v in zip(dsums, product.outvars, strict=True)
            )
            pull = jax.linear_transpose(functools.partial(multiply_over_time, product, xs), kernel)
            kernels += pull(narrow)
            for v, dsum in zip(product.addends, narrow, strict=True):
                if v is None:
                    continue
                dsum = (dsum.sum(0) if v in plan.constants else dsum).astype(v.aval.dtype)
                total[v] = total[v] + dsum if v in total else dsum

        def of(variables, values):
            return tuple(
                total.get(v, jnp.zeros_like(x)) if is_inexact(x) else None
                for v, x in zip(variables, values, strict=True)
            )

        return Operands(
            tuple(kernels),
            of(plan.constants, operands.constants),
            of(plan.stacked, operands.stacked),
        )

    def _run(self, machine: Machine, scan: Scan, reverse: bool, weights, *values):
        """Runs a scan; under `jax.vmap` the examples are more rows of one call."""

        @jax.custom_batching.custom_vmap
        def run(weights, constants, carry, stacked):
            return machine(
                scan, weights, constants, carry, stacked, time=self.time, reverse=reverse
            )

        @run.def_vmap
        def rule(size, mapped, weights, *values):
            if any(jax.tree.leaves(mapped[0])):
                raise NotImplementedError("a kernel holds the same weights for all examples")

            def join(x, is_mapped, lead):
                x = jnp.moveaxis(x, 0, lead) if is_mapped else jnp.stack([x] * size, lead)
                return x.reshape(*x.shape[:lead], -1, x.shape[-1])

            def split(x, lead):
                x = x.reshape(*x.shape[:lead], size, -1, x.shape[-1])
                return jnp.moveaxis(x, lead, 0)

            leads = (0, 0, 1)  # axes before that of the rows: time, of what is stacked
            joined = [
                [join(x, is_mapped, lead) for x, is_mapped in zip(group, flags, strict=True)]
                for group, flags, lead in zip(values, mapped[1:], leads, strict=True)
            ]
            carry, emitted = run(weights, *joined)
            results = [split(x, 0) for x in carry], [split(x, 1) for x in emitted]
            return results, jax.tree.map(lambda _: True, results)

        return run(weights, *values)

    # Values of a step as arrays [rows, H] ---------------------------------------------------------

    def _blocks(self, product, kernel) -> Any:
        """The kernel of each head, ``[heads, n, gates, n]``."""
        return blocks_of(kernel, len(product.outvars), self.shape.heads)

    def _spread(self, variables, values, over_time: bool = False) -> list[Any]:
        """Values as ``[(time), rows, H]``, repeated where they do not vary; booleans as numbers."""
        lead, spread = (self.time,) if over_time else (), []
        for v, x in zip(variables, values, strict=True):
            x = x.astype(jnp.bfloat16) if x.dtype == bool else x
            x = jnp.broadcast_to(x.reshape(*lead, *self._aligned(v)), (*lead, *self.shape.full))
            spread.append(x.reshape(*lead, -1, self.shape.hidden))
        return spread

    def _gather(self, variables, values) -> tuple[Any, ...]:
        """The transpose of `_spread`, its inverse for values that vary over rows and units."""
        gathered = []
        for v, x in zip(variables, values, strict=True):
            lead, shape = x.shape[:-2], self._aligned(v)
            axes = [n - len(shape) for n, m in enumerate(self.shape.full) if shape[n] != m]
            x = x.reshape(*lead, *self.shape.full)
            # jnp.sum adds up 16-bit numbers in float32
            gathered.append((x.sum(axes) if axes else x).reshape(*lead, *v.aval.shape))
        return tuple(gathered)

    def _aligned(self, v) -> tuple[int, ...]:
        """The shape with the axes of the batch and of the units, 1 where a value does not vary."""
        rows, units = self.shape.axes(v.aval.shape, v in self.schedule.constants)
        batch = self.shape.batch if rows else (1,) * len(self.shape.batch)
        return (*batch, self.shape.hidden if units else 1)
