"""results.json: figures, options, and what a run depends on."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.common.options import Options
from experiments.common.results import write_json, write_results
from tests.support.pages import ROOT


@dataclass(frozen=True)
class Config:
    hidden: int = 8
    seeds: int = 1
    data: Path | None = None
    training: Options = Options(steps=30)


def test_what_is_written(tmp_path):
    training = replace(Config.training, seed=4, steps=20, learning_rate=0.1, out=tmp_path)
    config = Config(seeds=3, data=Path("my.txt"), training=training)
    figures = {"loss": [np.float32(0.5), np.float64(0.25), 1], "memory": np.int64(7), "auc": None}
    baselines = {"mean": {"loss": 2.0}}
    write_results(tmp_path, "toy", config, figures, 12.34, baselines)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    on = found.pop("machine")
    assert found == {
        "experiment": "toy",
        "options": {"data": "my.txt", "steps": 20, "learning_rate": 0.1},
        "seeds": [4, 5, 6],
        "figures": {"loss": [0.5, 0.25, 1], "memory": 7, "auc": None},
        "baselines": baselines,
        "seconds": 12.3,
    }
    assert on["date"] == str(date.today()) and on["versions"]["jax"] == jax.__version__
    assert on["threads"] >= 1 and on["processor"]


def test_a_configuration_without_training_has_its_own_seeds(tmp_path):
    @dataclass(frozen=True)
    class Small:
        seed: int = 0
        seeds: int = 2

    write_results(tmp_path, "toy", Small(seed=3), {}, 0.0)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["seeds"] == [3, 4] and found["options"] == {}


def test_what_is_not_finite_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "results.json", loss=float("nan"))
    assert not (tmp_path / "results.json").exists()


def test_the_command_is_what_a_shell_takes(tmp_path):
    """A package is run by its name, and an argument with a space is quoted."""
    package = tmp_path / "toy"
    package.mkdir()
    program = "from experiments.common.results import machine\nprint(machine()['command'])\n"
    (package / "__main__.py").write_text(program)
    arguments = [sys.executable, "-m", "toy", "strong", "--data", "my text"]
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "python -m toy strong --data 'my text'\n"
