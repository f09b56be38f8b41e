"""Workloads, and the contenders that run them."""

import math
import zlib
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

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

    Args:
        cell: a key of `GATES`.
        time: steps.
        batch: sequences per batch.
        inputs: features of an input.
        hidden: features of a hidden state.
        layers: number of stacked recurrent layers.
        bidirectional: whether every layer also runs in reverse; the outputs are concatenated.
        dtype: of weights and inputs.
        gates_given: whether `x W + b` is already computed, so that the inputs are
            `[time, batch, gates * hidden]`: FlashRNN's published times exclude it.
        final_only: whether the loss depends on the final state only.
        tf32: whether float32 products may use TensorFloat-32 on a GPU.
        compiles: how often a contender is compiled, for the median of the compile time.
    """

    cell: str
    time: int
    batch: int
    inputs: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    dtype: str = "float32"
    gates_given: bool = False
    final_only: bool = False
    tf32: bool = False
    compiles: int = 1

    @property
    def name(self) -> str:
        """A short name, unique within a grid."""
        sizes = f"T={self.time} B={self.batch} I={self.inputs} H={self.hidden}"
        words = [self.cell, sizes, self.dtype]
        if self.layers > 1:
            words.append(f"{self.layers} layers")
        if self.bidirectional:
            words.append("bidirectional")
        if self.gates_given:
            words.append("gates given")
        if self.final_only:
            words.append("loss on the final state")
        return ", ".join(words)

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


class Network(Protocol):
    """A contender's network, with its weights."""

    def program(self, which: Pass) -> Program:
        """Prepares one pass for timing."""
        ...


class Contender(Protocol):
    """A framework, or one of this library's engines."""

    def why_not(self, workload: Workload) -> str | None:
        """Explains why this contender cannot run the workload; None if it can."""
        ...

    def build(self, workload: Workload) -> Network:
        """Makes the network."""
        ...


@dataclass(frozen=True)
class Peer:
    """A framework as a contender.

    Args:
        cells: those keys of `GATES` that it has.
        build: makes the network.
        limit: explains what else it cannot run.
        takes_gates: whether it can leave out the input product.
    """

    cells: Container[str]
    build: Callable[[Workload], Network]
    limit: Callable[[Workload], str | None] = lambda workload: None
    takes_gates: bool = False

    def why_not(self, workload: Workload) -> str | None:
        """Explains why this peer cannot run the workload; None if it can."""
        if reason := self.limit(workload):
            return reason
        if workload.cell not in self.cells:
            return f"has no {workload.cell} of this form"
        if workload.gates_given and not self.takes_gates:
            return "computes the input product itself"
        return None


@dataclass(frozen=True)
class JaxNetwork:
    """A network as a pure function, whose weights are arguments and never constants.

    Args:
        workload: what it computes.
        apply: `(weights, state, xs) -> (final_state, ys)`.
        weights: the trainable parameters.
        state: the initial state.
        xs: the inputs, in the axis order that the framework prefers.
    """

    workload: Workload
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    weights: Any
    state: Any
    xs: Any

    def program(self, which: Pass) -> Program:
        """Compiles one pass ahead of time."""
        options = {"exact": self.workload.exact, "compiles": self.workload.compiles}
        arguments = (self.weights, self.state, self.xs)
        if which == "forward":
            return compile_program(self.apply, arguments, **options)

        def outputs(weights, state, xs):
            final_state, ys = self.apply(weights, state, xs)
            return final_state if self.workload.final_only else ys

        def gradients(cotangent, *arguments):
            _, pull = jax.vjp(outputs, *arguments)
            return pull(cotangent)

        cotangent = self.workload.fill(jax.eval_shape(outputs, *arguments), "cotangent")
        return compile_program(gradients, (cotangent, *arguments), **options)


class Layer(NamedTuple):
    """One layer in one direction, as a pure function."""

    apply: Callable[[Any, Any, Any], tuple[Any, Any]]  # (weights, state, xs) -> (state, ys)
    weights: Any
    state: Any


def layer_peer(
    cells: Container[str],
    make_layer: Callable[[Workload, int, bool], Layer],
    *,
    batch_first: bool = False,
    **options: Any,
) -> Peer:
    """A framework in JAX, as a stack of its layers.

    Args:
        cells: those keys of `GATES` that it has.
        make_layer: `(workload, input_size, reverse) -> Layer`.
        batch_first: whether its inputs are `[batch, time, features]`.
        **options: of `Peer`.
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
        xs = workload.draw_inputs()
        xs = jnp.asarray(xs.swapaxes(0, 1) if batch_first else xs, workload.dtype)
        return JaxNetwork(workload, apply, weights, states, xs)

    return Peer(cells, build, **options)


def _rng(salt: str, shape: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(salt.encode()), *shape])
