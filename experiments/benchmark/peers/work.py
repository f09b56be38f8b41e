"""What every contender is given, and what it gives back."""

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import timing as _timing

Pass = Literal["forward", "forward+backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward+backward")

GATES = {"lstm": 4, "gru": 3, "elman": 1, "reset-before-gru": 3, "two-speed": 3}
"""How many blocks of `hidden` columns the kernels of each cell have."""


@dataclass(frozen=True)
class Work:
    """One cell at one size. Two contenders given equal works do the same.

    Forward returns all outputs and the final state. Forward and backward together are the gradient
    with respect to the inputs, the initial state and all weights, of a loss that depends on every
    output (each with a weight of its own), or with `final_only` on the final state alone.

    Args:
        cell: a key of `GATES`.
        time: steps.
        batch: rows.
        inputs: features of an input.
        hidden: features of a hidden state.
        layers: recurrent layers, one upon the other.
        bidirectional: whether every layer also runs in reverse, on outputs put side by side.
        dtype: of weights and inputs.
        gates_given: whether `x W + b` has been computed already, so that the inputs are
            `[time, batch, gates * hidden]`: what FlashRNN's published times leave out.
        final_only: whether the loss depends on the final state only.
        tf32: whether float32 products may use TensorFloat-32 on a GPU.
        compiles: how often a contender that is compiled is compiled, for a median of the time.
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
        """A short name that tells works of one grid apart."""
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
        """Whether products must be exact float32 ones."""
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
        """Floating-point operations of the matrix products: the backward pass has twice as many."""
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
        """Uniform numbers of PyTorch's scale, for weights and states, in single precision."""
        bound = 1 / math.sqrt(self.hidden)
        return _rng(salt, shape).uniform(-bound, bound, shape).astype(np.float32)

    def fill(self, shapes: Any, salt: str) -> Any:
        """Draws every leaf of a pytree; leaf n depends on its shape, n and the salt alone."""
        leaves, tree = jax.tree.flatten(shapes)
        drawn = [
            jnp.asarray(self.draw(leaf.shape, f"{salt} {n}"), leaf.dtype)
            for n, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(tree, drawn)


class Network(Protocol):
    """A contender's network, its weights drawn."""

    def program(self, which: Pass) -> "_timing.Program":
        """Makes one pass ready to be timed."""
        ...


class Contender(Protocol):
    """A library, or one of this library's engines."""

    def why_not(self, work: Work) -> str | None:
        """Says why this contender cannot do the work, or None if it can."""
        ...

    def build(self, work: Work) -> Network:
        """Makes the network."""
        ...


@dataclass(frozen=True)
class JaxNetwork:
    """A network as a pure function, whose weights are arguments and never constants.

    Args:
        work: what it does.
        apply: `(weights, state, xs) -> (final_state, ys)`.
        weights: what is trained.
        state: the initial state.
        xs: the inputs, in the axis order that the library likes best.
    """

    work: Work
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    weights: Any
    state: Any
    xs: Any

    def program(self, which: Pass) -> _timing.Program:
        """Compiles one pass ahead of time."""
        compile_program = functools.partial(
            _timing.compile_program, exact=self.work.exact, compiles=self.work.compiles
        )
        arguments = (self.weights, self.state, self.xs)
        if which == "forward":
            return compile_program(self.apply, arguments)

        def outputs(weights, state, xs):
            final_state, ys = self.apply(weights, state, xs)
            return final_state if self.work.final_only else ys

        def gradients(cotangent, *arguments):
            _, pull = jax.vjp(outputs, *arguments)
            return pull(cotangent)

        cotangent = self.work.fill(jax.eval_shape(outputs, *arguments), "cotangent")
        return compile_program(gradients, (cotangent, *arguments))


class Layer(NamedTuple):
    """One layer in one direction, as a pure function."""

    apply: Callable[[Any, Any, Any], tuple[Any, Any]]  # (weights, state, xs) -> (state, ys)
    weights: Any
    state: Any


def stack(work: Work, make_layer: Callable[[int, bool], Layer], xs: Any) -> JaxNetwork:
    """Puts layers side by side and upon one another.

    Args:
        work: how many layers and directions there are.
        make_layer: `(input_size, reverse) -> Layer`.
        xs: the inputs.
    """
    layers = [
        [make_layer(size, reverse) for reverse in work.directions] for size in work.input_sizes
    ]

    def apply(weights, states, ys):
        finals = []
        for parts, kernels, initial in zip(layers, weights, states, strict=True):
            done = [
                part.apply(w, s, ys) for part, w, s in zip(parts, kernels, initial, strict=True)
            ]
            finals.append([final for final, _ in done])
            ys = done[0][1] if len(done) == 1 else jnp.concatenate([y for _, y in done], axis=-1)
        return finals, ys

    weights = [[part.weights for part in parts] for parts in layers]
    states = [[part.state for part in parts] for parts in layers]
    return JaxNetwork(work, apply, weights, states, xs)


def refusal(work: Work, cells: Any) -> str | None:
    """Why a library that has only these cells cannot do the work, or None."""
    if work.cell not in cells:
        return f"has no {work.cell} of this form"
    if work.gates_given:
        return "computes the input product itself"
    return None


def _rng(salt: str, shape: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(salt.encode()), *shape])
