"""A run of an experiment: where it is written, and all that decides what it computes."""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

import jax

from experiments.common.options import Options
from experiments.common.processes import make_console
from experiments.common.results import write_results
from experiments.common.training import Outcome, Task, fit

PyTree = Any


class Run:
    """The output folder, the identity, the console and the seeds of a run.

    Args:
        experiment: the name of the experiment.
        config: its configuration, with the field `training`.
        reporting: the fields that change only what is reported.
        **more: what else decides the result, such as a digest of the data.
    """

    def __init__(
        self, experiment: str, config: Any, *, reporting: Collection[str] = (), **more: Any
    ):
        self.experiment, self.config, self.options = experiment, config, config.training
        self.identity = identity(config, reporting=reporting, **more)
        self.folder = run_folder(config.training, experiment, self.identity)
        self.console = make_console()

    def part(self, name: str, **more: Any) -> Self:
        """One of several parts, in a subfolder, and what else decides its result."""
        part = copy.copy(self)
        part.folder, part.identity = self.folder / name, self.identity | more
        return part

    def fit(
        self,
        task: Task,
        init: Callable[[jax.Array], PyTree],
        carry: Callable[[PyTree], PyTree] = lambda params: (),
    ) -> Outcome:
        """Trains parameters `init(key)` by `fit`, from the carry that belongs to them."""
        params = jax.jit(init)(jax.random.key(self.options.seed))
        return fit(task, params, carry(params), **self.settings)

    @property
    def seeds(self) -> range:
        """The seeds to train, for `fit_seeds`."""
        return range(self.options.seed, self.options.seed + self.config.seeds)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `fit` that say how and where to train."""
        names = ("options", "folder", "identity", "console")
        return {name: getattr(self, name) for name in names}

    def write(self, name: str, text: str) -> None:
        """Prints a report and writes it to a file."""
        self.console.print(text)
        (self.folder / name).write_text(text + "\n", encoding="utf-8")

    def write_results(self, figures: Any, seconds: float, baselines: Any = None) -> None:
        """Writes `results.json`; see `write_results`."""
        write_results(self.folder, self.experiment, self.config, figures, seconds, baselines)


# These do not change what a run computes, except that devices change the order of sums.
_REPORTING = (
    "minutes patience out fresh log_every validate_every checkpoint_every keep "
    "devices shard distributed coordinator processes process wait heartbeat"
)


def identity(config: Any, *, reporting: Collection[str] = (), **more: Any) -> dict[str, Any]:
    """All that decides what a run computes, as JSON values.

    Args:
        config: the configuration, a dataclass with a field `training: Options`.
        reporting: the fields of `config` that change only what is reported.
        **more: what else decides, such as a digest of the data.
    """
    fields = dataclasses.asdict(config)
    fields |= fields.pop("training")
    kept = fields.keys() - {*reporting, *_REPORTING.split()}
    return json.loads(json.dumps({name: fields[name] for name in kept} | more, default=str))


def run_folder(options: Options, experiment: str, identity: Mapping[str, Any]) -> Path:
    """The output folder: the `out` option, else one that is unique to the run's identity."""
    if options.out is not None:
        return options.out
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Path("runs") / experiment / digest[:8]
