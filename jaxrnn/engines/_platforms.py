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
import jax.numpy as jnp
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
        shared: the positions of the arguments that a kernel reads alike for all examples; where
            `jax.vmap` maps over one of them, it maps over the reference, else over the kernels.
    """

    reference: Callable
    kernels: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    linear: int = 0
    transpose: Callable | None = None
    shared: tuple[int, ...] = ()
    shapes: dict[Any, Any] = dataclasses.field(default_factory=dict)  # of the results, a cache

    def __call__(self, *args: Any) -> list[Any]:
        """Calls the implementation of the platform that the program is lowered for."""
        if "interpreted" in self.kernels:  # an interpreter has effects, which a primitive hides
            return list(self.kernels["interpreted"](*args))
        return _function_p.bind(*equally_varying(args), function=self)

    def mapped(self, axes: tuple[int | None, ...]) -> "Function":
        """The function under `jax.vmap`; results are mapped over their first axis."""
        one_call = all(axes[number] is None for number in self.shared)
        kernels = {name: jax.vmap(f, axes) for name, f in self.kernels.items() if one_call}
        pull = self.transpose
        if pull is None:
            return Function(jax.vmap(self.reference, axes), kernels, shared=self.shared)

        def transpose(others, cotangents):
            moved = tuple(axes[self.linear :]), 0
            results = jax.vmap(pull, moved)(tuple(others), list(cotangents))
            return [
                result.sum(0) if axis is None else jnp.moveaxis(result, 0, axis)
                for result, axis in zip(results, axes[: self.linear], strict=True)
            ]

        reference = jax.vmap(self.reference, axes)
        return Function(reference, kernels, self.linear, transpose, self.shared)


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
    results = function.mapped(tuple(axes))(*args)
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
