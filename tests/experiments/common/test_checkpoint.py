"""Checkpoints: what is read is what was written, or the damage is named and the one before used."""

import json
import struct
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from experiments.common import checkpoint as _checkpoint


class Pair(NamedTuple):
    first: jax.Array
    second: tuple


def make_tree(seed=0):
    random = np.random.default_rng(seed)
    params = {
        "layer": Pair(
            jnp.asarray(random.normal(size=(3, 5)), jnp.float32),
            (jnp.asarray(random.normal(size=4), jnp.bfloat16).astype(jnp.float16), ()),
        ),
        "count": jnp.asarray(random.integers(100), jnp.int32),
        "transposed": random.normal(size=(2, 3)).T,
        "empty": np.zeros((0, 2), np.float32),
    }
    return {"params": params, "optimizer": optax.adam(1e-3).init({"w": params["layer"].first})}


def same(a, b):
    leaves_a, tree_a = jax.tree.flatten(a)
    leaves_b, tree_b = jax.tree.flatten(b)
    return tree_a == tree_b and all(
        np.asarray(x).dtype == np.asarray(y).dtype and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(leaves_a, leaves_b, strict=True)
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "one.safetensors"
    tree = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(2)}
    _checkpoint.write(path, tree, step=7, header={"note": 'a "quoted" name'})
    return path, tree


def test_reads_back_what_was_written(tmp_path):
    tree = make_tree()
    header = {"seconds": 1.5, "identity": {"cell": "lstm", "sha256": "0" * 64}}
    _checkpoint.write(tmp_path / "a", tree, step=12, header=header)
    loaded = _checkpoint.read(tmp_path / "a")
    assert (loaded.step, loaded.header) == (12, header)
    assert same(loaded.restore(make_tree(1)), tree)


def test_nan_infinity_and_signed_zero_keep_their_bits(tmp_path):
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 1], np.uint32)
    _checkpoint.write(tmp_path / "a", bits.view(np.float32), step=0, header={})
    back = _checkpoint.read(tmp_path / "a").restore(np.zeros(4, np.float32))
    np.testing.assert_array_equal(back.view(np.uint32), bits)


def test_the_format_is_safetensors_with_a_json_header(written):
    path, tree = written
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header["__metadata__"]["step"] == "7"
    assert json.loads(header["__metadata__"]["header"]) == {"note": 'a "quoted" name'}
    with safe_open(path, framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("weight"), tree["weight"])


def test_a_cut_at_any_byte_is_named(written, tmp_path):
    content = written[0].read_bytes()
    cut = tmp_path / "cut"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(_checkpoint.DamagedError, match="cut is damaged"):
            _checkpoint.read(cut)


def test_a_changed_byte_is_named_wherever_it_is(written, tmp_path):
    content = written[0].read_bytes()
    changed = tmp_path / "changed"
    for position in range(len(content)):
        for flip in (0x01, 0x20, 0x80):
            damaged = bytearray(content)
            damaged[position] ^= flip
            changed.write_bytes(damaged)
            with pytest.raises(_checkpoint.DamagedError, match="changed is damaged"):
                _checkpoint.read(changed)


@settings(max_examples=30, deadline=None)
@given(junk=st.binary(max_size=300))
def test_appended_bytes_and_junk_are_named(written, tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "junk"
    for content in (junk, written[0].read_bytes() + junk + b"\0"):
        path.write_bytes(content)
        with pytest.raises(_checkpoint.DamagedError):
            _checkpoint.read(path)


def test_the_one_before_a_damaged_one_is_used(tmp_path):
    folder = _checkpoint.Folder(tmp_path, keep=3)
    for step in (10, 20, 30):
        folder.save({"w": np.full(4, step)}, step=step, header={})
    third = folder.newest()
    third.write_bytes(third.read_bytes()[:-1])
    said = []
    loaded = folder.load(report=said.append)
    assert loaded.step == 20
    assert loaded.restore({"w": np.zeros(4, int)})["w"].tolist() == [20] * 4
    assert len(said) == 1 and "step-00000030" in said[0]
    # It does not count any more: saving must not push out sound ones in its favour.
    folder.save({"w": np.full(4, 25)}, step=25, header={})
    assert [folder.load(report=said.append).step, len(said)] == [25, 1]
    assert sorted(p.name for p in tmp_path.glob("step-*.safetensors")) == [
        "step-00000010.safetensors",
        "step-00000020.safetensors",
        "step-00000025.safetensors",
    ]


def test_all_damaged_is_as_none(tmp_path):
    folder = _checkpoint.Folder(tmp_path)
    assert folder.load(report=pytest.fail) is None
    for step in (1, 2):
        folder.save(np.ones(3), step=step, header={}).write_bytes(b"")
    said = []
    assert folder.load(report=said.append) is None
    assert ["step-00000002" in said[0], "step-00000001" in said[1]] == [True, True]


def test_the_last_few_are_kept_and_leftovers_do_not_count(tmp_path):
    folder = _checkpoint.Folder(tmp_path, keep=2)
    (tmp_path / ".step-00000099.safetensors.part").write_bytes(b"half")
    for step in range(5):
        folder.save(np.ones(3), step=step, header={})
    assert len(list(tmp_path.glob("step-*"))) == 2
    assert folder.load(report=pytest.fail).step == 4
    folder.clear()
    assert folder.newest() is None


@pytest.mark.parametrize(
    ("like", "named"),
    [
        ({"weight": np.zeros((2, 3), np.float32)}, "bias"),
        ({"weight": np.zeros((3, 2), np.float32), "bias": np.ones(2)}, "weight"),
        ({"weight": np.zeros((2, 3), np.float64), "bias": np.ones(2)}, "weight"),
        ({"weight": np.zeros((2, 3), np.float32), "bias": np.ones(2), "gain": 0.0}, "gain"),
    ],
)
def test_arrays_that_do_not_fit_are_named(written, like, named):
    with pytest.raises(ValueError, match=f"does not fit: {named} "):
        _checkpoint.read(written[0]).restore(jax.tree.map(np.asarray, like))


def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="w has dtype bfloat16"):
        _checkpoint.write(tmp_path / "a", {"w": jnp.ones(2, jnp.bfloat16)}, step=0, header={})
    assert not list(tmp_path.iterdir())


def test_keeping_one_is_refused():
    with pytest.raises(ValueError, match="keep must be at least 2, got 1"):
        _checkpoint.Folder(".", keep=1)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch, fails):
    path = tmp_path / "a"
    _checkpoint.write(path, np.ones(3), step=1, header={})

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_checkpoint.os, fails, crash)
    with pytest.raises(KeyboardInterrupt):
        _checkpoint.write(path, np.zeros(3), step=2, header={})
    assert _checkpoint.read(path).restore(np.zeros(3)).tolist() == [1, 1, 1]
