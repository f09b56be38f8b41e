"""Run in a subprocess with four devices: training on all of them equals training on one."""

import dataclasses
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.common import sharding
from experiments.common.errors import UserError
from experiments.common.training import State
from tests.experiments.common.test_seeds import side_by_side
from tests.support import toy


def assert_near(folder, other):
    step, tensors = toy.final_state(folder)
    other_step, others = toy.final_state(other)
    assert step == other_step and tensors.keys() == others.keys()
    for name, value in tensors.items():
        np.testing.assert_allclose(value, others[name], rtol=2e-5, atol=2e-6, err_msg=name)


def noting(lengths):
    """A loss that records over how many devices its rows are sharded."""

    def loss(params, carry, batch, key):
        jax.debug.inspect_array_sharding(
            batch["xs"], callback=lambda sharding: lengths.append(len(sharding.device_set))
        )
        value, carry = toy.loss(params, carry, batch, key)
        jax.debug.inspect_array_sharding(
            carry, callback=lambda sharding: lengths.append(sharding.shard_shape((4, 3))[0])
        )
        return value, carry

    return loss


def main():
    folder = Path(tempfile.mkdtemp())
    toy.run(folder / "one", devices=1)
    seen = []
    toy.run(folder / "all", toy.make_task(loss=noting(seen)), devices=0)
    assert seen == [4, 1], seen
    assert_near(folder / "all", folder / "one")
    toy.run(folder / "parts", devices=4, minutes=1e-9)
    toy.run(folder / "parts", devices=2)
    assert_near(folder / "parts", folder / "one")
    print("fit")

    side_by_side(folder / "seeds one", devices=1)
    side_by_side(folder / "seeds all", devices=0)
    assert_near(folder / "seeds all", folder / "seeds one")
    print("seeds")

    batch = {"rows": np.zeros((8, 3)), "all": np.zeros(3), "two": (np.zeros((2, 4)), np.zeros(()))}
    axes, state = (
        {"rows": 0, "all": None, "two": (1, None)},
        State(np.zeros(3), (), np.zeros((4, 2))),
    )
    assert sharding.count_rows(axes, batch) == 4
    mesh = sharding.make_mesh(2, 4, pytest.fail)
    layout = sharding.make_layout(mesh, state, axes, 0, "none")
    placed = sharding.place(batch, layout.batch)
    shapes = jax.tree.map(lambda leaf: leaf.sharding.shard_shape(leaf.shape), placed)
    assert shapes == {"rows": (4, 3), "all": (3,), "two": ((2, 2), ())}
    assert layout.state.carry.shard_shape((4, 2)) == (2, 2)
    assert layout.state.params.shard_shape((3,)) == (3,)
    print("tree")

    with pytest.raises(UserError, match="this process has 4, and --devices is 5"):
        toy.run(folder / "five", devices=5)
    with pytest.raises(UserError, match="4 rows cannot be shared by 1 x 3 devices; change --dev"):
        toy.run(folder / "three", devices=3)
    with pytest.raises(UserError, match="devices: 1 rows cannot be shared by 1 x 2 devices"):
        toy.run(folder / "axis", dataclasses.replace(toy.make_task(), batch_axes=3), devices=2)
    print("errors")


if __name__ == "__main__":
    main()
