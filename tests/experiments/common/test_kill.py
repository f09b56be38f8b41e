"""The command, killed at random moments, ends as if it had not been killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from experiments.common.metrics import Log
from tests.support.toy import assert_same_state, final_state

CHECKPOINT_EVERY = 3
# No life sees more than this many checkpoints, so a run of `steps` outlasts the kills.
MOST_CHECKPOINTS = 4


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A compilation cache that all processes share."""
    cache = str(tmp_path_factory.mktemp("compiled"))
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }


def start(folder: Path, steps: int, environment, **changes) -> subprocess.Popen:
    text = folder.parent / "own.txt"
    text.write_text("".join(f"{n * n} is the square of {n}.\n" for n in range(200)))
    options = dict(data=text, out=folder, steps=steps, hidden=24, embed=8, batch=8, time=16)
    options |= dict(layers=2, dropout=0.2, warmup=5, sample=40, seed=7, temperatures=1.0)
    options |= dict(variational=0.1, weight_drop=0.2, learned_state=0.3, average=0.8)
    options |= dict(checkpoint_every=CHECKPOINT_EVERY, validate_every=7, log_every=2)
    options |= changes
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.char_lm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )


def finish(folder: Path, steps: int, environment) -> str:
    process = start(folder, steps, environment)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_until(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)


def newest(folder: Path) -> str:
    found = folder.glob("checkpoints/step_????????/sha256")
    return max((path.parent.name for path in found), default="")


def start_and_kill(folder: Path, steps: int, environment, chance: random.Random) -> None:
    """Starts the command and kills it: sometimes at once, mostly some checkpoints later."""
    process = start(folder, steps, environment)
    try:
        if chance.random() < 0.2:
            time.sleep(chance.uniform(0, 1.5))
        else:
            for _ in range(chance.randint(1, MOST_CHECKPOINTS - 1)):
                before = newest(folder)
                wait_until(lambda before=before: newest(folder) > before, process)
            time.sleep(chance.uniform(0, 0.02))
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def reported(folder: Path) -> tuple[dict, list, str]:
    """The best parameters, losses and samples, which must not depend on the kills."""
    best = {name: value.tolist() for name, value in load_file(folder / "best.safetensors").items()}
    keep = ("step", "loss", "gradient_norm", "validation_loss")
    lines = [
        {k: v for k, v in x.items() if k in keep} for x in Log(folder / "metrics.jsonl").read()
    ]
    return best, lines, (folder / "samples.txt").read_text()


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.thorough)])
def test_a_killed_run_equals_an_uninterrupted_one(tmp_path, environment, kills):
    # Twice what the lives should see: on a busy machine some checkpoints come and go unseen.
    steps = 2 * CHECKPOINT_EVERY * MOST_CHECKPOINTS * (kills + 1)
    output = finish(tmp_path / "whole", steps, environment)
    cores = len(os.sched_getaffinity(0))
    assert f"devices: {max(n for n in (1, 2, 4, 8) if n <= cores)}\n" in output
    chance = random.Random(kills + 1)  # with a seed of 1, the only kill comes before a checkpoint
    for _ in range(kills):
        start_and_kill(tmp_path / "killed", steps, environment, chance)
    output = finish(tmp_path / "killed", steps, environment)
    assert "resumes from step" in output
    assert_same_state(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))
    assert reported(tmp_path / "killed") == reported(tmp_path / "whole")


@pytest.mark.thorough  # by default the same in one process, in test_training.py and test_cli.py
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_a_checkpoint_and_an_exit_status(tmp_path, environment, number):
    folder = tmp_path / "stopped"
    process = start(folder, 100_000, environment)
    wait_until(lambda: newest(folder), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"stopped by {number.name}" in output
    step, _ = final_state(folder)
    assert f"{step} steps in " in output
    assert "Traceback" not in output
