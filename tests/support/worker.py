"""One of several processes that train the toy: `python -m tests.support.worker --help`.

The variable FAULT, as in "SIGKILL 9" or "nan 9", says what goes wrong in which step; PACE says
how many seconds a batch takes.
"""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.cli import command
from experiments.common.options import Options
from experiments.common.processes import make_console
from experiments.common.run import identity
from experiments.common.training import fit
from tests.support import toy


@dataclass(frozen=True)
class Config:
    """Training of the toy, and what goes wrong."""

    size: int = 3
    """Decides nothing."""
    data: Path | None = None
    """May differ from process to process."""
    training: Options = field(
        default=Options(
            steps=24,
            learning_rate=0.1,
            warmup=4,
            log_every=4,
            validate_every=8,
            checkpoint_every=6,
            average=0.9,
            accumulate=2,
            seed=3,
        )
    )


def main(config: Config) -> SimpleNamespace:
    kind, step_of_fault = os.environ.get("FAULT", "none -1").split()

    def batch(step):
        values = toy.batch(step)
        time.sleep(float(os.environ.get("PACE", 0)))
        if step == int(step_of_fault):
            if kind == "nan":
                values["ys"][-1, -1, -1] = np.nan
            elif kind == "error":
                raise OSError("the disk is gone")
            else:
                os.kill(os.getpid(), signal.Signals[kind])
        return values

    outcome = fit(
        toy.make_task(batch=batch),
        toy.first_params(),
        jnp.zeros((toy.ROWS, toy.SIZE)),
        options=config.training,
        folder=config.training.out,
        identity=identity(config, reporting=("data",)),
        console=make_console(),
    )
    print("ends", jax.process_index(), outcome.step, outcome.best["step"], flush=True)
    return SimpleNamespace(outcome=outcome)


if __name__ == "__main__":
    command(main, Config, __doc__)
