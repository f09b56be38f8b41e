"""The pointwise equations of a step on tiles.

A step computes on arrays ``[*batch, H]``. A kernel holds a tile of them, ``[rows, units]``, and
evaluates the same equations on it. That is possible if every equation is local: each element of a
result depends on the elements of the operands with the same row and unit only.

Every variable is a tile, whatever its own shape; a value that does not vary over rows or units is
repeated. So a broadcast is the identity. In a pullback a sum over rows or units is the identity
too: a pullback is linear, so the tile holds the terms of the sum, which is taken after the loop.

`check_local` says why equations are not local, and `on_tiles` evaluates them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._schedule.partition import Piece
from jaxrnn._schedule.trace import evaluate, is_literal

# Elementwise operations that Mosaic GPU and Mosaic TPU both lower.
ELEMENTWISE = frozenset(
    "abs add and clamp convert_element_type cos div eq exp exp2 ge gt integer_pow log logistic lt "
    "max min mul ne neg not or rsqrt select_n sign sin sqrt square sub "
    "tanh".split()
)
IDENTITIES = frozenset("copy copy_p optimization_barrier pcast pvary stop_gradient".split())
RESHAPES = frozenset("expand_dims reshape squeeze".split())
CALLS = frozenset("closed_call custom_jvp_call custom_vjp_call jit pjit".split())


def _expm1(x):
    return jnp.tanh(x * 0.5) * (jnp.exp(x) + 1)


def _log1p(x):
    total = x + 1
    unit = total == 1  # then log1p(x) = x to rounding
    return jnp.where(unit, x, jnp.log(total) * x / jnp.where(unit, 1, total - 1))


# Operations that a kernel computes from others, to full precision.
COMPOSED = {
    "add_any": jax.lax.add,
    "expm1": _expm1,
    "log1p": _log1p,
    "one_minus_square": lambda x: 1 - x * x,
}


class NotLocal(ValueError):
    """An equation that a kernel cannot evaluate on tiles, with the reason."""


class Shape(NamedTuple):
    """The batch shape, the number of hidden units and that of heads, which divides it."""

    batch: tuple[int, ...]
    hidden: int
    heads: int = 1

    @property
    def full(self) -> tuple[int, ...]:
        """The shape of a value that varies over rows and units."""
        return (*self.batch, self.hidden)

    def axes(self, shape: tuple[int, ...], per_unit: bool) -> tuple[bool, bool]:
        """Whether a value of this shape varies over rows, and whether it varies over units.

        ``per_unit`` decides for a vector if the batch is as large as the hidden state.
        """
        if shape == self.full:
            return True, True
        if math.prod(shape) == 1:
            return False, False
        over_units = shape[-1] == self.hidden and math.prod(shape) == self.hidden
        over_rows = shape in (self.batch, (*self.batch, 1))
        if over_units and (per_unit or not over_rows):
            return False, True
        if over_rows:
            return True, False
        raise NotLocal(f"a value in the loop has shape {shape}, neither {self.full} nor a part")


def check_local(eqns: Sequence[Any], shape: Shape, constants=(), linear=False) -> None:
    """Raises `NotLocal` unless a kernel can evaluate the equations on tiles.

    Args:
        eqns: the equations to check.
        shape: the shape of the values.
        constants: the variables that depend on parameters only.
        linear: whether the equations are a pullback, in which sums are allowed.
    """
    sums, constants = set(), set(constants)
    for eqn in eqns:
        name, operands = eqn.primitive.name, [v for v in eqn.invars if not is_literal(v)]
        constants.update(eqn.outvars if constants.issuperset(operands) else ())
        for v in (*operands, *eqn.outvars):
            shape.axes(v.aval.shape, v in constants)
        summed = any(v in sums for v in operands)
        if name in CALLS:
            inner = _called(eqn)
            if any(map(jnp.ndim, inner.consts)):
                raise NotLocal(f"a call of {name} holds an array")
            check_local(inner.jaxpr.eqns, shape, (), linear)
        elif name == "broadcast_in_dim" and operands:
            _check_broadcast(eqn, shape, operands[0] in constants, summed)
        elif name in RESHAPES:
            before, after = (v.aval.shape for v in (eqn.invars[0], eqn.outvars[0]))
            if [n for n in before if n != 1] != [n for n in after if n != 1]:
                raise NotLocal(f"{name} from {before} to {after} moves elements")
        elif linear and name == "reduce_sum":
            sums.update(eqn.outvars)
        elif name not in ELEMENTWISE | IDENTITIES | {"broadcast_in_dim", *COMPOSED}:
            raise NotLocal(f"the operation {name} is not elementwise, or the kernel lacks it")
        if summed:
            sums.update(eqn.outvars)


def _check_broadcast(eqn, shape: Shape, per_unit: bool, summed: bool) -> None:
    source, target = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    rows, units = shape.axes(source, per_unit)
    placed = dict(enumerate(eqn.params["broadcast_dimensions"]))
    last = len(shape.batch)
    moved = rows and any(placed[axis] != axis for axis in range(last))
    moved |= units and placed[len(source) - 1] != len(target) - 1
    if moved or len(target) > last + 1:
        raise NotLocal(f"broadcast from {source} to {target} moves elements")
    if summed and math.prod(source) != math.prod(target):
        raise NotLocal("a gradient needs a sum over the hidden units within the step")


def _called(eqn) -> Any:
    return next(p for p in eqn.params.values() if isinstance(p, jex.ClosedJaxpr))


def on_tiles(eqns, env: dict[Any, Any], tile: tuple[int, int]) -> None:
    """Evaluates local equations on tiles of this shape and adds the results to ``env``."""

    def read(v):
        return jnp.full(tile, v.val, v.aval.dtype) if is_literal(v) else env[v]

    for eqn in eqns:
        name, args = eqn.primitive.name, [read(v) for v in eqn.invars]
        if name in CALLS:
            inner = _called(eqn)
            results = call_on_tiles(inner, args, tile)
        elif name in IDENTITIES | RESHAPES | {"broadcast_in_dim", "reduce_sum"}:
            results = args[: len(eqn.outvars)]
        elif name in COMPOSED:
            results = [COMPOSED[name](*args)]
        elif name == "integer_pow" and eqn.params["y"] < 0:  # Mosaic GPU lacks it
            results = [1 / jax.lax.integer_pow(args[0], -eqn.params["y"])]
        else:
            results = [eqn.primitive.bind(*args, **eqn.params)]
        env.update(zip(eqn.outvars, results, strict=True))


def call_on_tiles(closed: Any, args, tile: tuple[int, int]) -> list[Any]:
    """Evaluates a jaxpr of local equations on tiles."""
    jaxpr = closed.jaxpr
    env = dict(zip(jaxpr.invars, args, strict=True))
    env |= {v: jnp.full(tile, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}
    on_tiles(jaxpr.eqns, env, tile)
    return [jnp.full(tile, v.val, v.aval.dtype) if is_literal(v) else env[v] for v in jaxpr.outvars]


class Pullback(NamedTuple):
    """A piece as ``reads -> (outvars, residuals)``, and ``(residuals, cotangents) -> gradients``.

    Gradients are those of the reads that are floating-point numbers, cotangents those of such
    results.
    """

    forward: Any
    backward: Any
    reads: tuple[Any, ...]
    outvars: tuple[Any, ...]


def pullback(piece: Piece) -> Pullback:
    """The derivative of a piece, traced at the shapes of the step.

    Rules of the user's own (`jax.custom_jvp`) are followed, since the piece is differentiated as a
    whole; the result is local if each of its equations is.
    """
    moving = [v for v in piece.reads if is_inexact(v.aval)]
    results = [v for v in piece.outvars if is_inexact(v.aval)]
    pulls: list[Callable] = []

    def forward(*args):
        values = dict(zip(piece.reads, args, strict=True))

        def moved(*floats):
            full = values | dict(zip(moving, floats, strict=True))
            outs = evaluate(
                piece.jaxpr, piece.eqns, piece.reads, piece.outvars, [full[v] for v in piece.reads]
            )
            env = dict(zip(piece.outvars, outs, strict=True))
            return [env[v] for v in results], outs

        _, pull, outs = jax.vjp(moved, *(values[v] for v in moving), has_aux=True)
        leaves, structure = jax.tree.flatten(pull)
        pulls.append(lambda leaves: jax.tree.unflatten(structure, leaves))
        return outs, leaves

    kept = jax.make_jaxpr(forward)(*(_like(v.aval) for v in piece.reads))
    residuals = kept.out_avals[len(piece.outvars) :]

    def backward(leaves, cotangents):
        return pulls[0](leaves)(cotangents)

    pulled = jax.make_jaxpr(backward)(
        [_like(aval) for aval in residuals], [_like(v.aval) for v in results]
    )
    return Pullback(kept, pulled, tuple(moving), tuple(results))


def _like(aval) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)
