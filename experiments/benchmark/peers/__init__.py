"""Who is timed beside this library: one file a framework, imported only when it is asked for.

Each file is a `Contender`: `why_not(work)` says what it cannot do, `build(work)` makes the network
in the best form that the framework has for it.
"""

import importlib
import importlib.util
from typing import Literal, NamedTuple, cast

from experiments.benchmark.peers.work import GATES, PASSES, Contender, Pass, Work

__all__ = ["GATES", "LISTED", "PASSES", "Contender", "Listed", "Pass", "Work", "installed", "load"]

Kind = Literal["jaxrnn", "jax", "torch", "by hand"]


class Listed(NamedTuple):
    """A peer that the benchmark knows."""

    title: str
    kind: Kind
    module: str
    package: str | None = None
    """The distribution that must be installed, if it is not JAX."""
    imported: str | None = None
    """The name under which that distribution is imported."""


LISTED = {
    "torch": Listed("PyTorch", "torch", "pytorch", "torch", "torch"),
    "linen": Listed("Flax linen", "jax", "linen", "flax", "flax"),
    "nnx": Listed("Flax nnx", "jax", "nnx", "flax", "flax"),
    "haiku": Listed("Haiku", "jax", "haiku", "dm-haiku", "haiku"),
    "equinox": Listed("Equinox", "jax", "equinox", "equinox", "equinox"),
    "keras": Listed("Keras on JAX", "jax", "keras", "keras", "keras"),
    "cudnn": Listed("cuDNN by JAX", "jax", "cudnn"),
    "scan": Listed("plain lax.scan", "jax", "plain"),
    "by-hand": Listed("hoisted by hand", "by hand", "by_hand"),
}


def installed(name: str) -> bool:
    """Whether the packages that a peer needs are there."""
    imported = LISTED[name].imported
    return imported is None or importlib.util.find_spec(imported) is not None


def load(name: str) -> Contender:
    """Imports a peer."""
    return cast(
        Contender, importlib.import_module(f"experiments.benchmark.peers.{LISTED[name].module}")
    )
