"""Experiments on four devices, in one process and in two, train to one device's losses."""

import itertools

import pytest

from experiments.common.metrics import Log
from tests.support.processes import finish
from tests.support.utterances import write_ljspeech

TRAINING = dict(
    steps=20, accumulate=2, average=0.8, warmup=4, log_every=1, validate_every=10, seed=5
)
COMMANDS = {
    "char_lm": dict(
        hidden=16, embed=8, batch=8, time=12, layers=2, dropout=0.1, learned_state=0.3, sample=10
    ),
    "speech": dict(layers=2, hidden=8, bands=10, batch=4, letters=0, phonemes=0, width=2),
    "long_memory": dict(task="copy", length=10, cell="gru", hidden=8, rows=8, seeds=2),
}
PRECISIONS = "float32", "bfloat16"
WAYS = {"four devices": dict(count=1, devices=4), "two processes": dict(count=2, devices=2)}


def data(name, folder):
    if name == "char_lm":
        text = folder / "own.txt"
        text.write_text("".join(f"{n * n} is the square of {n}.\n" for n in range(200)))
        return {"data": text}
    if name == "speech":
        return {"data": write_ljspeech(folder / "speech", 12, 200)}
    return {}


def losses(folder):
    lines = Log(folder / "metrics.jsonl").read()
    kinds = ("loss", "gradient_norm", "validation_loss")
    return {(line["step"], kind): line[kind] for line in lines for kind in kinds if kind in line}


@pytest.fixture(scope="module", params=itertools.product(COMMANDS, PRECISIONS), ids="-".join)
def trained(request, tmp_path_factory):
    """The name of an experiment, its options, and the folder of a run on one device."""
    name, precision = request.param
    folder = tmp_path_factory.mktemp(name)
    options = TRAINING | COMMANDS[name] | data(name, folder) | {"precision": precision}
    one = folder / "one"
    finish(folder, f"experiments.{name}", options | {"out": one}, count=1, devices=1)
    return name, options, one


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
def test_losses_equal_those_of_one_device(trained, tmp_path, way):
    name, options, one = trained
    finish(tmp_path, f"experiments.{name}", options | {"out": tmp_path / "out"}, **WAYS[way])
    found, expected = losses(tmp_path / "out"), losses(one)
    assert found.keys() == expected.keys() and len(expected) >= 2 * 20
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5), key
