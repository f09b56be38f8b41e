"""Run in a subprocess with four devices: training on all of them equals training on one."""

import dataclasses
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common import sharding
from experiments.common.errors import UserError
from experiments.common.options import Options
from experiments.common.step import State, init_state, jit_step
from tests.experiments.common.test_seeds import side_by_side
from tests.support import toy

SIZE = 256


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


def held_bytes(what, devices):
    """Bytes of state that a device holds while it trains a matrix."""

    def loss(params, carry, batch, key):
        return ((batch @ params) ** 2).mean(), carry

    mesh = sharding.make_mesh(devices, 4, pytest.fail)
    options = Options(shard=what)
    state = init_state(jnp.zeros((SIZE, SIZE)), (), options)
    layout = None if mesh is None else sharding.make_layout(mesh, state, 0, 0, what)
    batch, jitted = np.ones((4, SIZE), np.float32), jit_step(loss, options, layout)
    analysis = jitted.lower(state, batch, np.int32(0)).compile().memory_analysis()
    return analysis.argument_size_in_bytes


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

    toy.run(folder / "average", average=0.9, accumulate=2, devices=1)
    for what in ("optimizer", "parameters"):
        toy.run(folder / what, average=0.9, accumulate=2, shard=what)
        assert_near(folder / what, folder / "average")
    none, optimizer, parameters = (
        [held_bytes(what, devices) for devices in (1, 2, 4)]
        for what in ("none", "optimizer", "parameters")
    )
    one = SIZE * SIZE * 4  # the matrix; Adam has two more of this size
    np.testing.assert_allclose(none, [3 * one] * 3, rtol=0.02)
    np.testing.assert_allclose(optimizer, [3 * one, 2 * one, 1.5 * one], rtol=0.02)
    np.testing.assert_allclose(parameters, [3 * one, 1.5 * one, 0.75 * one], rtol=0.02)
    print("memory")

    said = []
    assert sharding.make_mesh(0, 6, said.append).size == 3
    assert said == ["uses 3 of 4 devices, the largest number that divides 6 rows"]
    assert sharding.make_mesh(0, 7, said.append) is None and len(said) == 2
    with pytest.raises(UserError, match="this process has 4, and --devices is 5"):
        toy.run(folder / "five", devices=5)
    with pytest.raises(UserError, match="4 rows cannot be shared by 1 x 3 devices; change --dev"):
        toy.run(folder / "three", devices=3)
    with pytest.raises(UserError, match="devices: 1 rows cannot be shared by 1 x 2 devices"):
        toy.run(folder / "axis", dataclasses.replace(toy.make_task(), batch_axes=3), devices=2)
    print("errors")


if __name__ == "__main__":
    main()
