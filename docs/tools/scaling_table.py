"""The arithmetic of docs/scaling.md: bytes through the network against compute, for N devices.

python -m docs.tools.scaling_table    writes the table of that page
"""

from dataclasses import dataclass
from pathlib import Path

from docs.tools.pages import DOCS, write_section

DEVICES = 1024
RATE = 200e12  # operations a second that a device reaches in matrix products
LINK = 50e9  # bytes a second through a device's link, in each direction


@dataclass(frozen=True)
class Model:
    """A language model, counted by hand.

    Args:
        name: its name in the table.
        weights: parameters in matrix products; biases are too few to count.
        embedding: parameters that are looked up.
        layers: recurrent layers.
        state: bytes of the state of one row and layer.
    """

    name: str
    weights: int
    embedding: int
    layers: int
    state: int

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.weights + self.embedding


def lstm(layers: int, hidden: int, embed: int, vocabulary: int) -> Model:
    """LSTM layers, an embedding and an output layer."""
    inputs = embed + (layers - 1) * hidden
    weights = 4 * hidden * (inputs + layers * hidden) + hidden * vocabulary
    name = f"LSTM, {layers} × {hidden}"
    return Model(name, weights, vocabulary * embed, layers, 2 * 4 * hidden)


def lru(layers: int, hidden: int, vocabulary: int) -> Model:
    """LRU layers (two complex matrices and a real one), each with a gated linear unit."""
    weights = layers * (5 * hidden**2 + 2 * hidden**2) + hidden * vocabulary
    name = f"LRU, {layers} × {hidden}"
    return Model(name, weights, vocabulary * hidden, layers, 8 * hidden)


@dataclass(frozen=True)
class Scheme:
    """How a step is shared.

    Args:
        name: its name in the table.
        divided: how many of the three copies that are kept (the parameters and two moments of Adam)
            are divided by the number of devices.
        over_time: whether devices share the sequence; else they share the rows.
    """

    name: str
    divided: int
    over_time: bool = False


DATA = Scheme("data parallel", 0)
OPTIMIZER = Scheme("optimizer sharded", 2)
PARAMETERS = Scheme("parameters sharded", 3)
TIME = Scheme("time parallel", 0, over_time=True)


def bytes_through_link(model: Model, scheme: Scheme, rows: int) -> float:
    """Bytes that a device receives in one step of training in float32.

    A reduction of the gradient to its parts, and a gathering of as many parts: of the sum (data
    parallel), of the updated parameters (optimizer sharded), or of the parameters before the step.
    Over time, each layer gathers (a, b) of every device, in the forward and in the backward pass.
    """
    share = (DEVICES - 1) / DEVICES
    gradient = 2 * share * 4 * model.parameters
    gathered = 2 * model.layers * (DEVICES - 1) * rows * 2 * model.state
    return gradient + scheme.over_time * gathered


def held_bytes(model: Model, scheme: Scheme) -> float:
    """Bytes of parameters and moments that a device holds between steps, in float32."""
    return 4 * model.parameters * (3 - scheme.divided + scheme.divided / DEVICES)


def seconds_of_compute(model: Model, tokens: int) -> float:
    """Two operations a weight and token in the forward pass, four in the backward pass."""
    return 6 * model.weights * tokens / RATE


CASES = [
    *((lstm(2, 2048, 1024, 32768), scheme, 16, 256) for scheme in (DATA, OPTIMIZER, PARAMETERS)),
    *((lru(12, 1024, 32768), scheme, 16, 256) for scheme in (DATA, OPTIMIZER, PARAMETERS)),
    (lru(12, 1024, 32768), TIME, 1, 4096),
    (lru(12, 1024, 32768), TIME, 16, 256),
]
"""Model, scheme, and the rows and steps of one device."""


def make_table() -> str:
    """The table in Markdown."""
    lines = [
        "| model | parameters | scheme | a device's rows × steps | compute | through the link "
        "| network | network / compute | held between steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, scheme, rows, time in CASES:
        compute = seconds_of_compute(model, rows * time)
        moved = bytes_through_link(model, scheme, rows)
        network = moved / LINK
        lines.append(
            f"| {model.name} | {model.parameters / 1e6:.0f} M | {scheme.name} | {rows} × {time} "
            f"| {1e3 * compute:.1f} ms | {moved / 1e6:,.0f} MB | {1e3 * network:.1f} ms "
            f"| {network / compute:.2f} | {held_bytes(model, scheme) / 1e6:,.0f} MB |"
        )
    return "\n".join(lines)


def write_table(page: Path = DOCS / "scaling.md") -> None:
    """Writes the table of the page."""
    write_section(page, "table", make_table())


if __name__ == "__main__":
    write_table()
