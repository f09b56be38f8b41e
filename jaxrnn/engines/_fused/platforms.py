"""A function with a kernel on some platforms and a reference everywhere.

JAX knows the reference: shapes, derivatives and batching are the reference's. Only when a program
is lowered is the kernel put in its place, if the platform of the program has one, so an exported or
ahead-of-time program contains the kernel of the machine that it will run on. A kernel may also
stand for the transpose of a linear function.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend.core as jex
from jax.core import ShapedArray
from jax.interpreters import ad, batching, mlir

from jaxrnn._sharding import equally_varying


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """A function of arrays, compared by identity; each callable takes and returns a sequence.

    Attributes:
        reference: the function in JAX's own operations.
        kernels: by platform, "cuda" or "tpu"; the kernel "interpreted" is called in any case.
        linear: the number of leading arguments in which the function is linear, or 0.
        transpose: ``(other arguments, cotangents) -> cotangents of the leading arguments``.
    """

    reference: Callable
    kernels: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    linear: int = 0
    transpose: Callable | None = None
    shapes: dict[Any, Any] = dataclasses.field(default_factory=dict)  # of the results, a cache

    def __call__(self, *args: Any) -> list[Any]:
        """Calls the implementation of the platform that the program is lowered for."""
        if "interpreted" in self.kernels:  # an interpreter has effects, which a primitive hides
            return list(self.kernels["interpreted"](*args))
        return _function_p.bind(*equally_varying(args), function=self)


_function_p = jex.Primitive("fused")
_function_p.multiple_results = True


@_function_p.def_impl
def _run(*args, function):
    return jax.jit(functools.partial(_function_p.bind, function=function))(*args)


@_function_p.def_abstract_eval
def _shapes(*avals, function):
    if avals not in function.shapes:
        function.shapes[avals] = jax.make_jaxpr(function.reference)(*avals).out_avals
    return function.shapes[avals]


def _jvp(primals, tangents, *, function):
    tangents = tuple(ad.instantiate_zeros(tangent) for tangent in tangents)
    return jax.jvp(function.reference, tuple(primals), tangents)


def _transpose(cotangents, *args, function):
    others, known = args[function.linear :], [ad.is_undefined_primal(arg) for arg in args]
    cotangents = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    results = function.transpose(others, cotangents)
    wanted = [r if k else None for r, k in zip(results, known[: function.linear], strict=True)]
    return [*wanted, *(None for _ in others)]


def _batch(args, axes, *, function):
    results = jax.vmap(function.reference, axes)(*args)
    return results, [0] * len(results)


def _lower(platform: str | None):
    def rule(ctx, *args, function):
        kernel = function.kernels.get(platform)
        if kernel is None:
            return mlir.lower_fun(function.reference)(ctx, *args)
        # A kernel runs on one device: to it, no value varies over the axes of a mesh.
        local = [ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
        results = [ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_out]
        return mlir.lower_fun(kernel)(ctx.replace(avals_in=local, avals_out=results), *args)

    return rule


ad.primitive_jvps[_function_p] = _jvp
ad.primitive_transposes[_function_p] = _transpose
batching.primitive_batchers[_function_p] = _batch
mlir.register_lowering(_function_p, _lower(None))
mlir.register_lowering(_function_p, _lower("cuda"), platform="cuda")
mlir.register_lowering(_function_p, _lower("tpu"), platform="tpu")
