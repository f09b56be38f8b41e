"""Runs: their identity and their folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.common.options import Options
from experiments.common.run import Run, identity, run_folder


@dataclass(frozen=True)
class Config:
    size: int = 3
    folder: Path = Path("a")
    samples: tuple[float, ...] = (0.5, 1.0)
    training: Options = Options()


@pytest.mark.parametrize(
    "same",
    [
        Config(samples=(2.0,)),
        Config(training=Options(minutes=3, out=Path("b"), fresh=True, keep=5)),
        Config(training=Options(log_every=1, validate_every=1, checkpoint_every=1)),
        Config(training=Options(patience=3, devices=2)),
    ],
)
def test_reporting_options_keep_the_identity(same):
    assert identity(same, reporting=["samples"]) == identity(Config(), reporting=["samples"])


@pytest.mark.parametrize(
    "other",
    [
        Config(size=4),
        Config(samples=(2.0,)),
        Config(folder=Path("c")),
        *(Config(training=Options(**{name: 7})) for name in ("steps", "seed", "warmup", "clip")),
        *(Config(training=Options(**{name: 7.0})) for name in ("learning_rate", "weight_decay")),
        *(Config(training=Options(schedule=name)) for name in ("constant", "one-cycle")),
        Config(training=Options(precision="bfloat16")),
        Config(training=Options(accumulate=2)),
        Config(training=Options(average=0.5)),
    ],
)
def test_other_options_change_the_identity_and_the_folder(other):
    one, another = identity(Config()), identity(other)
    assert one != another and one == json.loads(json.dumps(one))
    assert run_folder(Options(), "char_lm", one) != run_folder(Options(), "char_lm", another)
    assert run_folder(Options(), "char_lm", one) == run_folder(Options(), "char_lm", dict(one))
    assert run_folder(Options(out=Path("mine")), "char_lm", one) == Path("mine")


def test_a_part_has_a_folder_and_an_identity_of_its_own(tmp_path):
    run = Run("toy", Config(training=Options(out=tmp_path)), reporting=["samples"], text="abc")
    part = run.part("half", amount=0.5)
    assert part.folder == tmp_path / "half" and run.folder == tmp_path
    assert part.identity == {**run.identity, "amount": 0.5} and run.identity["text"] == "abc"
    assert part.settings["folder"] == part.folder and "samples" not in part.identity
