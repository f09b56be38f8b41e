"""StableHLO programs of steps and sequences."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support import stablehlo_files
from tests.support.networks import network, random_params

XS = np.random.default_rng(0).normal(size=(5, 3, 2))


def test_a_step_survives_its_file_and_takes_any_batch():
    stack = rnn.layers.Stack((rnn.GRU(3), rnn.LSTM(4)), dropout=0.5)
    params = random_params(stack)
    (batch,) = jax.export.symbolic_shape("batch")
    exported = rnn.export.to_stablehlo(stack, params, jax.ShapeDtypeStruct((batch, 2), "float64"))
    read = jax.export.deserialize(exported.serialize())
    for size in (1, 3):
        state = stack.init_state(params, (size,))
        leaves = tuple(jax.tree.leaves(state))
        for x in XS[:, :size]:
            state, wanted = stack.step(params, state, x)
            leaves, y = read.call(leaves, x)
            np.testing.assert_allclose(y, wanted, atol=1e-14)
        for a, b in zip(leaves, jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-14)
    assert "stablehlo.dot_general" in exported.mlir_module()


NETWORKS = {
    "bidirectional": network("gru", "bidirectional"),
    "affine": rnn.MinGRU(3),
    "chunked": rnn.DeltaNet(4, num_heads=2, key_size=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sequence_survives_its_file_with_gradients_and_takes_any_size(name):
    net = NETWORKS[name]
    params = random_params(net)
    layer = net if isinstance(net, rnn.layers.Layer) else rnn.layers.Recurrent(net)
    options = {"lengths": True, "carry": True, "weights": False, "platforms": ("cpu", "cuda")}
    exported = rnn.export.to_stablehlo(net, params, xs=XS, **options)
    read = jax.export.deserialize(exported.serialize(vjp_order=1))
    assert read.platforms == ("cpu", "cuda")
    leaves = tuple(jax.tree.leaves(params))
    for time, rows in ((5, 3), (2, 1)):
        xs, lengths = jnp.asarray(XS[:time, :rows]), jnp.array([2, 1, 0])[:rows].astype("int32")
        state = layer.init_state(params, (rows,))
        names = [n for n in exported.in_tree.unflatten(exported.in_avals)[0][1] if "init" in n]
        given = {"xs": xs, "lengths": lengths}
        given |= dict(zip(sorted(names), by_name(state), strict=True))

        def ours(params, state=state, xs=xs, lengths=lengths):
            return layer.apply(params, state, xs, lengths=lengths)[1]

        def theirs(leaves, given=given):
            return read.call(leaves, given)["ys"]

        np.testing.assert_allclose(theirs(leaves), ours(params), atol=1e-12)
        wanted = jax.grad(lambda params: (ours(params) ** 2).sum())(params)
        gradient = jax.grad(lambda leaves: (theirs(leaves) ** 2).sum())(leaves)
        for a, b in zip(gradient, jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


def by_name(state):
    """The leaves in the order of their names, as a dictionary has them."""
    named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}
    return [named[name] for name in sorted(named)]


def test_a_static_axis_keeps_its_size():
    net = rnn.Elman(3)
    params = random_params(net)
    exported = rnn.export.to_stablehlo(net, params, xs=XS, static=("batch",), mask=True)
    ((inputs,), _) = exported.in_tree.unflatten(exported.in_avals)
    assert inputs["xs"].shape[1:] == (3, 2) and jax.export.is_symbolic_dim(inputs["xs"].shape[0])
    mask = np.random.default_rng(1).random((5, 3)) < 0.6
    ours = rnn.unroll(net, params, XS, mask=mask)[1]
    np.testing.assert_allclose(exported.call({"xs": XS, "mask": mask})["ys"], ours, atol=1e-14)


PROGRAM = """
import sys
sys.modules["jaxrnn"] = None  # importing it fails
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import jax.export
read = jax.export.deserialize(open(sys.argv[1], "rb").read())
np.save(sys.argv[2], read.call({"xs": np.load(sys.argv[3])})["ys"])
"""


def test_a_program_runs_without_jaxrnn(tmp_path: pathlib.Path):
    net = network("lstm", "stack")
    params = random_params(net)
    exported = rnn.export.to_stablehlo(net, params, xs=XS)
    (tmp_path / "net.bin").write_bytes(exported.serialize())
    np.save(tmp_path / "xs.npy", XS)
    files = [str(tmp_path / name) for name in ("net.bin", "ys.npy", "xs.npy")]
    subprocess.run([sys.executable, "-c", PROGRAM, *files], check=True, cwd=tmp_path)
    np.testing.assert_allclose(
        np.load(tmp_path / "ys.npy"), net.apply(params, None, XS)[1], atol=1e-12
    )


def test_what_cannot_be_exported_is_refused():
    net = network("gru", "bidirectional")
    params = random_params(net)
    with pytest.raises(TypeError, match="needs the whole sequence: pass xs"):
        rnn.export.to_stablehlo(net, params, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="either x.* or xs.* got neither"):
        rnn.export.to_stablehlo(net, params)
    with pytest.raises(ValueError, match="lengths belong to a sequence: pass xs"):
        rnn.export.to_stablehlo(rnn.GRU(3), params[0], jnp.ones((3, 2)), lengths=True)
    with pytest.raises(ValueError, match="both wanted"):
        rnn.export.to_stablehlo(net, params, xs=XS, lengths=True, mask=True)
    with pytest.raises(ValueError, match=r"time and batch before 1 of features, got shape \(5, 2"):
        rnn.export.to_stablehlo(net, params, xs=XS[:, :2, 0])


@pytest.mark.thorough
def test_other_interpreters_read_todays_programs(tmp_path: pathlib.Path):
    """``JAXRNN_OTHER_PYTHONS`` names interpreters with other versions of JAX, without jaxrnn."""
    others = os.environ.get("JAXRNN_OTHER_PYTHONS", "").split()
    if not others:
        pytest.skip("JAXRNN_OTHER_PYTHONS names no other interpreter")
    count = stablehlo_files.write(tmp_path)
    reader = pathlib.Path(stablehlo_files.__file__).with_name("read_stablehlo.py")
    for python in others:
        command = [python, reader, tmp_path]
        told = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
        assert told.stdout.startswith(f"{count} programs, read by jax "), told.stdout
