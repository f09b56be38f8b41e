"""Nested parameters of linen and nnx: RNN, Bidirectional and Sequential."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxrnn._typing import PyTree
from jaxrnn.convert._arrays import Source, flatten
from jaxrnn.convert._network import Level, Part, assemble, parts

ReadCell = Callable[[Source, str], Part]


def read(framework: str, tree: Any, activation: str, read_cell: ReadCell) -> tuple[Any, PyTree]:
    """Reads a network from nested parameters; ``read_cell`` reads one cell."""
    return build(_layers(framework, tree, "", activation, read_cell))


def build(levels: list[Level]) -> tuple[Any, PyTree]:
    """Builds the network of these layers."""
    return assemble([x.parts for x in levels], reverse=[x.reverse for x in levels])


def bidirectional(forward: list[Level], backward: list[Level]) -> Level:
    """The layer of a Bidirectional, from the layers of its two modules."""
    if any(len(levels) != 1 or len(levels[0].parts) != 1 for levels in (forward, backward)):
        raise ValueError(
            "forward_rnn and backward_rnn must each hold one cell, got stacks or bidirectional "
            "layers; convert them separately"
        )
    return Level([forward[0].parts[0], backward[0].parts[0]])


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


def _layers(framework, tree, path, activation, read_cell) -> list[Level]:
    """The layers under one node of the tree."""
    if not isinstance(tree, Mapping) or not tree:
        raise TypeError(
            f"{path or 'source'} must be a mapping of {framework} parameters, got "
            f"{type(tree).__name__}{'' if not isinstance(tree, Mapping) else ' with nothing in it'}"
        )
    keys = {str(key) for key in tree}

    def below(key):
        return _layers(framework, tree[key], f"{path}{key}/", activation, read_cell)

    for wrapper in ("params", "cell", "layers"):
        if keys == {wrapper}:
            return below(wrapper)
    if keys == {"forward_rnn", "backward_rnn"}:
        return [bidirectional(below("forward_rnn"), below("backward_rnn"))]
    numbers = {str(key).removeprefix("layers_"): key for key in tree}
    if all(number.isdecimal() for number in numbers):
        order = sorted(map(int, numbers))
        if order != list(range(len(order))):
            raise ValueError(
                f"the layers of {path or 'source'} must be numbered from 0 without gaps, got "
                f"{order}; a missing number is a layer without parameters, such as an activation "
                "function: convert the recurrent layers one by one"
            )
        return [level for number in order for level in below(numbers[str(number)])]
    weights = Source(framework, flatten(tree), path)
    part = read_cell(weights, activation)
    weights.close()
    return [Level([part])]
