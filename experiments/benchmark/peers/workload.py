"""Workloads, and the contenders that run them."""

import math
import zlib
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmark.timing import Program, compile_program

Pass = Literal["forward", "forward+backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward+backward")

GATES = {"lstm": 4, "gru": 3, "elman": 1, "reset-before-gru": 3, "two-speed": 3}
"""The number of blocks of `hidden` columns in the kernels of each cell."""


@dataclass(frozen=True)
class Workload:
    """One cell at one size. Contenders that run equal workloads compute the same.

    Forward returns all outputs and the final state. Forward and backward is the gradient with
    respect to the inputs, the initial state and all weights, of a loss that depends on every output
    (each with its own weight), or with `final_only` on the final state alone.
    """

    cell: str  # a key of `GATES`
    time: int
    batch: int
    inputs: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False  # every layer; the outputs of both directions are concatenated
    dtype: str = "float32"
    # Whether the inputs are `x W + b`, `[time, batch, gates * hidden]`: what FlashRNN publishes.
    gates_given: bool = False
    final_only: bool = False
    tf32: bool = False  # whether float32 products may use TensorFloat-32 on a GPU
    compiles: int = 1  # compilations, for the median of the compile time

    @property
    def name(self) -> str:
        """A short name, unique within a grid."""
        words = {
            self.cell: True,
            f"T={self.time} B={self.batch} I={self.inputs} H={self.hidden}": True,
            self.dtype: True,
            f"{self.layers} layers": self.layers > 1,
            "bidirectional": self.bidirectional,
            "gates given": self.gates_given,
            "loss on the final state": self.final_only,
        }
        return ", ".join(word for word, shown in words.items() if shown)

    @property
    def exact(self) -> bool:
        """Whether products must be in full float32 precision."""
        return self.dtype == "float32" and not self.tf32

    @property
    def directions(self) -> tuple[bool, ...]:
        """The values of `reverse` in each layer."""
        return (False, True) if self.bidirectional else (False,)

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """The number of input features of each layer."""
        above = self.hidden * len(self.directions)
        return (self.inputs, *(above for _ in range(self.layers - 1)))

    def operations(self, which: Pass) -> int:
        """Floating-point operations of the matrix products; backward takes twice as many."""
        gates = GATES[self.cell] * self.hidden
        columns = sum(self.hidden + (0 if self.gates_given else size) for size in self.input_sizes)
        forward = 2 * self.time * self.batch * columns * gates * len(self.directions)
        return forward if which == "forward" else 3 * forward

    def draw_inputs(self) -> np.ndarray:
        """Standard normal inputs, time first, in single precision."""
        size = GATES[self.cell] * self.hidden if self.gates_given else self.inputs
        shape = (self.time, self.batch, size)
        return _rng("inputs", shape).standard_normal(shape, np.float32)

    def xs(self, batch_first: bool = False) -> jax.Array:
        """The inputs as a JAX array in `dtype`."""
        xs = self.draw_inputs()
        return jnp.asarray(xs.swapaxes(0, 1) if batch_first else xs, self.dtype)

    def draw(self, shape: tuple[int, ...], salt: str) -> np.ndarray:
        """Weights or states from PyTorch's uniform distribution, in single precision."""
        bound = 1 / math.sqrt(self.hidden)
        return _rng(salt, shape).uniform(-bound, bound, shape).astype(np.float32)

    def fill(self, shapes: Any, salt: str) -> Any:
        """Draws every leaf of a pytree; leaf n depends on its shape, n and the salt only."""
        leaves, tree = jax.tree.flatten(shapes)
        drawn = [
            jnp.asarray(self.draw(leaf.shape, f"{salt} {n}"), leaf.dtype)
            for n, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(tree, drawn)


class Contender(NamedTuple):
    """A framework, or one of this library's engines."""

    title: str
    kind: Literal["jaxrnn", "jax", "torch", "by hand", "jaxrnn spread", "jax spread"]
    why_not: Callable[[Workload], str | None]  # explains why it cannot run a workload
    build: Callable[[Workload], Any]  # makes a network with the method `program` of `JaxNetwork`
    same_weights: bool = False  # whether one layer must give the results of this library's cell


def supports(
    cells: Container[str], limit: Callable[[Workload], str | None] = lambda workload: None
) -> Callable[[Workload], str | None]:
    """The `why_not` of a framework with these cells, and a limit of its own."""

    def why_not(workload: Workload) -> str | None:
        if reason := limit(workload):
            return reason
        if workload.cell not in cells:
            return f"has no {workload.cell} of this form"
        return "computes the input product itself" if workload.gates_given else None

    return why_not


def spread(contender: Contender) -> Contender:
    """A JAX contender with its batch sharded over all devices: on a CPU, a device a core."""
    devices = jax.device_count()

    def why_not(workload: Workload) -> str | None:
        if devices == 1:
            return "there is one device"
        if workload.batch % devices:
            return f"the batch is not a multiple of the {devices} devices"
        return contender.why_not(workload)

    return contender._replace(
        title=f"{contender.title}, a device a core",
        kind=f"{contender.kind} spread",
        why_not=why_not,
        build=lambda workload: contender.build(workload)._replace(devices=devices),
    )


class JaxNetwork(NamedTuple):
    """A network as a pure function, whose weights are arguments and never constants."""

    workload: Workload
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]  # (weights, state, xs) -> (state, ys)
    weights: Any
    state: Any  # the first axis is the batch
    xs: Any  # in the axis order that the framework prefers
    batch_axis: int = 1  # of xs
    devices: int = 1  # over which the batch is sharded

    def program(self, which: Pass) -> Program:
        """Compiles one pass ahead of time."""
        weights, rows, steps = self._shardings()
        options = {"exact": self.workload.exact, "compiles": self.workload.compiles}
        arguments = jax.device_put((self.weights, self.state, self.xs), (weights, rows, steps))
        if which == "forward":
            return compile_program(self.apply, arguments, shardings=(rows, steps), **options)

        def outputs(weights, state, xs):
            final_state, ys = self.apply(weights, state, xs)
            return final_state if self.workload.final_only else ys

        def gradients(cotangent, *arguments):
            _, pull = jax.vjp(outputs, *arguments)
            return pull(cotangent)

        cotangent = self.workload.fill(jax.eval_shape(outputs, *arguments), "cotangent")
        cotangent = jax.device_put(cotangent, rows if self.workload.final_only else steps)
        return compile_program(
            gradients, (cotangent, *arguments), shardings=(weights, rows, steps), **options
        )

    def _shardings(self) -> Any:
        """Those of the weights, of the state, and of inputs and outputs; None on one device."""
        if self.devices == 1:
            return None, None, None
        mesh = jax.make_mesh((self.devices,), ("rows",), axis_types=(AxisType.Auto,))
        specs = P(), P("rows"), P(*[None] * self.batch_axis, "rows")
        return tuple(NamedSharding(mesh, spec) for spec in specs)


class Layer(NamedTuple):
    """One layer in one direction, as a pure function."""

    apply: Callable[[Any, Any, Any], tuple[Any, Any]]  # (weights, state, xs) -> (state, ys)
    weights: Any
    state: Any


def stacked(
    make_layer: Callable[[Workload, int, bool], Layer], *, batch_first: bool = False
) -> Callable[[Workload], JaxNetwork]:
    """The `build` of a framework in JAX, as a stack of its layers.

    Args:
        make_layer: `(workload, input_size, reverse) -> Layer`.
        batch_first: whether the inputs are `[batch, time, features]`.
    """

    def build(workload: Workload) -> JaxNetwork:
        layers = [
            [make_layer(workload, size, reverse) for reverse in workload.directions]
            for size in workload.input_sizes
        ]

        def apply(weights, states, ys):
            finals = []
            for parts, kernels, initial in zip(layers, weights, states, strict=True):
                done = [
                    part.apply(w, s, ys) for part, w, s in zip(parts, kernels, initial, strict=True)
                ]
                finals.append([final for final, _ in done])
                ys = done[0][1] if len(done) == 1 else jnp.concatenate([y for _, y in done], -1)
            return finals, ys

        weights = [[part.weights for part in parts] for parts in layers]
        states = [[part.state for part in parts] for parts in layers]
        xs = workload.xs(batch_first)
        return JaxNetwork(workload, apply, weights, states, xs, 0 if batch_first else 1)

    return build


def _rng(salt: str, shape: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(salt.encode()), *shape])
