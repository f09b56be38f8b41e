"""Options that experiments share: their checks, training, and cells and engines by name."""

import dataclasses
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import optax
import tyro

import jaxrnn as rnn
from experiments.common.sharding import Shard


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


def _check(config: Any, names: Collection[str], holds: Callable, expected: str) -> None:
    for name in names:
        if not holds(value := getattr(config, name)):
            raise ValueError(f"{name} must be {expected}, got {value!r}")


@dataclass(frozen=True)
class Options:
    """Training."""

    steps: int = 1000
    """Training steps; the learning rate schedule spans them."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""
    schedule: Literal["cosine", "constant", "one-cycle"] = "cosine"
    """Learning rate after the warm-up; one-cycle has its own, 30 % of the steps (Smith, 2018)."""
    warmup: int = 100
    """Steps of linear warm-up, at most half of all steps."""
    weight_decay: float = 0.0
    """AdamW's weight decay of matrices; 0 is Adam."""
    clip: float = 1.0
    """Maximum global norm of the gradient."""
    average: float = 0.0
    """Validate and keep an exponential moving average (EMA) of the parameters with this decay."""
    accumulate: int = 1
    """Steps whose gradients are averaged for one update."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the loss; parameters and optimizer state stay float32."""
    devices: int = 0
    """Devices of this process that share each batch; on a CPU, cores. 0 is all that divide it."""
    shard: Shard = "none"
    """Shard the optimizer state (ZeRO-1), or it and the parameters (FSDP), over the devices."""
    distributed: bool = False
    """Train in the processes of a cluster that JAX detects: SLURM, Open MPI, Kubernetes."""
    coordinator: str | None = None
    """HOST:PORT of process 0, for processes without such a cluster."""
    processes: int | None = None
    """The number of these processes."""
    process: int | None = None
    """The number of this process, from 0."""
    wait: int = 300
    """Seconds to wait for the other processes at the start."""
    heartbeat: int = 20
    """Seconds without a heartbeat after which a process counts as dead, and the others end."""
    seed: int = 0
    """Seed of the parameters and of training."""
    minutes: float | None = None
    """Stop after this many minutes of training; the same command resumes."""
    patience: int = 0
    """Early stopping after this many validations without improvement; 0: never."""
    out: Path | None = None
    """Output folder. None: a folder below runs/ for each configuration."""
    fresh: bool = False
    """Start from scratch, and delete the checkpoints in the output folder."""
    log_every: int = 10
    """Steps between log lines."""
    validate_every: int = 200
    """Steps between validations."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints to keep, at least 2."""

    def __post_init__(self):
        check_at_least(1, self, "steps", "accumulate")
        check_at_least(1, self, "processes", "wait", "heartbeat")
        check_at_least(1, self, "log_every", "validate_every", "checkpoint_every")
        check_at_least(2, self, "keep")
        check_positive(self, "learning_rate", "clip")
        check_not_negative(self, "warmup", "weight_decay", "devices", "patience")
        check_rate(self, "average")
        if self.steps % self.accumulate:
            raise ValueError(
                f"steps must be a multiple of accumulate, got {self.steps} and {self.accumulate}"
            )


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """Adam or AdamW, with clipping by global norm, a schedule, and gradient accumulation."""
    peak, updates = options.learning_rate, options.steps // options.accumulate
    warmup = min(options.warmup // options.accumulate, updates // 2)
    schedule = {
        "cosine": optax.warmup_cosine_decay_schedule(0.0, peak, warmup, updates),
        "constant": optax.warmup_constant_schedule(0.0, peak, warmup),
        "one-cycle": optax.cosine_onecycle_schedule(updates, peak),
    }[options.schedule]
    is_matrix = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip),
        optax.adamw(schedule, weight_decay=options.weight_decay, mask=is_matrix),
    )
    if options.accumulate == 1:
        return optimizer
    return optax.MultiSteps(optimizer, options.accumulate).gradient_transformation()


def _by_name(module: Any, *required: str) -> dict[str, Any]:
    """The public dataclasses that require just these fields; `MinGRU` is named `min-gru`."""
    kinds: list[Any] = [getattr(module, name) for name in module.__all__]
    return {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower(): kind
        for kind in kinds
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and tuple(f.name for f in dataclasses.fields(kind) if f.default is f.default_factory)
        == required
    }


_CELLS, _ENGINES = _by_name(rnn.cells, "hidden_size"), _by_name(rnn.engines)

if TYPE_CHECKING:
    CellName = str
    EngineName = str
else:
    CellName = tyro.extras.literal_type_from_choices(sorted(_CELLS))
    EngineName = tyro.extras.literal_type_from_choices(sorted(_ENGINES))


def make_cell(name: CellName, hidden_size: int) -> Any:
    """Returns the cell of a name, with its default options."""
    return _CELLS[name](hidden_size=hidden_size)


def make_engine(name: EngineName) -> Any:
    """Returns the engine of a name, with its default options."""
    return _ENGINES[name]()


def make_layer(config: Any) -> rnn.layers.Recurrent:
    """Returns the recurrent layer of the options `cell`, `hidden` and `engine`."""
    cell = make_cell(config.cell, config.hidden)
    return rnn.layers.Recurrent(cell, engine=make_engine(config.engine))
