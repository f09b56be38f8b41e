"""Damaged and hostile model files are refused by a named error, and nothing in them is executed."""

import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.networks import network, random_params

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")
NET = network("lstm", "stack")
DATA = rnn.export.to_onnx(NET, random_params(NET)).SerializeToString()


def read(path, data):
    path.write_bytes(data)
    return rnn.convert.from_onnx(path)


def test_cut_files_are_refused(tmp_path):
    for size in range(0, len(DATA), len(DATA) // 20):
        with pytest.raises(ValueError, match="must|cannot be read") as info:
            read(tmp_path / "model.onnx", DATA[:size])
        assert info.type is ValueError


def test_changed_bytes_give_another_network_or_a_named_error(tmp_path):
    rng, refused = np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(DATA)
        for place in rng.integers(len(DATA), size=4):
            data[place] = rng.integers(256)
        try:
            read(tmp_path / "model.onnx", bytes(data))
        except (ValueError, TypeError) as error:
            assert type(error) in (ValueError, TypeError), repr(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("place", ["/etc/passwd", "../secret", "model.onnx", "missing"])
def test_data_outside_of_the_model_are_not_read(tmp_path, place):
    (tmp_path / "secret").write_bytes(b"\0" * 4096)
    (tmp_path / "model").mkdir()
    model = onnx.load_from_string(DATA)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    for source in (None, model):
        with pytest.raises(ValueError, match="must|cannot be read") as info:
            if source is None:
                read(tmp_path / "model" / "model.onnx", model.SerializeToString())
            else:
                rnn.convert.from_onnx(source)
        assert info.type is ValueError


class Payload:
    """Runs code if it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_other_formats_and_impossible_sizes_are_refused(tmp_path):
    import pickle

    model = onnx.load_from_string(DATA)
    model.graph.initializer[0].dims[1] = 2**50
    for data in (b"", b"PK\x03\x04", pickle.dumps(Payload()), model.SerializeToString()):
        with pytest.raises(ValueError, match="must|cannot be read"):
            read(tmp_path / "model.onnx", data)
