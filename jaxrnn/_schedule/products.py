"""Matrix products whose transposes are fast: the arithmetic of `Hoisted`.

JAX writes the backward pass by transposing these functions, so the layout in which a product is
written here decides how fast its gradient is.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._schedule.pieces import Piece, Product
from jaxrnn._schedule.trace import evaluate, is_literal


def is_plain_product(eqn: Any) -> bool:
    """Whether an equation is ``x [*batch, n] @ kernel [n, m]``."""
    if eqn.primitive.name != "dot_general":
        return False
    x, kernel = (v.aval for v in eqn.invars)
    wanted = (((x.ndim - 1,), (0,)), ((), ()))
    return kernel.ndim == 2 and eqn.params["dimension_numbers"] == wanted


def _is_plain(product: Product) -> bool:
    return product.eqn.invars[0] is product.operand and is_plain_product(product.eqn)


def multiply(product: Product, operand, kernel):
    """The product itself, without its sums."""
    eqn = product.eqn
    (out,) = evaluate(
        product.jaxpr, [eqn], (product.operand, product.kernel), eqn.outvars, (operand, kernel)
    )
    return out


def cut(product: Product, whole) -> tuple[Any, ...]:
    """The parts of a product."""
    if product.split is None:
        return (whole,)
    params = product.split.params
    return tuple(jax.lax.split(whole, tuple(map(int, params["sizes"])), params["axis"]))


def _dot(eqn: Any, x, kernel, transposed: bool = False):
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


def _flatten(xs):
    """All time steps and rows as one axis.

    Contracted over two axes, XLA's CPU compiler would lay out the cotangent anew and multiply at a
    third of the rate (36 against 13 ms for 4096×256×1024). Axes that are laid over a mesh
    explicitly cannot be made one.
    """
    if any(jax.typeof(xs).sharding.spec):
        return xs
    return xs.reshape(-1, xs.shape[-1])


def multiply_all(eqn: Any, xs, kernel):
    """A plain product at all time steps at once; the transpose is the gradient of the kernel."""

    # What the gradient needs is kept as it came, not once more as one axis.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def multiply(xs, kernel):
        return _dot(eqn, _flatten(xs), kernel).reshape(*xs.shape[:-1], kernel.shape[1])

    return multiply(xs, kernel)


def transposed(product: Product, kernel):
    """The kernel as `linear_multiply` wants it: laid out once, before the loop."""
    return kernel.T if _is_plain(product) else kernel


def linear_multiply(product: Product, operand, kernel):
    """The product in the tangent's loop, with a kernel from `transposed`.

    Written as ``operand @ (Wᵀ)ᵀ``, its transpose is ``cotangent @ Wᵀ``, a product of two arrays as
    they lie in memory.
    """
    if not _is_plain(product):
        return multiply(product, operand, kernel)
    return _dot(product.eqn, operand, kernel, transposed=True)


def for_all_time(product: Product, operands, dkernel) -> tuple[Any, ...]:
    """The parts of ``operand @ dkernel`` at all time steps; the transpose is dW.

    Where the kernel can be cut, parts are multiplied one by one, so that their cotangents need not
    be put together.
    """
    if _is_plain(product):
        whole = multiply_all(product.eqn, operands, dkernel)
        if product.split is None:
            return (whole,)
        params = product.split.params
        return tuple(jax.lax.split(whole, tuple(map(int, params["sizes"])), params["axis"] + 1))

    def one(operand):
        return cut(product, multiply(product, operand, dkernel))

    return jax.vmap(one)(operands)


def over_time(piece: Piece, once: dict, stacked: dict) -> None:
    """Evaluates a piece for all time steps at once."""
    for eqn in piece.eqns:
        free = list(dict.fromkeys(v for v in eqn.invars if not is_literal(v)))
        args = [stacked[v] if v in stacked else once[v] for v in free]
        if is_plain_product(eqn) and eqn.invars[0] in stacked and eqn.invars[1] in once:
            results = [multiply_all(eqn, stacked[eqn.invars[0]], once[eqn.invars[1]])]
        else:
            axes = [0 if v in stacked else None for v in free]
            if not any(v in stacked for v in free):
                results = evaluate(piece.jaxpr, [eqn], free, eqn.outvars, args)
                once.update(zip(eqn.outvars, results, strict=True))
                continue

            def step(*args, eqn=eqn, free=free):
                return evaluate(piece.jaxpr, [eqn], free, eqn.outvars, args)

            results = jax.vmap(step, axes)(*args)
        stacked.update(zip(eqn.outvars, results, strict=True))
