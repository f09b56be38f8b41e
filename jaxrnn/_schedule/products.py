"""The matrix products and convolutions in the loop of a schedule: how they are found and computed.

A product whose kernel depends on parameters only is separated from the equations around it, because
the gradient of its kernel is one contraction over all time steps. JAX derives the backward pass by
transposing the functions below, so the layout in which a product is written here determines how
fast its gradient is.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from jaxrnn._schedule.tangents import nonzero_tangent
from jaxrnn._schedule.trace import PARAMS, STATE, evaluate, is_literal, var_bytes
from jaxrnn._sharding import equally_varying, is_explicit
from jaxrnn._typing import Array

PRODUCTS = frozenset(["dot_general", "conv_general_dilated"])


@dataclasses.dataclass(frozen=True)
class Product:
    """A product in the loop, ``sums = split(operand @ kernel) + addends``, part by part.

    An addend is a value from before the loop (or None). The backward pass needs the sums, not the
    product, so the sums are kept.
    """

    jaxpr: jex.Jaxpr
    eqn: Any  # a jex.JaxprEqn, whose type lacks the shapes of its operands
    operand: Any
    kernel: Any
    split: jex.JaxprEqn | None
    addends: tuple[Any, ...]
    outvars: tuple[Any, ...]

    @property
    def reads(self) -> tuple[Any, ...]:
        """The variables that are read, except kernels."""
        return (self.operand, *(v for v in self.addends if v is not None))

    @property
    def is_plain(self) -> bool:
        """Whether this is ``operand [*batch, n] @ kernel [n, m]``."""
        return self.eqn.invars[0] is self.operand and is_plain_product(self.eqn)

    @property
    def is_square(self) -> bool:
        """Whether this is a plain product with square kernels ``[n, n]``, concatenated."""
        if not self.is_plain:
            return False
        rows, columns = self.kernel.aval.shape
        return columns % rows == 0


def is_plain_product(eqn: Any) -> bool:
    """Whether an equation is ``x [*batch, n] @ kernel [n, m]``."""
    if eqn.primitive.name != "dot_general":
        return False
    x, kernel = (v.aval for v in eqn.invars)
    wanted = (((x.ndim - 1,), (0,)), ((), ()))
    return kernel.ndim == 2 and eqn.params["dimension_numbers"] == wanted


def read_by(eqns) -> list[Any]:
    """The variables that equations read."""
    return [v for eqn in eqns for v in eqn.invars if not is_literal(v)]


def find_products(jaxpr, eqns, kind, outside) -> tuple[dict[int, Product], set[int]]:
    """The products, and the splits and sums that belong to them, by the ids of equations."""
    users: dict[Any, list[Any]] = {}
    for eqn in eqns:
        for v in dict.fromkeys(read_by([eqn])):
            users.setdefault(v, []).append(eqn)
    in_loop = {v for eqn in eqns for v in eqn.outvars}

    def only_user(var):
        return users[var][0] if len(users.get(var, ())) == 1 and var not in outside else None

    def operand_and_kernel(eqn):
        lhs, rhs = eqn.invars[:2]
        for operand, kernel in ((lhs, rhs), (rhs, lhs)):
            if kind[operand] == STATE and kind[kernel] == PARAMS and kernel not in in_loop:
                return operand, kernel
        return None

    products: dict[int, Product] = {}
    absorbed: set[int] = set()
    for eqn in eqns:
        if eqn.primitive.name not in PRODUCTS or any(is_literal(v) for v in eqn.invars):
            continue
        factors = operand_and_kernel(eqn)
        if factors is None or _is_outer(eqn):
            continue
        user = only_user(eqn.outvars[0])
        split = user if user is not None and user.primitive.name == "split" else None
        parts = list(eqn.outvars if split is None else split.outvars)
        addends: list[Any] = [None] * len(parts)
        for place, part in enumerate(parts):
            total = only_user(part)
            addend = None if total is None else _addend(total, part)
            if total is None or addend is None or kind[addend] == STATE or addend in in_loop:
                continue
            addends[place], parts[place] = addend, total.outvars[0]
            absorbed.add(id(total))
        if split is not None:
            absorbed.add(id(split))
        products[id(eqn)] = Product(jaxpr, eqn, *factors, split, tuple(addends), tuple(parts))
    return products, absorbed


def _addend(total, part) -> Any:
    """The variable that is added to a part of a product, if it does not broadcast the part."""
    if total.primitive.name != "add":
        return None
    others = [v for v in total.invars if v is not part]
    if len(others) != 1 or is_literal(others[0]):
        return None
    return others[0] if total.outvars[0].aval.shape == part.aval.shape else None


def _is_outer(eqn) -> bool:
    """Whether a product contracts an axis of size 1, with a result larger than its operands.

    Keeping such a result for the gradient, and stacking its cotangents for one contraction after
    the loop, costs more than recomputing it and accumulating a gradient as small as the kernel. Not
    in 16 bits: a sum over time must not be rounded at every step.
    """
    if eqn.primitive.name != "dot_general":
        return False
    (contracted, _), _ = eqn.params["dimension_numbers"]
    operands = [v.aval for v in eqn.invars]
    if not contracted or math.prod(operands[0].shape[axis] for axis in contracted) != 1:
        return False
    if not all(x.dtype.itemsize >= 4 for x in operands):
        return False
    return var_bytes(eqn.outvars[0]) > sum(map(var_bytes, eqn.invars))


# Arithmetic --------------------------------------------------------------------------------------


def multiply(product: Product, operand, kernel) -> Array:
    """The product itself, without its sums."""
    eqn = product.eqn
    (out,) = evaluate(
        product.jaxpr, [eqn], (product.operand, product.kernel), eqn.outvars, (operand, kernel)
    )
    return out


def split_parts(product: Product, whole, leading: int = 0) -> tuple[Array, ...]:
    """The parts of a product, whose result has so many leading axes more than that of one step."""
    if product.split is None:
        return (whole,)
    params = product.split.params
    return tuple(jax.lax.split(whole, tuple(map(int, params["sizes"])), params["axis"] + leading))


def join_parts(product: Product, parts, leading: int = 0) -> Array:
    """The inverse of `split_parts`."""
    if product.split is None:
        return parts[0]
    return jnp.concatenate(parts, axis=product.split.params["axis"] + leading)


def add_parts(parts, addends) -> tuple[Array, ...]:
    """The sums of a product; an addend of None is zero."""
    return tuple(
        part if addend is None else addend + part
        for part, addend in zip(parts, addends, strict=True)
    )


def multiply_and_add(product: Product, operand, kernel, addends) -> tuple[Array, ...]:
    """The sums of a product at one step, part by part."""
    return add_parts(split_parts(product, multiply(product, operand, kernel)), addends)


def _dot(eqn: Any, x, kernel, transposed: bool = False) -> Array:
    """``x @ kernel``, or ``x @ kernel.T``.

    In 16 bits the result is rounded before it is widened, so that the transpose rounds the
    cotangent first and multiplies in 16 bits too.
    """
    narrow = jnp.finfo(kernel.dtype).bits < 32
    out = jax.lax.dot_general(
        x,
        kernel,
        (((x.ndim - 1,), (1 if transposed else 0,)), ((), ())),
        precision=eqn.params["precision"],
        preferred_element_type=kernel.dtype if narrow else eqn.params["preferred_element_type"],
    )
    return out.astype(eqn.outvars[0].aval.dtype)


def multiply_plain_over_time(eqn: Any, xs, kernel) -> Array:
    """A plain product at all time steps; its transpose is the gradient of the kernel.

    The transpose contracts time and batch as two axes: merged with time, a batch that is sharded
    over devices could not stay sharded. As ``xsᵀ @ cotangents`` that is as fast as a product of two
    matrices. JAX would write ``(cotangentsᵀ @ xs)ᵀ``, which takes three times as long on a CPU,
    because XLA copies the first operand, and the cotangents are the larger one.
    """

    @jax.custom_jvp
    def multiply(xs, kernel):
        return _linear_in_kernel(eqn, *equally_varying((xs, kernel)))

    def rule(primals, tangents):
        (xs, kernel), (dxs, dkernel) = primals, map(nonzero_tangent, tangents)
        parts = []
        if dxs is not None:
            parts.append(_dot(eqn, dxs, kernel))
        if dkernel is not None:
            parts.append(multiply(xs, dkernel))
        return multiply(xs, kernel), sum(parts[1:], start=parts[0])

    multiply.defjvp(rule, symbolic_zeros=True)
    return multiply(xs, kernel)


def _linear_in_kernel(eqn: Any, xs, kernel) -> Array:
    """``xs @ kernel``, with a transpose of our own.

    A linear system is what JAX lets one give the transpose of, and batches and partitions by
    itself. This one is ``u = kernel, v - xs @ u = 0``, solved for v. JAX expects that all parts of
    a system have tangents, or none, so each zero in it is a product without terms, which depends on
    its factors formally; XLA removes it.
    """

    def zero(kernel):
        return _dot(eqn, xs[..., :0], kernel[:0])

    def matvec(solution):
        u, v = solution
        return u + _contract_over_time(eqn, xs[:0], v[:0], like=u), v - _dot(eqn, xs, u)

    def solve(_, constants):
        u, v = constants
        return u, v + _dot(eqn, xs, u)

    def transpose_solve(_, constants):
        u, v = constants
        return u + _contract_over_time(eqn, xs, v, like=kernel), v

    u, v = jax.lax.custom_linear_solve(matvec, (kernel, zero(kernel)), solve, transpose_solve)
    return v + zero(u)


def _contract_over_time(eqn: Any, xs, cotangents, like) -> Array:
    """``xsᵀ @ cotangents``, summed over time and batch.

    Over devices, too, before it is rounded to 16 bits.
    """
    axes = tuple(range(xs.ndim - 1))
    whole = jax.lax.dot_general(
        xs,
        cotangents.astype(xs.dtype),
        ((axes, axes), ((), ())),
        precision=eqn.params["precision"],
        preferred_element_type=like.dtype if like.dtype.itemsize >= 4 else "float32",
        out_sharding=jax.typeof(like).sharding if is_explicit(xs) else None,
    )
    return whole.astype(like.dtype)


def transposed_kernel(product: Product, kernel) -> Array:
    """The kernel in the layout that `linear_multiply` takes; computed once, before the loop."""
    return kernel.T if product.is_plain else kernel


def linear_multiply(product: Product, operand, kernel) -> Array:
    """The product in the tangent's loop, with a kernel from `transposed_kernel`.

    Written as ``operand @ (Wᵀ)ᵀ``, its transpose is ``cotangent @ Wᵀ``, a product of two arrays in
    row-major order.
    """
    if not product.is_plain:
        return multiply(product, operand, kernel)
    return _dot(product.eqn, operand, kernel, transposed=True)


def whole_over_time(product: Product, operands, kernel) -> Array:
    """``operand @ kernel`` at all time steps."""
    if product.is_plain:
        return multiply_plain_over_time(product.eqn, operands, kernel)
    return jax.vmap(lambda operand: multiply(product, operand, kernel))(operands)


def multiply_over_time(product: Product, operands, kernel) -> tuple[Array, ...]:
    """The parts of ``operand @ kernel`` at all time steps."""
    return split_parts(product, whole_over_time(product, operands, kernel), leading=1)
