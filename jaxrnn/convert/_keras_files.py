"""Models that Keras saved, read without running code: configurations as JSON, arrays as numbers.

Keras itself would deserialize the layers of a file, some of which run code of the file.
"""

import functools
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxrnn.convert import tensorflow
from jaxrnn.convert._hdf5 import Hdf5
from jaxrnn.convert._keras_layers import MODELS, KerasLayer, from_config, unique_names

_PARTS = ("config.json", "model.weights.h5")
# Keras stores the members of its archives without compression.
_EXPANSION = 100


class Entry(NamedTuple):
    """A layer of a model, which is read on demand."""

    name: str
    kind: str
    read: Callable[[], KerasLayer]


class Model(NamedTuple):
    """The layers of a model, and whether each takes the output of the one before it."""

    layers: list[Entry]
    is_sequential: bool


def read(path: str) -> Model:
    """Reads a ``.keras`` archive, an HDF5 file or a folder of ``tf.keras``."""
    if os.path.isdir(path):
        parts = [os.path.join(path, name) for name in _PARTS]
        if all(map(os.path.isfile, parts)):  # an unzipped archive
            return _model_of_keras_3(*map(_bytes, parts))
        return _saved_model(path)
    if path.endswith((".h5", ".hdf5")):
        return _hdf5(_bytes(path))
    if path.endswith(".keras"):
        return _archive(path)
    raise ValueError(
        "a model must be a .keras file, a .h5 file or the folder of a SavedModel; save it by "
        "model.save('model.keras')"
    )


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _json(text: str | bytes) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the configuration must be JSON, got: {error}") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"the configuration must be a JSON object, got {type(value).__name__}")
    return value


def _layers(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of the layers of a model."""
    own = config.get("config")
    layers = own.get("layers") if isinstance(own, Mapping) else None
    if config.get("class_name") not in MODELS or not isinstance(layers, list):
        raise ValueError(
            f"the model must be Sequential or Functional, got {config.get('class_name')!r}, whose "
            "layers are not in its configuration; save the recurrent layers in a model of their own"
        )
    for entry in layers:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
            raise ValueError(f"a layer must have class_name and config, got {entry!r:.80}")
    return layers


# Archives of Keras 3 ----------------------------------------------------------------------------


def _archive(path: str) -> Model:
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        if not set(_PARTS) <= set(members):
            raise ValueError(
                f"it must hold {' and '.join(_PARTS)}, got {', '.join(members[:6]) or 'nothing'}"
            )
        for name in _PARTS:
            if archive.getinfo(name).file_size > _EXPANSION * os.path.getsize(path):
                raise ValueError(f"{name} must not be compressed, and expands too much")
        return _model_of_keras_3(*map(archive.read, _PARTS))


def _model_of_keras_3(config: bytes, weights: bytes) -> Model:
    model = _json(config)
    entries = list(_in_archive(model, Hdf5(weights), ("layers",), ""))
    return Model(entries, model.get("class_name") == "Sequential")


def _in_archive(config, file, path: tuple[str, ...], outer: str) -> Iterator[Entry]:
    layers = _layers(config)
    for entry, own in zip(layers, unique_names(layers), strict=True):
        name, kind = f"{outer}{entry['config'].get('name')}", entry.get("class_name")
        if kind in MODELS:
            yield from _in_archive(entry, file, (*path, own, "layers"), f"{name}/")
        else:
            fetch = functools.partial(_fetch_variables, file, (*path, own))
            yield Entry(name, str(kind), functools.partial(from_config, entry, fetch))


def _fetch_variables(file: Hdf5, outer: tuple[str, ...], path: tuple[str, ...], count: int):
    place = (*outer, *path, "vars")
    held = len(file.member(place))
    if held != count:
        raise ValueError(f"{'/'.join(place)} must hold {count} arrays, got {held}")
    return [file.array((*place, str(i))) for i in range(count)]


# HDF5 -------------------------------------------------------------------------------------------


def _hdf5(data: bytes) -> Model:
    """A whole model in HDF5, the format before ``.keras``."""
    file = Hdf5(data)
    text = file.attribute((), "model_config")
    if text is None:
        raise ValueError(
            "it holds weights without a model; save the model by model.save('model.keras')"
        )
    config = _json(text)
    entries = []
    for entry in _layers(config):
        name = entry["config"].get("name")
        fetch = functools.partial(_fetch_in_order, file, str(name), [])
        entries.append(
            Entry(
                str(name),
                str(entry.get("class_name")),
                functools.partial(from_config, entry, fetch),
            )
        )
    return Model(entries, config.get("class_name") == "Sequential")


def _fetch_in_order(file: Hdf5, layer: str, read: list, path: tuple[str, ...], count: int):
    """The next arrays of a layer: this format lists them in the order of ``get_weights()``."""
    place = ("model_weights", layer)
    names = file.attribute(place, "weight_names") or []
    own = names[len(read) : len(read) + count]
    read.extend(own)
    if len(own) < count:
        raise ValueError(f"the layer {layer} must hold {len(read) + 1} arrays, got {len(names)}")
    return [file.array((*place, *name.split("/"))) for name in own]


# SavedModels of tf.keras ------------------------------------------------------------------------


def _saved_model(path: str) -> Model:
    metadata = os.path.join(path, "keras_metadata.pb")
    if not os.path.exists(metadata):
        raise ValueError(
            "a folder must be a SavedModel of tf.keras with keras_metadata.pb, which holds the "
            "configuration of the layers, got none; export() does not write it: save the model by "
            "model.save('model.keras'), or pass arrays of "
            "jaxrnn.convert.tensorflow_variables(path) to from_keras"
        )
    nodes = tensorflow.keras_metadata(_bytes(metadata))
    root = _json(nodes.get("root", "{}"))
    bundle = tensorflow.Bundle(path)
    graph = bundle.graph()
    entries = []
    described = {place: _json(text) for place, text in nodes.items() if place.count(".") == 1}
    for entry in _layers(root):
        name = entry["config"].get("name")
        found = [(p, own) for p, own in described.items() if own.get("name") == name]
        place, own = found[0] if found else ("root", entry)
        built = {"input_shape": _items(own.get("build_input_shape"))}
        fetch = functools.partial(_fetch_tracked, bundle, graph, place.split(".")[1:])
        read = functools.partial(from_config, {**entry, "build_config": built}, fetch, True)
        entries.append(Entry(str(name), str(entry.get("class_name")), read))
    return Model(entries, root.get("class_name") == "Sequential")


def _items(shape: Any) -> Any:
    return shape.get("items") if isinstance(shape, Mapping) else shape


def _fetch_tracked(bundle, graph, outer: list[str], path: tuple[str, ...], count: int):
    node = 0
    for name in (*outer, *path):
        node = graph[node][0][name]
    names = ("kernel", "recurrent_kernel", "bias")[:count]
    owned = [graph[graph[node][0][name]][1]["VARIABLE_VALUE"] for name in names]
    return [bundle.array(name) for name in owned]
