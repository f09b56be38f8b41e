"""Traces the step of a cell and rewrites its jaxpr into a canonical form.

Nested calls of `jax.jit` are inlined, and three rewrites are applied that change nothing but
rounding:

- Sums are reordered: ``(x W + h U) + b`` becomes ``(b + x W) + h U``, so that everything that does
  not depend on the state is one value, which can be computed for all time steps at once.
- Products with a concatenated operand are split: ``[x, h] W`` becomes ``x W₁ + h W₂``, so that the
  part that does not depend on the state can be hoisted.
- Packed pre-activations are split into gates before they are summed: ``split(x W + b + h U)``
  becomes ``((x W)ᵢ + bᵢ) + (h U)ᵢ`` for each gate i. Slices that tile an axis count as a split.
  XLA's CPU compiler does not vectorize a fusion that reads several slices of one step of a stacked
  array, which makes it five times slower; arrays stacked gate by gate avoid that.

A fourth rewrite makes broadcasting explicit: a parameter that is broadcast over the batch within an
operation (``u * h``) gets a broadcast of its own, which can be hoisted.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.extend.source_info_util
import jax.numpy as jnp

from jaxrnn._platform import CPU
from jaxrnn._typing import Array, PyTree

# What a value depends on. An equation has the highest class among its operands.
PARAMS, INPUTS, STATE = 0, 1, 2
# Operations that broadcast axes of size 1 implicitly.
BROADCASTING = frozenset("add atan2 div max min mul nextafter pow rem sub".split())


def is_literal(var: Any) -> bool:
    """Whether an operand is a literal."""
    return isinstance(var, jex.Literal)


def nested_jaxprs(eqn: jex.JaxprEqn) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    leaves = jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda p: isinstance(p, (jex.ClosedJaxpr, jex.Jaxpr))
    )
    inner = [leaf.jaxpr if isinstance(leaf, jex.ClosedJaxpr) else leaf for leaf in leaves]
    return [jaxpr for jaxpr in inner if isinstance(jaxpr, jex.Jaxpr)]


def all_eqns(eqns) -> Iterator[jex.JaxprEqn]:
    """The equations and those of the jaxprs that they call."""
    for eqn in eqns:
        yield eqn
        for jaxpr in nested_jaxprs(eqn):
            yield from all_eqns(jaxpr.eqns)


def with_source(jaxpr: jex.Jaxpr, call: Any) -> jex.Jaxpr:
    """The jaxpr of a call, whose equations without a line of a user have the line of the call.

    JAX traces its own jitted functions once for all callers, so these have no line.
    """
    summarize = jax.extend.source_info_util.summarize
    eqns = [
        eqn if summarize(eqn.source_info) else eqn.replace(source_info=call.source_info)
        for eqn in jaxpr.eqns
    ]
    return jaxpr.replace(eqns=eqns)


def evaluate(jaxpr: jex.Jaxpr, eqns, invars, outvars, args) -> list[Any]:
    """Evaluates some equations of a jaxpr, given the values of ``invars``."""
    effects = set().union(*(eqn.effects for eqn in eqns))
    piece = jaxpr.replace(
        constvars=(), invars=list(invars), outvars=list(outvars), eqns=list(eqns), effects=effects
    )
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(piece, ()))(*args)


@dataclasses.dataclass
class _Value:
    """A value with its class, materialized on demand.

    A sum is kept as its terms, and a concatenation along an axis as its parts, until `materialize`.
    """

    kind: int
    shape: tuple[int, ...]
    array: Any = None
    terms: list["_Value"] = dataclasses.field(default_factory=list)
    parts: list["_Value"] = dataclasses.field(default_factory=list)
    axis: int = 0

    def materialize(self) -> Any:
        """The array; terms are added in the order of parameters, inputs, state."""
        if self.array is None and self.parts:
            self.array = _concatenate(self.parts, self.axis)
        if self.array is None:
            ordered = sorted(self.terms, key=lambda term: term.kind)
            self.array = functools.reduce(_add, [term.materialize() for term in ordered])
        return self.array


def _concrete(kind: int, array: Any) -> _Value:
    return _Value(kind, jnp.shape(array), array)


def _add(a: Array, b: Array) -> Array:
    shape = jnp.broadcast_shapes(a.shape, b.shape)
    return jax.lax.add(jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape))


def _concatenate(parts: list[_Value], axis: int) -> Any:
    arrays = [part.materialize() for part in parts]
    return arrays[0] if len(arrays) == 1 else jax.lax.concatenate(arrays, axis)


def _rewrite(jaxpr: Any, args: list[_Value], separate: bool) -> list[_Value]:
    """Evaluates a jaxpr (its constants first among ``args``) and applies the rewrites."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], args, strict=True))
    uses = Counter(v for eqn in jaxpr.eqns for v in eqn.invars if not is_literal(v))
    uses.update(v for v in jaxpr.outvars if not is_literal(v))
    tilings, splits = _tilings(jaxpr), {}

    def read(var) -> _Value:
        if is_literal(var):
            return _concrete(PARAMS, jnp.asarray(var.val, var.aval.dtype))
        return env[var]

    for eqn in jaxpr.eqns:
        name, source = eqn.primitive.name, next(iter(eqn.invars), None)
        free = list(dict.fromkeys(v for v in eqn.invars if not is_literal(v)))
        kind = max((env[v].kind for v in free), default=PARAMS)
        inner = eqn.params.get("jaxpr")
        if name in ("jit", "pjit") and isinstance(inner, jex.ClosedJaxpr):
            constants = [_concrete(PARAMS, c) for c in inner.consts]
            placed = with_source(inner.jaxpr, eqn)
            results = _rewrite(placed, constants + [read(v) for v in eqn.invars], separate)
        elif name == "add" and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact):
            terms = []
            for var in eqn.invars:
                value = read(var)
                # A sum with other uses is not flattened: its additions would be done twice.
                flatten = value.terms and uses[var] == 1
                terms.extend(value.terms if flatten else [value])
            results = [_Value(kind, eqn.outvars[0].aval.shape, terms=terms)]
        elif name == "concatenate":
            parts, axis = [read(v) for v in eqn.invars], eqn.params["dimension"]
            results = [_Value(kind, eqn.outvars[0].aval.shape, parts=parts, axis=axis)]
        elif name == "dot_general" and (terms := _split_product(eqn, *map(read, eqn.invars))):
            results = [_Value(kind, eqn.outvars[0].aval.shape, terms=terms)]
        elif name == "split":
            results = _split(read(source), eqn.params["sizes"], eqn.params["axis"], separate)
        elif name == "slice" and source in tilings:
            axis, sizes, index = tilings[source]
            if source not in splits:
                splits[source] = _split(env[source], sizes, axis, separate)
            results = [splits[source][index[eqn.outvars[0]]]]
        else:
            operands = [env[v].materialize() for v in free]
            if name in BROADCASTING and kind == STATE:
                shape = eqn.outvars[0].aval.shape
                operands = [
                    jnp.broadcast_to(a, shape) if env[v].kind == PARAMS else a
                    for v, a in zip(free, operands, strict=True)
                ]
            arrays = evaluate(jaxpr, [eqn], free, eqn.outvars, operands)
            results = [_concrete(kind, array) for array in arrays]
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _split_product(eqn: Any, *operands: _Value) -> list[_Value]:
    """Writes ``[x, h] W`` as a sum of products, one for each class among the parts of ``[x, h]``.

    Returns no terms where splitting gains nothing: all parts have one class, or the kernel does not
    depend on parameters only. (`eqn` is a jex.JaxprEqn, whose type lacks the dtypes of results.)
    """
    contracted, batch = eqn.params["dimension_numbers"]
    for place, (value, kernel) in enumerate((operands, operands[::-1])):
        kinds = sorted({part.kind for part in value.parts})
        if len(kinds) < 2 or kernel.kind != PARAMS or kinds[-1] != STATE:
            continue
        if contracted[place] != (value.axis,) or any(batch) or eqn.params.get("out_sharding"):
            continue
        if not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact):
            continue
        (axis,) = contracted[1 - place]
        sizes = tuple(part.shape[value.axis] for part in value.parts)
        rows = _split(kernel, sizes, axis, separate=False)
        terms = []
        for kind in kinds:
            chosen = [number for number, part in enumerate(value.parts) if part.kind == kind]
            both = [
                _concatenate([value.parts[number] for number in chosen], value.axis),
                _concatenate([rows[number] for number in chosen], axis),
            ]
            product = jax.lax.dot_general(
                *(both if place == 0 else both[::-1]),
                dimension_numbers=eqn.params["dimension_numbers"],
                precision=eqn.params["precision"],
                preferred_element_type=eqn.params["preferred_element_type"],
            )
            terms.append(_concrete(kind, product))
        return terms
    return []


def _split(value: _Value, sizes: Any, axis: int, separate: bool) -> list[_Value]:
    """Splits a value along an axis; a sum is split term by term."""
    sizes = tuple(map(int, sizes))
    last = axis == len(value.shape) - 1
    if separate and last and value.terms:
        shape = (*(1 for _ in value.shape[:-1]), value.shape[-1])
        pieces = []
        for term in value.terms:
            if term.shape[axis] != value.shape[axis]:
                wide = jnp.broadcast_shapes(term.shape, shape)
                term = _concrete(term.kind, jnp.broadcast_to(term.materialize(), wide))
            pieces.append(_split(term, sizes, axis, separate))
        shapes = [(*value.shape[:-1], size) for size in sizes]
        return [
            _Value(value.kind, shape, terms=list(terms))
            for shape, terms in zip(shapes, zip(*pieces, strict=True), strict=True)
        ]
    return [_concrete(value.kind, x) for x in jax.lax.split(value.materialize(), sizes, axis)]


def _tilings(jaxpr: jex.Jaxpr) -> dict[Any, tuple[int, tuple[int, ...], dict[Any, int]]]:
    """Finds variables whose slices tile one axis: ``var -> (axis, sizes, {slice: position})``."""
    slices: dict[Any, list[jex.JaxprEqn]] = {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "slice" and not is_literal(eqn.invars[0]):
            slices.setdefault(eqn.invars[0], []).append(eqn)
    found = {}
    for var, eqns in slices.items():
        spans = {}
        for eqn in eqns:
            bounds = zip(eqn.params["start_indices"], eqn.params["limit_indices"], strict=True)
            sliced = [(d, *b) for d, b in enumerate(bounds) if b != (0, var.aval.shape[d])]
            if len(sliced) != 1 or eqn.params["strides"] is not None:
                break
            spans[eqn.outvars[0]] = sliced[0]
        else:
            order = sorted(set(spans.values()))
            axis, ends = order[0][0], [0, *(span[2] for span in order)]
            tiled = [(axis, a, b) for a, b in itertools.pairwise(ends)]
            if order == tiled and ends[-1] == var.aval.shape[axis]:
                sizes = tuple(b - a for _, a, b in order)
                found[var] = (axis, sizes, {v: order.index(span) for v, span in spans.items()})
    return found


class Step(NamedTuple):
    """One step of a cell, traced and rewritten."""

    jaxpr: jex.Jaxpr
    kinds: list[int]  # the class of each input of the jaxpr
    constants: list[Any]  # the values of its first inputs; params, state and x follow
    out_tree: Any  # of (state, y)

    def invars(self, kind: int) -> list[Any]:
        """The inputs of the jaxpr that have this class."""
        return [v for v, k in zip(self.jaxpr.invars, self.kinds, strict=True) if k == kind]


def canonical_step(step, params: PyTree, state: PyTree, x: PyTree, *, separate: bool) -> Step:
    """Traces one step on the given values and rewrites it; ``separate`` splits gates early."""
    closed, shape = jax.make_jaxpr(step, return_shape=True)(params, state, x)
    flat = [*closed.consts, *jax.tree.leaves((params, state, x))]
    kinds = [PARAMS] * len(closed.consts)
    for kind, tree in ((PARAMS, params), (STATE, state), (INPUTS, x)):
        kinds += [kind] * len(jax.tree.leaves(tree))

    def rewritten(*flat):
        values = [_concrete(kind, array) for kind, array in zip(kinds, flat, strict=True)]
        return [value.materialize() for value in _rewrite(closed.jaxpr, values, separate)]

    final = jax.make_jaxpr(rewritten)(*flat)
    jaxpr = final.jaxpr.replace(constvars=(), invars=[*final.jaxpr.constvars, *final.jaxpr.invars])
    constants = [*final.consts, *closed.consts]
    kinds = [PARAMS] * len(final.consts) + kinds
    return Step(jaxpr, kinds, constants, jax.tree.structure(shape))


def var_bytes(var: Any) -> int:
    """The size of a variable in bytes."""
    return nbytes(var.aval.shape, var.aval.dtype)


def nbytes(shape: tuple, dtype: Any) -> int:
    """The size of an array in bytes; a random key is two words, a symbolic axis 32 elements."""
    itemsize = getattr(dtype, "itemsize", 8)
    return math.prod(n if isinstance(n, int) else 32 for n in shape) * itemsize


def separates_gates(platform: str) -> bool:
    """Whether gates of a packed kernel should be separate arrays on this kind of platform.

    On the CPU, LSTM with T=128, B=32, I=128, H=256, forward: the pointwise part is five times
    faster (5.2 against 23.5 ms for the loop without its product). On a GPU one large product is
    better.
    """
    return platform == CPU
