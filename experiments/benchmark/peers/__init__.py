"""The frameworks to compare with, one file each, imported only when selected.

Each file defines ``peer``, a `Contender`: ``why_not(workload)`` explains what it cannot run,
``build(workload)`` makes the network in the best form that the framework has for it.
"""

import importlib
import importlib.util
from typing import Literal, NamedTuple

from experiments.benchmark.peers.workload import GATES, PASSES, Contender, Pass, Workload

__all__ = [
    "GATES",
    "PASSES",
    "PEERS",
    "Contender",
    "Pass",
    "PeerInfo",
    "Workload",
    "installed",
    "load",
]

Kind = Literal["jaxrnn", "jax", "torch", "by hand"]


class PeerInfo(NamedTuple):
    """A peer that the benchmark knows.

    Attributes:
        title: its name in tables.
        kind: the group in which it competes.
        module: the module that defines it, relative to ``experiments.benchmark``.
        package: the distribution that must be installed, if other than JAX.
        imported: the name under which that distribution is imported.
    """

    title: str
    kind: Kind
    module: str
    package: str | None = None
    imported: str | None = None


PEERS = {
    "torch": PeerInfo("PyTorch", "torch", "peers.pytorch", "torch", "torch"),
    "linen": PeerInfo("Flax linen", "jax", "peers.linen", "flax", "flax"),
    "nnx": PeerInfo("Flax nnx", "jax", "peers.nnx", "flax", "flax"),
    "haiku": PeerInfo("Haiku", "jax", "peers.haiku", "dm-haiku", "haiku"),
    "equinox": PeerInfo("Equinox", "jax", "peers.equinox", "equinox", "equinox"),
    "keras": PeerInfo("Keras on JAX", "jax", "peers.keras", "keras", "keras"),
    "cudnn": PeerInfo("cuDNN by JAX", "jax", "peers.cudnn"),
    "scan": PeerInfo("plain lax.scan", "jax", "peers.plain"),
    "by-hand": PeerInfo("hoisted by hand", "by hand", "by_hand"),
}


def installed(name: str) -> bool:
    """Whether the package that a peer needs is installed."""
    imported = PEERS[name].imported
    return imported is None or importlib.util.find_spec(imported) is not None


def load(name: str) -> Contender:
    """Imports a peer."""
    return importlib.import_module(f"experiments.benchmark.{PEERS[name].module}").peer
