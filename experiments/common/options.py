"""The training options that all experiments share, and what is built from options.

Also here: the checks of an option's value, and cells and engines by name.
"""

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import optax
import tyro

import jaxrnn as rnn

ScheduleName = Literal["cosine", "constant", "one-cycle"]
Precision = Literal["float32", "bfloat16"]


# Checks -------------------------------------------------------------------------------------------


def check_at_least(least: int, config: Any, *names: str) -> None:
    """Raises `ValueError` unless each named option is at least `least` or None."""
    _check(config, names, lambda value: value is None or value >= least, f"at least {least}")


def check_positive(config: Any, *names: str) -> None:
    """Raises `ValueError` unless each named option is greater than 0."""
    _check(config, names, lambda value: value > 0, "greater than 0")


def check_not_negative(config: Any, *names: str) -> None:
    """Raises `ValueError` unless each named option is 0 or more."""
    _check(config, names, lambda value: value >= 0, "0 or more")


def check_rate(config: Any, *names: str) -> None:
    """Raises `ValueError` unless each named option is in [0, 1)."""
    _check(config, names, lambda value: 0 <= value < 1, "in [0, 1)")


def check_one_of(choices: tuple[Any, ...], config: Any, *names: str) -> None:
    """Raises `ValueError` unless each named option is among `choices`."""
    _check(config, names, lambda value: value in choices, f"one of {choices}")


def _check(config: Any, names: Collection[str], holds: Callable, expected: str) -> None:
    for name in names:
        if not holds(value := getattr(config, name)):
            raise ValueError(f"{name} must be {expected}, got {value!r}")


# Training -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Training."""

    steps: int = 1000
    """Training steps; the learning rate schedule spans them."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    schedule: ScheduleName = "cosine"
    """Learning rate after the warm-up; one-cycle has its own warm-up, 30 % of the steps."""
    warmup: int = 100
    """Steps of linear warm-up, at most half of all steps."""
    weight_decay: float = 0.0
    """AdamW's weight decay of matrices; 0 is Adam."""
    clip: float = 1.0
    """Maximum global norm of the gradient."""
    average: float = 0.0
    """Decay of an exponential moving average (EMA) of the parameters, which is validated and kept
    in their place; 0 disables it."""
    accumulate: int = 1
    """Steps whose gradients are averaged for one update."""
    precision: Precision = "float32"
    """Precision of the loss; parameters and optimizer state stay float32."""
    devices: int = 1
    """Local devices that share each batch; 0 is all."""
    seed: int = 0
    """Seed of the parameters and of training."""
    minutes: float | None = None
    """Stop after this many minutes of training; the same command resumes."""
    patience: int = 0
    """Early stopping after this many validations without improvement; 0 disables it."""
    out: Path | None = None
    """Output folder. None: a folder below runs/ for each configuration."""
    fresh: bool = False
    """Start from scratch and delete the checkpoints in the output folder."""
    log_every: int = 10
    """Steps between log lines."""
    validate_every: int = 200
    """Steps between validations."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints to keep, at least 2."""

    def __post_init__(self):
        check_at_least(1, self, "steps", "log_every", "validate_every", "checkpoint_every")
        check_at_least(1, self, "accumulate")
        check_at_least(2, self, "keep")
        check_positive(self, "learning_rate", "clip")
        check_not_negative(self, "warmup", "weight_decay", "devices", "patience")
        check_rate(self, "average")
        check_one_of(get_args(ScheduleName), self, "schedule")
        check_one_of(get_args(Precision), self, "precision")
        if self.steps % self.accumulate:
            raise ValueError(
                f"steps must be a multiple of accumulate, got {self.steps} and {self.accumulate}: "
                f"the last {self.steps % self.accumulate} would not make an update"
            )


# Options that do not change the numbers that a run computes, except by rounding over devices.
_REPORTING = {"minutes", "patience", "out", "fresh", "log_every", "validate_every"}
_REPORTING |= {"checkpoint_every", "keep", "devices"}


def make_schedule(name: ScheduleName, peak: float, warmup: int, updates: int) -> optax.Schedule:
    """Returns the learning rate schedule of a name.

    `cosine` and `constant` warm up linearly from zero in at most half of the updates; `cosine` then
    decays to zero. `one-cycle` rises from peak / 25 and falls to peak / 250,000 (L. Smith and N.
    Topin, "Super-convergence", 2018).

    Example:
        >>> schedule = make_schedule("cosine", peak=0.5, warmup=10, updates=110)
        >>> [round(float(schedule(update)), 3) for update in (0, 5, 10, 60, 110)]
        [0.0, 0.25, 0.5, 0.25, 0.0]
    """
    warmup = min(warmup, updates // 2)
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, updates)
    if name == "constant":
        return optax.warmup_constant_schedule(0.0, peak, warmup)
    return optax.cosine_onecycle_schedule(updates, peak)


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """Adam or AdamW, with clipping by global norm, a schedule, and gradient accumulation."""
    updates = options.steps // options.accumulate
    warmup = options.warmup // options.accumulate
    schedule = make_schedule(options.schedule, options.learning_rate, warmup, updates)
    is_matrix = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip),
        optax.adamw(schedule, weight_decay=options.weight_decay, mask=is_matrix),
    )
    if options.accumulate == 1:
        return optimizer
    return optax.MultiSteps(optimizer, options.accumulate).gradient_transformation()


def identity(config: Any, *, reporting: Collection[str] = (), **more: Any) -> dict[str, Any]:
    """Everything that decides what a run computes, as JSON values.

    Args:
        config: the configuration, a dataclass with a field `training: Options`.
        reporting: the fields of `config` that change only what is reported.
        **more: further values that decide, such as a digest of the data.
    """
    fields = dataclasses.asdict(config)
    training = fields.pop("training")
    kept = {name: value for name, value in fields.items() if name not in reporting}
    kept |= {name: value for name, value in training.items() if name not in _REPORTING}
    return json.loads(json.dumps(kept | more, default=str))


def run_folder(options: Options, experiment: str, identity: Mapping[str, Any]) -> Path:
    """The output folder: the `out` option, else one that is unique to the run's identity."""
    if options.out is not None:
        return options.out
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Path("runs") / experiment / digest[:8]


# Cells and engines --------------------------------------------------------------------------------


def _by_name(module: Any, required: set[str]) -> dict[str, Any]:
    """The public dataclasses whose required arguments are these; `MinGRU` is named `min-gru`."""
    found = {}
    for kind in (getattr(module, name) for name in module.__all__):
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
            parameters = inspect.signature(kind).parameters.values()
            if {p.name for p in parameters if p.default is p.empty} == required:
                found[re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()] = kind
    return found


_CELLS = _by_name(rnn.cells, {"hidden_size"})
_ENGINES = _by_name(rnn.engines, set())

if TYPE_CHECKING:
    CellName = EngineName = str
else:
    CellName = tyro.extras.literal_type_from_choices(sorted(_CELLS))
    EngineName = tyro.extras.literal_type_from_choices(sorted(_ENGINES))


def make_cell(name: CellName, hidden_size: int) -> Any:
    """Returns the cell of a name, with its default options."""
    return _CELLS[name](hidden_size=hidden_size)


def make_engine(name: EngineName) -> Any:
    """Returns the engine of a name, with its default options."""
    return _ENGINES[name]()
