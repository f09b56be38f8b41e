"""How to train: the options that all experiments share, and what follows from them."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import optax

from experiments.common import checks as _checks
from experiments.common.schedules import ScheduleName, make_schedule

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Options:
    """How to train."""

    steps: int = 1000
    """Training steps; the learning rate's schedule is laid out over them."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam, reached after the warm-up."""
    schedule: ScheduleName = "cosine"
    """What follows the warm-up: a cosine down to zero, or nothing (constant); one-cycle has a
    warm-up of its own, 30 % of all steps."""
    warmup: int = 100
    """Steps over which the learning rate rises from zero (at most half of all)."""
    weight_decay: float = 0.0
    """AdamW's decay of the weight matrices; 0 is Adam."""
    clip: float = 1.0
    """Gradients with a larger global norm are scaled down to it."""
    average: float = 0.0
    """Decay, each step, of a running average of the parameters, which is validated and kept in
    their place; 0 takes them as they are."""
    accumulate: int = 1
    """Steps whose mean gradient makes one update, for batches that do not fit into memory."""
    precision: Precision = "float32"
    """What the loss is computed in. With bfloat16 parameters, moments and recurrent states stay
    float32, and products accumulate in float32."""
    devices: int = 1
    """How many local devices share each batch; 0 is all of them."""
    seed: int = 0
    """Seed of the parameters and of all randomness in training."""
    minutes: float | None = None
    """Stop early, after so many minutes of training; the same command goes on from there."""
    patience: int = 0
    """Stop early, after so many validations without a better one; 0 never does."""
    out: Path | None = None
    """Folder for all that is written. None: one below runs/ for every configuration, so that a
    command finds its own run again."""
    fresh: bool = False
    """Begin anew, even where the folder holds a checkpoint."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    validate_every: int = 200
    """Steps between two validations."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    keep: int = 2
    """How many checkpoints to keep, besides the best parameters; at least 2."""

    def __post_init__(self):
        _checks.at_least(1, self, "steps", "log_every", "validate_every", "checkpoint_every")
        _checks.at_least(1, self, "accumulate")
        _checks.at_least(2, self, "keep")
        _checks.positive(self, "learning_rate", "clip")
        _checks.not_negative(self, "warmup", "weight_decay", "devices", "patience")
        _checks.rate(self, "average")
        if self.steps % self.accumulate:
            raise ValueError(
                f"steps must be a multiple of accumulate, got {self.steps} and {self.accumulate}: "
                f"the last {self.steps % self.accumulate} would never make an update"
            )
        _checks.one_of(get_args(ScheduleName), self, "schedule")
        _checks.one_of(get_args(Precision), self, "precision")


# These say where a run computes, when it reports, saves or stops, and change nothing of what it
# computes, but for the rounding of sums over devices.
_REPORTING = frozenset(
    ("minutes", "patience", "out", "fresh", "log_every", "validate_every", "checkpoint_every")
    + ("keep", "devices")
)


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """Adam or AdamW, with clipping by global norm, a schedule, and accumulation of gradients.

    The schedule counts updates: under accumulation fewer than steps.
    """
    updates = options.steps // options.accumulate
    warmup = options.warmup // options.accumulate
    schedule = make_schedule(options.schedule, options.learning_rate, warmup, updates)
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip),
        optax.adamw(schedule, weight_decay=options.weight_decay, mask=_is_matrix),
    )
    if options.accumulate == 1:
        return optimizer
    return optax.MultiSteps(optimizer, options.accumulate).gradient_transformation()


def identity(config: Any, *, reporting: Collection[str] = (), **more: Any) -> dict[str, Any]:
    """All that decides what a run computes, as JSON: two runs with the same are the same run.

    Args:
        config: an experiment's configuration, a dataclass with a field `training` of `Options`.
        reporting: the fields of `config` that change only what is reported afterwards.
        **more: what else decides, such as a digest of the data.
    """
    fields = dataclasses.asdict(config)
    training = fields.pop("training")
    kept = {name: value for name, value in fields.items() if name not in reporting}
    kept |= {name: value for name, value in training.items() if name not in _REPORTING}
    return json.loads(json.dumps(kept | more, default=str))


def run_folder(options: Options, experiment: str, identity: Mapping[str, Any]) -> Path:
    """The folder of a run: the user's choice, else one that belongs to its identity."""
    if options.out is not None:
        return options.out
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Path("runs") / experiment / digest[:8]


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
