"""Bidirectional layers."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_init
from jaxrnn._cell import Cell, can_step, input_rank
from jaxrnn._frozen import frozen
from jaxrnn._masking import safe_inputs, valid_steps, zero_skipped
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines._levels import Level, NotLevels, levels_of
from jaxrnn.layers import _at_once
from jaxrnn.layers._layer import Layer, check_parts
from jaxrnn.layers.recurrent import Recurrent, as_layer
from jaxrnn.layers.stack import Stack


class BidirectionalParams(NamedTuple):
    """Parameters of `Bidirectional`."""

    forward: PyTree
    backward: PyTree


class BidirectionalState(NamedTuple):
    """State of `Bidirectional`."""

    forward: PyTree
    backward: PyTree


def concatenate(forward: Array, backward: Array) -> Array:
    """Concatenates the features of the forward and the backward layer."""
    return jnp.concatenate([forward, backward], axis=-1)


@frozen
class Bidirectional:
    """Runs one layer forward and another backward in time, and merges their outputs.

        ys[t] = merge(forward(xs[0], ..., xs[t]), backward(xs[time - 1], ..., xs[t]))

    With lengths or a mask the backward layer starts at the last valid step of each row, and a start
    separates the same steps in both directions. There is no ``step``, because the layer needs the
    whole sequence.

    Args:
        forward: a unidirectional layer or a cell.
        backward: another, which runs in reverse; a `Stack` is reversed layer by layer.
        merge: ``(ys_forward, ys_backward) -> ys``, elementwise over time and batch; default:
            concatenation of the features. The layer pickles if this is a module-level function.

    Shapes:
        xs ``[time, *batch, features]``; ys ``[time, *batch, forward + backward features]``, or the
        shape that ``merge`` returns. Parameters are ``BidirectionalParams(forward, backward)``, the
        state ``BidirectionalState(forward, backward)``: the state of the backward layer is the one
        after the first step of the sequence.

    Raises:
        TypeError: an argument is not a layer, or ``merge`` is not callable.
        ValueError: a layer is not unidirectional, or has been reversed already.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> layer = rnn.layers.Bidirectional(rnn.LSTM(4), rnn.LSTM(4))
        >>> params = layer.init(jax.random.key(0), input_size=3)
        >>> final, ys = layer.apply(params, None, jax.numpy.ones((7, 2, 3)))
        >>> ys.shape, bool((final.backward.hidden == ys[0, :, 4:]).all())
        ((7, 2, 8), True)

    References:
        M. Schuster and K. Paliwal, "Bidirectional recurrent neural networks", IEEE Transactions on
        Signal Processing 45, 1997.
    """

    forward: Layer | Cell
    backward: Layer | Cell
    merge: Callable[[PyTree, PyTree], PyTree] = concatenate

    def __post_init__(self):
        for name in ("forward", "backward"):
            layer = as_layer(getattr(self, name), name)
            if not can_step(layer):
                raise ValueError(
                    f"{name} must be a layer that runs forward, step by step, got {layer!r}; "
                    "Bidirectional reverses its second layer itself: remove reverse=True, and "
                    "combine a Bidirectional with other layers in a Stack"
                )
            object.__setattr__(self, name, layer)
        if not callable(self.merge):
            raise TypeError(
                f"merge must be a function of two arrays, got {self.merge!r}; write e.g. "
                "merge=operator.add, or omit it to concatenate"
            )
        reverse_layer(self.backward)

    @property
    def output_size(self) -> int | None:
        """The number of features that ``merge`` returns; None for a tree."""
        sizes = self.forward.output_size, self.backward.output_size
        if None in sizes:
            return None
        merged = jax.eval_shape(self.merge, *(jax.ShapeDtypeStruct((n,), "float32") for n in sizes))
        return merged.shape[-1] if isinstance(merged, jax.ShapeDtypeStruct) else None

    @property
    def input_rank(self) -> int:
        """That of the forward layer."""
        return input_rank(self.forward)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The cells by level and direction, for engines that run a network in one call."""
        pair = [*levels_of(self.forward), *levels_of(self.backward)]
        if len(pair) != 2:
            raise NotLevels(
                "has both directions in each layer, not a stack in each direction: make a stack of "
                "bidirectional layers, or call the two stacks separately"
            )
        if self.merge is not concatenate:
            raise NotLevels(f"concatenates the two directions, and this merge is {self.merge!r}")
        forward, backward = pair
        return (Level(forward.cells + backward.cells, forward.engines + backward.engines),)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> BidirectionalParams:
        """Draws the parameters of both layers."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key)
        return BidirectionalParams(
            self.forward.init(keys[0], input_size, dtype),
            self.backward.init(keys[1], input_size, dtype),
        )

    def init_state(
        self, params: BidirectionalParams, batch_shape: tuple[int, ...] = ()
    ) -> BidirectionalState:
        """Returns the initial states of both layers."""
        check_parts("params", params, 2, "make them with init")
        return BidirectionalState(
            self.forward.init_state(params[0], batch_shape),
            self.backward.init_state(params[1], batch_shape),
        )

    def apply(
        self,
        params: BidirectionalParams,
        state: BidirectionalState | None,
        xs: PyTree,
        *,
        lengths: Any = None,
        mask: Any = None,
        starts: Any = None,
        key: Array | None = None,
    ) -> tuple[BidirectionalState, PyTree]:
        """Runs both layers over a sequence; see `jaxrnn.unroll` for the arguments."""
        check_parts("params", params, 2, "make them with init")
        if state is not None:
            check_parts("state", state, 2, "make it with init_state, or pass None")
        return _at_once.apply(self, params, state, xs, lengths, mask, starts, key)

    def one_by_one(
        self, params, state, xs, lengths=None, mask=None, starts=None, key=None
    ) -> tuple[BidirectionalState, PyTree]:
        """`apply` with a call for each direction."""
        finals, outputs = [], []
        forward: Any = self.forward  # a layer: __post_init__ converts bare cells
        for i, layer in enumerate((forward, reverse_layer(self.backward))):
            final, ys = layer.apply(
                params[i],
                None if state is None else state[i],
                xs,
                lengths=lengths,
                mask=mask,
                starts=starts,
                key=None if key is None else jax.random.fold_in(key, i),
            )
            finals.append(final)
            outputs.append(ys)
        valid = valid_steps(xs, lengths, mask)
        if valid is not None:
            # The gradient of merge may be undefined at the zeros of skipped steps.
            outputs = safe_inputs(outputs, valid)
        return BidirectionalState(*finals), zero_skipped(self.merge(*outputs), valid)


def reverse_layer(layer: Any) -> Layer:
    """The same layer, running backward in time."""
    if isinstance(layer, Recurrent):
        return dataclasses.replace(layer, reverse=True)
    if isinstance(layer, Stack):
        return dataclasses.replace(layer, layers=tuple(map(reverse_layer, layer.layers)))
    raise TypeError(
        f"backward must be a cell, a Recurrent or a Stack of these, which can be reversed, got "
        f"{layer!r}"
    )
