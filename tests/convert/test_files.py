"""Damaged and malicious files of every format: refused, with the file's name."""

import io
import json
import pickle
import shutil
import zipfile

import jax
import numpy as np
import pytest

from jaxrnn import convert
from tests.convert.golden import tensorflow as golden
from tests.convert.test_objects import Touch, peer
from tests.support.networks import network, random_params

GOLDEN = golden.FOLDER


def write_pt(folder):
    torch = peer("torch")
    torch.save(torch.nn.GRU(2, 3).state_dict(), folder / "w.pt")
    return folder / "w.pt", convert.from_pytorch


def write_safetensors(folder):
    import safetensors.numpy

    net = network("gru", "cell")
    arrays = convert.to_pytorch(net, random_params(net))
    safetensors.numpy.save_file(arrays, folder / "w.safetensors")
    return folder / "w.safetensors", convert.from_pytorch


def write_onnx(folder):
    onnx = peer("onnx")
    from jaxrnn import export

    net = network("gru", "cell")
    onnx.save(export.to_onnx(net, random_params(net)), folder / "w.onnx")
    return folder / "w.onnx", convert.from_onnx


def keras_file(name, layer="cells"):
    def write(folder):
        peer("pyfive")
        shutil.copy(GOLDEN / name, folder)
        return folder / name, lambda path: convert.from_keras(path, layer=layer)

    return write


def write_metadata(folder):
    shutil.copytree(GOLDEN / "saved_model", folder / "model")
    return folder / "model" / "keras_metadata.pb", lambda path: read_saved(path.parent)


def write_index(folder):
    write_metadata(folder)
    file = folder / "model" / "variables" / "variables.index"
    return file, lambda path: read_saved(path.parents[1])


def write_data(folder):
    write_metadata(folder)
    file = folder / "model" / "variables" / "variables.data-00000-of-00001"
    return file, lambda path: convert.tensorflow_variables(path.parents[1])


def read_saved(folder):
    return convert.from_keras(folder, layer="cells")


FORMATS = {
    "pt": write_pt,
    "safetensors": write_safetensors,
    "onnx": write_onnx,
    "keras": keras_file("tf_keras.keras"),
    "h5": keras_file("tf_keras.h5"),
    "SavedModel's layers": write_metadata,
    "SavedModel's index": write_index,
    "SavedModel's data": write_data,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())
def test_truncated_files(tmp_path, write):
    path, read = write(tmp_path)
    whole = path.read_bytes()
    read(path)
    for length in (0, 3, len(whole) // 3, len(whole) * 3 // 4, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises((ValueError, TypeError)) as caught:
            read(path)
        named = path.parent if path.suffix == ".pb" else path
        assert str(named) in str(caught.value), (length, caught.value)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())
def test_damaged_files_raise_no_other_error(tmp_path, write):
    """A flipped bit is an error with the file's name, or a changed number."""
    path, read = write(tmp_path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    named = path.parents[1] if "variables" in path.name else path
    named = path.parent if path.suffix == ".pb" else named
    for _ in range(60):
        damaged = whole.copy()
        places = rng.choice(len(whole), 4)
        damaged[places] ^= rng.integers(1, 256, 4).astype(np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            read(path)
        except FileNotFoundError as error:  # of a part of the file with another name
            assert str(named) in str(error)
        except (ValueError, TypeError) as error:
            assert str(named) in str(error), error


# Malicious files --------------------------------------------------------------------------------


def keras_archive(path, config=None, weights=None, compression=zipfile.ZIP_STORED):
    """A copy of a model in which parts are replaced."""
    with zipfile.ZipFile(GOLDEN / "tf_keras.keras") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    if config is not None:
        parts["config.json"] = config(json.loads(parts["config.json"]))
    if weights is not None:
        parts["model.weights.h5"] = weights
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def with_layer(**changes):
    """The configuration with attributes of its last recurrent layer changed."""

    def change(config):
        config["config"]["layers"][3]["config"] |= changes
        return json.dumps(config)

    return change


def with_lambda(config):
    config["config"]["layers"][3] = {
        "class_name": "Lambda",
        "config": {"name": "top", "function": {"class_name": "__lambda__", "config": {"code": ""}}},
    }
    return json.dumps(config)


CONFIGURATIONS = {
    "code": (with_lambda, "a layer must be one of SimpleRNN, .* got Lambda"),
    "function": (with_layer(activation={"class_name": "function"}), "activation of SimpleRNN must"),
    "unknown attribute": (with_layer(clip=3.0), "clip of SimpleRNN is unknown, got 3.0"),
    "deep nesting": (lambda config: "[" * 10**6, "model.keras"),
    "no object": (lambda config: "[1]", "must be a JSON object, got list"),
    "no layers": (lambda config: "{}", "must be Sequential or Functional, got None"),
    "layers of another type": (
        lambda config: json.dumps({"class_name": "Sequential", "config": {"layers": [1]}}),
        "a layer must have class_name and config, got 1",
    ),
    "bomb": (lambda config: " " * 10**8, "config.json must not be compressed"),
}


@pytest.mark.parametrize("config, words", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
def test_malicious_configurations(tmp_path, config, words):
    peer("pyfive")
    path = tmp_path / "model.keras"
    bomb = words.startswith("config.json")
    keras_archive(path, config, compression=zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED)
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        convert.from_keras(path, layer="top")
    assert str(path) in str(caught.value)


def external_link(h5py, group, folder):
    group["0"] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def soft_loop(h5py, group, folder):
    group["0"] = h5py.SoftLink(f"{group.name}/0")


def external_storage(h5py, group, folder):
    (folder / "secret").write_bytes(bytes(64))
    group.create_dataset("0", (2, 2), "f4", external=[(str(folder / "secret"), 0, 16)])


def virtual(h5py, group, folder):
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (2, 2))
    group.create_virtual_dataset("0", layout)


def huge_and_unwritten(h5py, group, folder):
    group.create_dataset("0", (10**6, 10**6), "f4")


def compressed(h5py, group, folder):
    group.create_dataset("0", data=np.zeros((2, 2), "f4"), compression="gzip")


def texts(h5py, group, folder):
    group["0"] = ["a", "b"]


@pytest.mark.parametrize(
    "write",
    [external_link, soft_loop, external_storage, virtual, huge_and_unwritten, compressed, texts],
)
def test_malicious_arrays(tmp_path, write):
    peer("pyfive")
    h5py = peer("h5py")
    with zipfile.ZipFile(GOLDEN / "tf_keras.keras") as whole:
        data = io.BytesIO(whole.read("model.weights.h5"))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones((2, 2), "f4")
    with h5py.File(data, "r+") as file:
        group = file["layers/simple_rnn/cell/vars"]
        del group["0"]
        write(h5py, group, tmp_path)
    path = tmp_path / "model.keras"
    keras_archive(path, weights=data.getvalue())
    with pytest.raises((ValueError, TypeError)) as caught:
        convert.from_keras(path, layer="top")
    assert str(path) in str(caught.value)
    if write in (compressed, external_storage, huge_and_unwritten):
        assert "in one piece and without compression" in str(caught.value)


def test_every_bit_of_an_index_is_checked(tmp_path):
    path, _ = write_index(tmp_path)
    whole = path.read_bytes()
    for place in range(5, len(whole) * 2 // 3, 61):  # the block of the names and offsets
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="variables.index .* a wrong checksum"):
            convert.tensorflow_variables(tmp_path / "model")


def test_code_in_pickles_is_not_run(tmp_path):
    peer("torch")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Touch(tmp_path / "made")}, protocol=2))
    with pytest.raises(ValueError, match="evil.pt"):
        convert.from_pytorch(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()


def test_onnx_with_numbers_of_another_file(tmp_path):
    onnx = peer("onnx")
    path, read = write_onnx(tmp_path)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    (tmp_path / "secret").write_bytes(bytes(len(tensor.raw_data)))
    (tmp_path / "inside").mkdir()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path = tmp_path / "inside" / "w.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="w.onnx"):
        read(path)


def test_formats_that_are_not_read(tmp_path):
    peer("pyfive")
    (tmp_path / "exported").mkdir()
    (tmp_path / "w.npz").write_bytes(b"")
    for name, words in (
        ("exported", "keras_metadata.pb.*save the model by model.save"),
        ("w.npz", "a model must be a .keras file, a .h5 file or the folder of a SavedModel"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            convert.from_keras(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("model.weights.npz", b"")
    with pytest.raises(ValueError, match="other.keras: it must hold config.json and model.weights"):
        convert.from_keras(tmp_path / "other.keras")
    with pytest.raises(FileNotFoundError):
        convert.from_keras(tmp_path / "absent.keras")
    with pytest.raises(FileNotFoundError):
        convert.tensorflow_variables(tmp_path / "absent")


# State dicts of other packages ------------------------------------------------------------------


def arrays_of(kind):
    """Arrays of a module of each package, and the options of its converter."""
    rng = np.random.default_rng(0)

    def draw(**shapes):
        return {n.replace("__", "."): rng.normal(size=shape) for n, shape in shapes.items()}

    gates = {
        f"{g}_gate__{n}": s for g in ("a", "input") for n, s in (("w", (2, 3, 3)), ("b", (2, 3)))
    }
    inputs = {f"{g}gate__weight": (2, 3, 3) for g in "ifzo"}
    units = {f"algebra__algebra__{n}_{k}__weight": (4, 4) for n in "UW" for k in "zrh"}
    return {
        "mingru": (convert.from_mingru, draw(to_hidden_and_gate__weight=(8, 4)), {}),
        "torchrecurrent": (
            convert.from_torchrecurrent,
            draw(weight_ih=(4, 3), vector_u=(4,)),
            {"kind": "IndRNN", "nonlinearity": "relu"},
        ),
        "recurrentgemma": (convert.from_recurrentgemma, draw(a_param=(6,), **gates), {}),
        "xlstm": (
            convert.from_xlstm,
            draw(
                **inputs,
                slstm_cell___recurrent_kernel_=(2, 12, 3),
                slstm_cell___bias_=(24,),
                group_norm__weight=(6,),
            ),
            {},
        ),
        "memax": (
            convert.from_memax,
            draw(**units, **{f"algebra__algebra__W_{k}__bias": (4,) for k in "zrh"}),
            {},
        ),
    }[kind]


@pytest.mark.parametrize("kind", ["mingru", "torchrecurrent", "recurrentgemma", "xlstm", "memax"])
def test_converters_of_packages_read_files(tmp_path, kind):
    safetensors = peer("safetensors.numpy")
    read, arrays, options = arrays_of(kind)
    path = tmp_path / "module.safetensors"
    safetensors.save_file(arrays, path)
    wanted, given = read(arrays, **options), read(path, **options)
    assert given[0] == wanted[0]
    jax.tree.map(np.testing.assert_array_equal, given[1], wanted[1])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="module.safetensors must be a complete safetensors file"):
        read(path, **options)
    evil = tmp_path / "evil.pt"
    evil.write_bytes(pickle.dumps({"a": Touch(tmp_path / "made")}, protocol=2))
    peer("torch")
    with pytest.raises(ValueError, match="evil.pt"):
        read(evil, **options)
    assert not (tmp_path / "made").exists()
