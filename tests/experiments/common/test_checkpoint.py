"""Checkpoints: what was written is read; damage is reported, and the one before it is used."""

import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common import checkpoint as _checkpoint
from experiments.common.checkpoint import Checkpoints, replace_file, unflatten


class Pair(NamedTuple):
    first: jax.Array
    second: tuple


def make_tree(seed=0):
    random = np.random.default_rng(seed)
    params = {
        "layer": Pair(
            jnp.asarray(random.normal(size=(3, 5)), jnp.float32),
            (jnp.asarray(random.normal(size=4), jnp.float16), ()),
        ),
        "count": jnp.asarray(random.integers(100), jnp.int32),
        "transposed": random.normal(size=(2, 3)).T,
        "complex": random.normal(size=3).astype(np.complex64),
        # Bits of a NaN, of -infinity, of -0, and of the least number.
        "odd": np.array([0x7FC00001, 0xFF800000, 0x80000000, 1], np.uint32).view(np.float32),
    }
    return {"params": params, "optimizer": optax.adam(1e-3).init({"w": params["layer"].first})}


def bits(tree):
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    return treedef, [(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in leaves]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 10, 20 and 30."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder, keep=3)
    for step in (10, 20, 30):
        header = {"seconds": 1.5, "identity": {"cell": "lstm", "step": step}}
        checkpoints.save(step, make_tree(step), header)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copied")


def test_reads_back_what_was_written_bit_by_bit(saved):
    step, arrays, header = Checkpoints(saved).load(pytest.fail)
    assert (step, header) == (30, {"seconds": 1.5, "identity": {"cell": "lstm", "step": 30}})
    assert bits(unflatten(arrays, make_tree())) == bits(make_tree(30))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()])
def test_the_one_before_a_damaged_one_is_used(copied, damage):
    """Whichever file is damaged: the checkpoint of step 30 is renamed, and that of 20 loaded."""
    files = [path for path in (copied / "step_00000030").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content, said = path.read_bytes(), []
        damage(path)
        checkpoints = Checkpoints(copied, keep=3)
        step, arrays, _ = checkpoints.load(said.append)
        assert step == 20
        assert bits(unflatten(arrays, make_tree())) == bits(make_tree(20))
        assert len(said) == 1 and "step_00000030 is damaged" in said[0]
        (copied / "damaged-step_00000030").rename(copied / "step_00000030")
        path.write_bytes(content)


def test_a_damaged_one_does_not_count(copied):
    flip(copied / "step_00000030" / "sha256")
    checkpoints = Checkpoints(copied, keep=3)
    said = []
    checkpoints.load(said.append)
    checkpoints.save(25, make_tree(25), {})
    assert checkpoints.load(pytest.fail)[0] == 25
    kept = {path.name for path in copied.glob("step_*")}
    assert kept == {"step_00000010", "step_00000020", "step_00000025"}


def test_without_a_sound_one_there_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load(pytest.fail) is checkpoints.latest() is None
    for step in (1, 2):
        checkpoints.save(step, np.ones(3), {})
        (checkpoints.latest() / "sha256").write_bytes(b"")
    said = []
    assert checkpoints.load(said.append) is None
    assert ["step_00000002" in said[0], "step_00000001" in said[1]] == [True, True]


def test_the_latest_are_kept_and_leftovers_do_not_count(copied):
    (copied / "step_00000099.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(copied, keep=2)
    checkpoints.save(40, make_tree(40), {})
    assert {path.name for path in copied.iterdir()} == {"step_00000030", "step_00000040"}
    assert checkpoints.load(pytest.fail)[0] == 40
    assert Checkpoints(copied, fresh=True).latest() is None


@pytest.mark.parametrize(
    ("like", "named"),
    [
        ({"weight": np.zeros((2, 3), np.float32)}, "bias"),
        ({"weight": np.zeros((3, 2), np.float32), "bias": np.ones(2)}, "weight"),
        ({"weight": np.zeros((2, 3), np.float64), "bias": np.ones(2)}, "weight"),
        ({"weight": np.zeros((2, 3), np.float32), "bias": np.ones(2), "gain": 0.0}, "gain"),
    ],
)
def test_arrays_that_do_not_fit_are_named(like, named):
    found = {"weight": np.zeros((2, 3), np.float32), "bias": np.ones(2)}
    with pytest.raises(ValueError, match=f"does not fit this run, it has another {named}$"):
        unflatten(found, like)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch, fails):
    replace_file(tmp_path / "a", b"old")

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_checkpoint.os, fails, crash)
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
