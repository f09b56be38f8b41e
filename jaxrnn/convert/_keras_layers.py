"""Layers of Keras as data: their kind, configuration and arrays, from an object or a file."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

RECURRENT = ("SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell", "StackedRNNCells")
KINDS = (*RECURRENT, *CELLS, "RNN", "Bidirectional")
MODELS = ("Sequential", "Functional", "Model")

Fetch = Callable[[tuple[str, ...], int], list[Any]]
"""``fetch(path, count)``: the arrays of the part of a layer at this path of attributes."""


class KerasLayer(NamedTuple):
    """A layer, the layers that it consists of, or its arrays if it has none of these.

    ``defaults`` are those of the constructor, of which a file knows nothing. ``input_shape`` is
    ``(batch, time, ...)`` if the layer has been built.
    """

    kind: str
    config: Mapping[str, Any]
    parts: tuple["KerasLayer", ...] = ()
    arrays: tuple[Any, ...] = ()
    input_shape: tuple[int | None, ...] | None = None
    defaults: Mapping[str, Any] | None = None


def from_object(layer: Any) -> KerasLayer:
    """Reads a layer, identified by its class name so that Keras is not imported."""
    kind = type(layer).__name__
    check_kind(kind)
    if type(layer).__module__.split(".")[0] not in ("keras", "tf_keras", "tensorflow"):
        raise TypeError(
            f"the layer {kind} must be one of Keras' own, got a class of {type(layer).__module__}, "
            "whose call jaxrnn does not read; pass its get_weights() if it computes the same"
        )
    if kind == "Bidirectional":
        own = (layer.forward_layer, layer.backward_layer)
    else:
        own = (layer.cell,) if kind == "RNN" else layer.cells if kind == "StackedRNNCells" else ()
    arrays = () if own else tuple(layer.get_weights())
    config = layer.get_config()
    built = getattr(layer, "get_build_config", dict)() or {}
    parameters = inspect.signature(type(layer).__init__).parameters
    return KerasLayer(
        kind,
        config,
        tuple(map(from_object, own)),
        arrays,
        tuple(built["input_shape"]) if built.get("input_shape") else None,
        {name: p.default for name, p in parameters.items()},
    )


def from_config(
    entry: Any, fetch: Fetch, numbered: bool = False, path: tuple[str, ...] = ()
) -> KerasLayer:
    """Reads a layer from its entry in a file: ``class_name``, ``config`` and ``build_config``.

    ``numbered`` tells whether the cells of a stack are found by their index instead of their class.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
        raise ValueError(f"the entry of a layer must have class_name and config, got {entry!r:.80}")
    kind, config = str(entry.get("class_name")), _plain(entry["config"])
    check_kind(kind)
    if kind == "Bidirectional":
        forward = config.get("layer")
        backward = config.get("backward_layer") or _turned(forward)
        own = [(forward, "forward_layer"), (backward, "backward_layer")]
    elif kind == "RNN":
        own = [(config.get("cell"), "cell")]
    elif kind == "StackedRNNCells":
        cells = config.get("cells") or []
        names = map(str, range(len(cells))) if numbered else unique_names(cells)
        own = list(zip(cells, names, strict=True))
        path = (*path, "cells")
    else:
        own = []
        path = path if kind in CELLS else (*path, "cell")
    shape = (entry.get("build_config") or {}).get("input_shape")
    return KerasLayer(
        kind,
        config,
        tuple(from_config(part, fetch, numbered, (*path, name)) for part, name in own),
        () if own else tuple(fetch(path, 2 + bool(config.get("use_bias", True)))),
        tuple(shape) if shape else None,
    )


def check_kind(kind: str) -> None:
    """Raises unless this is the class name of a recurrent layer or cell."""
    if kind not in KINDS:
        raise TypeError(f"a layer must be one of {', '.join(KINDS)}, got {kind}")


def _turned(entry: Any) -> Any:
    """The backward layer that Keras makes of the forward layer."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
        return entry
    config = dict(entry["config"])
    return {**entry, "config": config | {"go_backwards": not config.get("go_backwards")}}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the tuples of ``tf.keras`` as lists."""
    return {
        name: value["items"]
        if isinstance(value, Mapping) and value.get("class_name") == "__tuple__"
        else value
        for name, value in config.items()
    }


def unique_names(entries: Sequence[Any]) -> Iterable[str]:
    """The names under which Keras files the layers of a list: of their classes, numbered."""
    seen: dict[str, int] = {}
    for entry in entries:
        kind = str(entry.get("class_name")) if isinstance(entry, Mapping) else ""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", kind).lower()
        count = seen[name] = seen.get(name, -1) + 1
        yield f"{name}_{count}" if count else name
