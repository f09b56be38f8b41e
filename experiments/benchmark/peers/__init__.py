"""The frameworks to compare with, one file each, imported only when selected.

Each file defines a `Contender`, in the best form that the framework has for a workload.
"""

import importlib
import importlib.metadata

from experiments.benchmark.peers.workload import GATES, PASSES, Contender, Pass, Workload, spread

__all__ = [
    "GATES",
    "PASSES",
    "PEERS",
    "Contender",
    "Pass",
    "Workload",
    "installed",
    "load",
    "spread",
]

PEERS = {
    "torch": ("peers.pytorch", "torch"),
    "linen": ("peers.linen", "flax"),
    "nnx": ("peers.nnx", "flax"),
    "haiku": ("peers.haiku", "dm-haiku"),
    "equinox": ("peers.equinox", "equinox"),
    "keras": ("peers.keras", "keras"),
    "cudnn": ("peers.cudnn", "jax"),
    "scan": ("peers.plain", "jax"),
    "by-hand": ("by_hand", "jax"),
}
"""The module of each peer, and the distribution that it needs."""


def installed(name: str) -> bool:
    """Whether the distribution that a peer needs is installed."""
    return any(importlib.metadata.distributions(name=PEERS[name][1]))


def load(name: str) -> Contender:
    """Imports a peer."""
    return importlib.import_module(f"experiments.benchmark.{PEERS[name][0]}").contender
