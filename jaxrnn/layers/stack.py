"""Stacks of layers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_init, check_rate
from jaxrnn._cell import Cell, bind_with_key, can_step, input_rank, is_stochastic, step_with_key
from jaxrnn._frozen import frozen
from jaxrnn._masking import safe_inputs, valid_steps, zero_skipped
from jaxrnn._numerics import dropout
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines._levels import Level, NotLevels, levels_of
from jaxrnn.layers import _at_once
from jaxrnn.layers._layer import Layer, check_parts
from jaxrnn.layers.recurrent import as_layer


class NormalizedParams(NamedTuple):
    """Parameters of a layer of a `Stack` with normalization of its input."""

    normalization: PyTree
    layer: PyTree


@frozen
class Stack:
    """A stack of layers, with dropout, normalization and residual connections between them.

        u_1 = h_0 = xs
        u_l = dropout(normalize(h_{l-1}))                     for l > 1
        h_l = layer_l(u_l) (+ h_{l-1} where residual)         for l = 1, 2, ..., L
        ys = h_L

    There is no dropout or normalization before the first layer and after the last, and residual
    connections bypass both. A stack of unidirectional layers is also a `Cell`: its ``step`` decodes
    and samples, and wrappers apply to it.

    Args:
        layers: layers or cells, the first of which sees the inputs.
        dropout: the probability of setting a feature between two layers to zero, drawn at each
            step; kept features are scaled by 1 / (1 - dropout).
        residual: whether to add a layer's input to its output; one bool, or a tuple with one for
            each layer, e.g. ``(False, True, True)`` if the first layer changes the size.
        normalization: any value with ``init(key, x) -> params`` and ``apply(params, x) -> y`` that
            normalizes the features (the last axis): a Flax module such as
            ``flax.linen.LayerNorm()``, or a frozen dataclass. It applies to the input of each layer
            but the first, with separate parameters.

    Shapes:
        xs ``[time, *batch, features]``, ys ``[time, *batch, output_size]``. Parameters and state
        are tuples with an entry for each layer; with normalization, the parameters of all layers
        but the first are ``NormalizedParams(normalization, layer)``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: there is no layer, ``dropout`` is not in [0, 1), or a layer with ``residual``
            has input and output of different sizes.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> stack = rnn.layers.Stack((rnn.LSTM(8), rnn.GRU(8)), dropout=0.2, residual=(False, True))
        >>> params = stack.init(jax.random.key(0), input_size=3)
        >>> xs = jax.numpy.ones((7, 2, 3))
        >>> state, ys = stack.apply(params, None, xs, key=jax.random.key(1))
        >>> state, y = stack.step(params, state, xs[0])
        >>> ys.shape, y.shape
        ((7, 2, 8), (2, 8))

    References:
        W. Zaremba, I. Sutskever and O. Vinyals, "Recurrent neural network regularization", 2014
        (dropout between layers only).
        Y. Wu et al., "Google's neural machine translation system", 2016, section 3.1 (residual
        connections between recurrent layers).

    Note:
        Dropout is applied where PyTorch's ``nn.LSTM(dropout=...)`` applies it. `apply` runs one
        layer over all time steps, then the next; `jaxrnn.unroll` of a stack runs all layers at each
        step. Without a key both agree; with a key their draws differ.
    """

    layers: tuple[Layer | Cell, ...]
    dropout: float = 0.0
    residual: bool | tuple[bool, ...] = False
    normalization: Any = None

    def __post_init__(self):
        if not isinstance(self.layers, tuple | list):
            raise TypeError(
                f"layers must be a tuple of layers or cells, got {self.layers!r}; for one layer "
                "write (layer,)"
            )
        if not self.layers:
            raise ValueError("layers must hold at least one layer, got ()")
        layers = tuple(as_layer(layer, f"layers[{i}]") for i, layer in enumerate(self.layers))
        residual = self.residual
        if isinstance(residual, bool):
            residual = (residual,) * len(layers)
        check_parts("residual", residual, len(layers), "pass one bool, or one for each layer")
        if not all(isinstance(flag, bool) for flag in residual):
            raise TypeError(f"residual must hold bools, got {residual!r}")
        check_rate("dropout", self.dropout)
        _check_normalization(self.normalization)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "residual", residual[0] if len({*residual}) == 1 else residual)

    @property
    def output_size(self) -> int | None:
        """That of the last layer."""
        return self.layers[-1].output_size

    @property
    def input_rank(self) -> int:
        """That of the first layer."""
        return input_rank(self.layers[0])

    @property
    def stochastic(self) -> bool:
        """Whether ``step`` uses a key."""
        return self.dropout > 0 or any(map(is_stochastic, self.layers))

    @property
    def can_step(self) -> bool:
        """Whether all layers run one step at a time."""
        return all(map(can_step, self.layers))

    @property
    def levels(self) -> tuple[Level, ...]:
        """The cells by level and direction, for engines that run a network in one call."""
        if self.residual is not False or self.normalization is not None:
            raise NotLevels("has no residual connections and no normalization between layers")
        return tuple(level for layer in self.layers for level in levels_of(layer))

    def init(self, key: Array, input_size: int, dtype: Any = None) -> tuple[PyTree, ...]:
        """Draws the parameters of all layers and normalizations."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, (len(self.layers), 2))
        params, size = [], input_size
        for i, layer in enumerate(self.layers):
            if size is None:
                raise ValueError(
                    f"layers[{i}] needs an input size, but layers[{i - 1}].output_size is None; "
                    "set it, e.g. jaxrnn.from_step(..., output_size=16)"
                )
            if self._residual[i] and layer.output_size != size:
                self._refuse_residual(i, f"{size} features", layer.output_size)
            drawn = layer.init(keys[i, 0], size, dtype)
            if i > 0 and self.normalization is not None:
                scales = self.normalization.init(keys[i, 1], jnp.zeros((size,), dtype))
                scales = jax.tree.map(lambda leaf: leaf.astype(dtype), scales)
                drawn = NormalizedParams(scales, drawn)
            params.append(drawn)
            size = layer.output_size
        return tuple(params)

    def init_state(self, params: tuple, batch_shape: tuple[int, ...] = ()) -> tuple[PyTree, ...]:
        """Returns the initial states of all layers."""
        return tuple(
            layer.init_state(own, batch_shape)
            for layer, own in zip(self.layers, self._layer_params(params), strict=True)
        )

    def bind(self, params: tuple, key: Array, batch_shape: tuple[int, ...]) -> tuple:
        """Makes the random draws of one sequence, separately for each layer."""
        keys = jax.random.split(key, len(self.layers))
        bound = [
            bind_with_key(layer, own, k, batch_shape)
            for layer, own, k in zip(self.layers, self._layer_params(params), keys, strict=True)
        ]
        if self.normalization is None:
            return tuple(bound)
        pairs = zip(params[1:], bound[1:], strict=True)
        return (bound[0], *(both._replace(layer=own) for both, own in pairs))

    def step(
        self, params: tuple, state: tuple, x: PyTree, *, key: Array | None = None
    ) -> tuple[tuple, PyTree]:
        """One step of all layers."""

        def run(layer, params, state, x, key):
            return step_with_key(layer, params, state, x, key)

        return self._through(run, params, state, x, key)

    def apply(
        self,
        params: tuple,
        state: tuple | None,
        xs: PyTree,
        *,
        lengths: Any = None,
        mask: Any = None,
        starts: Any = None,
        key: Array | None = None,
    ) -> tuple[tuple, PyTree]:
        """Runs the layers over a sequence, one after another; arguments as in `jaxrnn.unroll`."""
        return _at_once.apply(self, params, state, xs, lengths, mask, starts, key)

    def one_by_one(
        self, params, state, xs, lengths=None, mask=None, starts=None, key=None
    ) -> tuple[tuple, PyTree]:
        """`apply` with a call for each layer."""
        if state is None:
            state = (None,) * len(self.layers)

        def run(layer, params, state, xs, key):
            return layer.apply(
                params, state, xs, lengths=lengths, mask=mask, starts=starts, key=key
            )

        return self._through(run, params, state, xs, key, lengths, mask)

    def _through(self, run, params, state, h, key, lengths=None, mask=None):
        """Runs all layers on one step or on a sequence; ``run`` runs one layer."""
        check_parts("state", state, len(self.layers), "make it with init_state")
        own = self._layer_params(params)
        keys = [(None, None)] * len(own) if key is None else jax.random.split(key, (len(own), 2))
        new_state, valid = [], None
        for i, layer in enumerate(self.layers):
            u = h
            if i > 0:
                if self.normalization is not None:
                    # Its gradient may be undefined at the zeros of skipped steps.
                    u = h if valid is None else safe_inputs(h, valid)
                    u = self.normalization.apply(params[i].normalization, u)
                u = dropout(keys[i][1], self.dropout, u)
            layer_state, y = run(layer, own[i], state[i], u, keys[i][0])
            if i == 0:
                valid = valid_steps(h, lengths, mask)  # after the first layer has checked them
            if self._residual[i]:
                shapes = [jax.tree.map(jnp.shape, tree) for tree in (h, y)]
                if shapes[0] != shapes[1]:
                    self._refuse_residual(i, *shapes)
                y = jax.tree.map(jnp.add, y, zero_skipped(h, valid))
            new_state.append(layer_state)
            h = y
        return tuple(new_state), h

    @property
    def _residual(self) -> tuple[bool, ...]:
        """A bool for each layer."""
        flags = self.residual
        return (flags,) * len(self.layers) if isinstance(flags, bool) else flags

    def _layer_params(self, params: Any) -> list[PyTree]:
        """The parameters of the layers, without those of the normalizations."""
        check_parts("params", params, len(self.layers), "make them with init")
        if self.normalization is None:
            return list(params)
        return [params[0], *(both.layer for both in params[1:])]

    def _refuse_residual(self, i: int, incoming: Any, outgoing: Any):
        raise ValueError(
            f"residual needs equal shapes of layers[{i}]'s input and output, got {incoming} and "
            f"{outgoing}; change the sizes, or pass a bool for each layer, "
            f"residual={tuple(flag and j != i for j, flag in enumerate(self._residual))}"
        )


def _check_normalization(value: Any) -> None:
    """Raises unless ``value`` is None or a hashable instance with ``init`` and ``apply``."""
    if value is None:
        return
    members = (getattr(value, name, None) for name in ("init", "apply"))
    if isinstance(value, type) or not all(map(callable, members)):
        raise TypeError(
            "normalization must be an instance with init(key, x) and apply(params, x), got "
            f"{value!r}; write e.g. normalization=flax.linen.LayerNorm()"
        )
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"normalization must be hashable (a frozen dataclass), got {value!r}"
        ) from error
