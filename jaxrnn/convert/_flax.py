"""Nested parameters of linen and nnx: RNN, Bidirectional and Sequential."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxrnn._typing import PyTree
from jaxrnn.convert._arrays import Source, flatten
from jaxrnn.convert._network import Part, assemble, parts

ReadCell = Callable[[Source, str], Part]


def read(framework: str, tree: Any, activation: str, read_cell: ReadCell) -> tuple[Any, PyTree]:
    """Reads a network from nested parameters; ``read_cell`` reads one cell."""
    return assemble(_directions(framework, tree, "", activation, read_cell))


def write(framework: str, network: Any, params: PyTree, write_cell: Callable[[Part], dict]):
    """Writes each layer of a network as the nested parameters of an RNN or a Bidirectional."""
    return [
        {"cell": write_cell(directions[0])}
        if len(directions) == 1
        else {
            name: {"cell": write_cell(part)}
            for name, part in zip(("forward_rnn", "backward_rnn"), directions, strict=True)
        }
        for directions in parts(framework, network, params)
    ]


def _directions(framework, tree, path, activation, read_cell) -> list[list[Part]]:
    """The layers under one node of the tree."""
    if not isinstance(tree, Mapping) or not tree:
        raise TypeError(
            f"{path or 'source'} must be a mapping of {framework} parameters, got "
            f"{type(tree).__name__}{'' if not isinstance(tree, Mapping) else ' with nothing in it'}"
        )
    keys = {str(key) for key in tree}

    def below(key):
        return _directions(framework, tree[key], f"{path}{key}/", activation, read_cell)

    for wrapper in ("params", "cell", "layers"):
        if keys == {wrapper}:
            return below(wrapper)
    if keys == {"forward_rnn", "backward_rnn"}:
        return [[below("forward_rnn")[0][0], below("backward_rnn")[0][0]]]
    numbers = {key: str(key).removeprefix("layers_") for key in tree}
    if all(number.isdecimal() for number in numbers.values()):
        return [part for key in sorted(tree, key=lambda k: int(numbers[k])) for part in below(key)]
    weights = Source(framework, flatten(tree), path)
    part = read_cell(weights, activation)
    weights.close()
    return [[part]]
