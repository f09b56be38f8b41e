"""Ensembles: independent networks of one architecture, trained side by side by `vmap`."""

from dataclasses import dataclass
from typing import Any

import jax

PyTree = Any


@dataclass(frozen=True)
class Ensemble:
    """Networks of one architecture, with stacked parameters.

    Each member is initialized and trained with randomness of its own, so their errors differ, and
    the mean of their predictions is better than one.

    Args:
        model: the architecture, with `init(key, ...)` and `apply(params, ..., key=None)`.
        members: the number of networks.
    """

    model: Any
    members: int

    def init(self, key: jax.Array, *inputs: Any) -> PyTree:
        """Initializes the members' parameters, stacked along a leading axis."""
        keys = jax.random.split(key, self.members)
        return jax.vmap(lambda key: self.model.init(key, *inputs))(keys)

    def apply(self, params: PyTree, *inputs: Any, key: jax.Array | None = None) -> PyTree:
        """Returns the members' outputs, stacked along a leading axis.

        Args:
            params: the stacked parameters.
            *inputs: the inputs, the same for all members.
            key: randomness for training, of which each member gets its own.
        """
        keys = None if key is None else jax.random.split(key, self.members)

        def one(params: PyTree, key: jax.Array | None) -> PyTree:
            return self.model.apply(params, *inputs, key=key)

        return jax.vmap(one)(params, keys)
