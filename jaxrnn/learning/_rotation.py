"""Parameters whose influences are i times each other's: the two halves of a complex kernel.

The influence of the imaginary part of a kernel on a complex state is i times that of its real part,
if the state is a complex-linear function of its predecessor and of the kernel's product. Then half
of the influence tells all of it. Whether it is so is an identity of the pullback of a step, a
linear program. It is tested at random values of the program's coefficients: in these the pullback
is a rational function, which is zero everywhere if it is zero at random.
"""

from collections.abc import Callable
from typing import Any

import jax.extend.core as jex
import numpy as np

from jaxrnn._schedule.flat_state import FlatState
from jaxrnn._schedule.trace import is_literal


def transposed_rotation(flat: FlatState, vector: Any) -> Any:
    """The transpose of multiplication by i, of the vector ``[..., n]`` of a complex state."""
    places, signs, begin = np.arange(flat.size), np.ones(flat.size, vector.dtype), 0
    for size in flat.sizes:
        middle, end = begin + size // 2, begin + size
        places[begin:end] = [*range(middle, end), *range(begin, middle)]
        signs[middle:end] = -1
        begin = end
    return signs * vector[..., places]


def rotated_halves(pull: jex.Jaxpr, flat: FlatState) -> list[bool]:
    """Which arrays have influence i times as large in the second half of their last axis.

    Args:
        pull: ``(θ, s, cotangent) -> (θ̄, s̄)``.
        flat: the layout of the state.
    """
    if not all(np.issubdtype(dtype, np.complexfloating) for dtype in flat.dtypes):
        return [False] * (len(pull.outvars) - 1)
    draws = np.random.default_rng(0)
    coefficients: dict[Any, np.ndarray] = {}

    def run(cotangent: np.ndarray) -> list[np.ndarray | None]:
        return _evaluate(pull, cotangent, coefficients, draws)

    def equal(a: Any, b: Any) -> bool:
        return np.allclose(a, b, rtol=1e-9, atol=1e-9 * abs(b).max(initial=0))

    cotangent = draws.normal(size=flat.size)
    *here, state = run(cotangent)
    *there, turned = run(transposed_rotation(flat, cotangent))
    if state is None or not equal(turned, transposed_rotation(flat, state)):
        return [False] * len(here)
    found = []
    for a, b in zip(here, there, strict=True):
        if a is None or b is None or a.ndim == 0 or a.shape[-1] % 2:
            found.append(False)
        else:
            half = a.shape[-1] // 2
            found.append(equal(b[..., :half], a[..., half:]))
    return found


def _evaluate(
    pull: jex.Jaxpr, cotangent: np.ndarray, coefficients: dict[Any, np.ndarray], draws: Any
) -> list[np.ndarray | None]:
    """The results that depend on the cotangent, at random values of all that does not.

    The others are None, as are those that depend on an unknown equation or on integers.
    """
    values: dict[Any, Any] = {pull.invars[-1]: cotangent}
    for eqn in pull.eqns:
        if not any(not is_literal(v) and v in values for v in eqn.invars):
            continue
        reads = [_read(v, values, coefficients, draws) for v in eqn.invars]
        known = eqn.primitive.name in _RULES and all(value is not None for value in reads)
        if known:
            results = _RULES[eqn.primitive.name](*reads, **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
        else:
            results = [None] * len(eqn.outvars)
        values.update(zip(eqn.outvars, results, strict=True))
    return [None if is_literal(v) else values.get(v) for v in pull.outvars]


def _read(v: Any, values: dict, coefficients: dict, draws: Any) -> np.ndarray | None:
    if is_literal(v):
        return np.asarray(v.val)
    if v in values or not np.issubdtype(v.aval.dtype, np.inexact):
        return values.get(v)
    if v not in coefficients:
        coefficients[v] = draws.normal(size=v.aval.shape)
        if np.issubdtype(v.aval.dtype, np.complexfloating):
            coefficients[v] = coefficients[v] + 1j * draws.normal(size=v.aval.shape)
    return coefficients[v]


def _dot_general(a, b, *, dimension_numbers, **_):
    (contract_a, contract_b), (batch_a, batch_b) = dimension_numbers
    names_a, names_b = list(range(a.ndim)), list(range(a.ndim, a.ndim + b.ndim))
    for i, j in zip((*contract_a, *batch_a), (*contract_b, *batch_b), strict=True):
        names_b[j] = names_a[i]
    own_a = [n for i, n in enumerate(names_a) if i not in (*contract_a, *batch_a)]
    own_b = [n for j, n in enumerate(names_b) if j not in (*contract_b, *batch_b)]
    return np.einsum(a, names_a, b, names_b, [*(names_a[i] for i in batch_a), *own_a, *own_b])


def _broadcast_in_dim(a, *, shape, broadcast_dimensions, **_):
    sizes = dict(zip(broadcast_dimensions, a.shape, strict=True))
    return np.broadcast_to(a.reshape([sizes.get(axis, 1) for axis in range(len(shape))]), shape)


def _slice(a, *, start_indices, limit_indices, strides, **_):
    steps = strides or (1,) * a.ndim
    return a[tuple(map(slice, start_indices, limit_indices, steps))]


def _pad(a, value, *, padding_config, **_):
    if any(min(each) < 0 or each[2] for each in padding_config):
        return None
    return np.pad(a, [each[:2] for each in padding_config], constant_values=value)


_RULES: dict[str, Callable[..., Any]] = {
    "add": lambda a, b, **_: a + b,
    "add_any": lambda a, b, **_: a + b,
    "sub": lambda a, b, **_: a - b,
    "neg": lambda a, **_: -a,
    "mul": lambda a, b, **_: a * b,
    "div": lambda a, b, **_: a / b,
    "complex": lambda a, b, **_: a + 1j * b,
    "real": lambda a, **_: np.real(a),
    "imag": lambda a, **_: np.imag(a),
    "conj": lambda a, **_: np.conj(a),
    "copy": lambda a, **_: a,
    "convert_element_type": lambda a, **_: a,
    "reshape": lambda a, *, new_sizes, **_: a.reshape(new_sizes),
    "squeeze": lambda a, *, dimensions, **_: np.squeeze(a, dimensions),
    "transpose": lambda a, *, permutation, **_: np.transpose(a, permutation),
    "reduce_sum": lambda a, *, axes, **_: a.sum(axis=tuple(axes)),
    "concatenate": lambda *parts, dimension, **_: np.concatenate(parts, dimension),
    "split": lambda a, *, sizes, axis, **_: np.split(a, np.cumsum(sizes)[:-1], axis),
    "broadcast_in_dim": _broadcast_in_dim,
    "dot_general": _dot_general,
    "slice": _slice,
    "pad": _pad,
}
