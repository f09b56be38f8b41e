"""The training loop that the experiments share.

An experiment gives a loss, the batch of every step, and a validation. A resumed run equals an
uninterrupted one bit for bit (same machine, same number of threads): all that a step depends on is
in the checkpoint or follows from the step number. Its batch is `batch(step)`, its randomness
`fold_in(key(seed), step)`.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from rich.console import Console

from experiments.common.checkpoint import Checkpoints, flatten, replace_file, unflatten
from experiments.common.cli import ProgressBar, UserError, stop_signals
from experiments.common.metrics import Log, plot_curves
from experiments.common.options import Options, make_optimizer

PyTree = Any
Loss = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, PyTree]]


@dataclass(frozen=True)
class Task:
    """What to train.

    Args:
        name: the title of the progress bar and of the curves.
        loss: `(params, carry, batch, key) -> (loss, carry)`. The carry goes from one batch to the
            next without a gradient, as in truncated back-propagation; `()` if there is none.
        batch: returns the batch of a step as NumPy arrays; a pure function of the step number.
        validate: `params -> metrics`, among them `"loss"`.
        units: the number of units in one batch, for the rate.
        unit: the name of these units.
        loss_unit: the unit of the loss, for the curves.
        batch_axes: the axis of a batch that devices share, or a tree prefix of axes, see `shard`.
        carry_axes: the same for the carry.
        monitor: the metric whose minimum chooses the best parameters.
    """

    name: str
    loss: Loss
    batch: Callable[[int], PyTree]
    validate: Callable[[PyTree], Mapping[str, float]]
    units: int
    unit: str
    loss_unit: str
    batch_axes: PyTree = 1
    carry_axes: PyTree = 0
    monitor: str = "loss"


class Outcome(NamedTuple):
    """The result of a run.

    Attributes:
        params: the best parameters by validation (their EMA with `--average`).
        best: their metrics, and their `step`.
        step: the number of steps done.
        seconds: the time of all parts of the run.
        compile_seconds: compilation and first validation of this part.
        signal: the signal that stopped the run, or None.
    """

    params: PyTree
    best: dict[str, float]
    step: int
    seconds: float
    compile_seconds: float
    signal: signal.Signals | None


def fit(
    task: Task,
    params: PyTree,
    carry: PyTree,
    *,
    options: Options,
    folder: Path,
    identity: Mapping[str, Any],
    console: Console,
    seeds: Sequence[int] | None = None,
) -> Outcome:
    """Trains, or resumes from the latest sound checkpoint in the folder.

    Args:
        task: what to train.
        params: the initial parameters.
        carry: the carry of the first batch.
        options: how to train.
        folder: the output folder.
        identity: all that decides what the run computes, as JSON values.
        console: where to print.
        seeds: seeds to train side by side, see `fit_seeds`; None trains `options.seed`.

    Raises:
        UserError: the folder holds a run with another identity; or the loss or its gradient is not
            finite, and the last good checkpoint is kept.
    """
    init, step = make_step(task.loss, options, seeds)
    return _Run(task, options, folder, identity, console).train(init(params, carry), step)


class State(NamedTuple):
    """All that changes from step to step; `ema` is None without `--average`."""

    params: PyTree
    opt_state: optax.OptState
    carry: PyTree
    ema: PyTree = None

    @property
    def eval_params(self) -> PyTree:
        """The parameters to validate and to keep."""
        return self.params if self.ema is None else self.ema


def make_step(
    loss: Loss, options: Options, seeds: Sequence[int] | None = None
) -> tuple[Callable, Callable]:
    """Returns `init(params, carry) -> state` and `step(state, batch, number) -> (state, results)`.

    The results are the loss and the norm of its gradient. With `seeds`, states and results have a
    leading axis of seeds.
    """
    optimizer = make_optimizer(options)
    value_and_grad = jax.value_and_grad(in_precision(loss, options.precision), has_aux=True)

    def init(params, carry):
        return State(params, optimizer.init(params), carry, params if options.average else None)

    def step(state, batch, number, key):
        key = jax.random.fold_in(key, number)
        (value, carry), gradient = value_and_grad(state.params, state.carry, batch, key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params, ema = optax.apply_updates(state.params, updates), state.ema
        if options.average:
            ema = update_ema(ema, params, options.average, number)
        return State(params, opt_state, carry, ema), (value, optax.tree.norm(gradient))

    if seeds is None:
        key = jax.random.key(options.seed)
    else:
        key = jnp.stack([jax.random.key(seed) for seed in seeds])
        init, step = jax.vmap(init), jax.vmap(step, in_axes=(0, None, None, 0))
    return init, lambda state, batch, number: step(state, batch, number, key)


def in_precision(loss: Loss, precision: str) -> Loss:
    """Casts the parameters and the batch of a loss to a precision.

    The gradient and the loss come back in float32, the carry in its own dtype. The loss should cast
    the outputs of the model to float32 before it sums over them.
    """
    if precision == "float32":
        return loss

    def cast(leaf):
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, precision) if floating else leaf

    def low_precision_loss(params, carry, batch, key):
        value, after = loss(jax.tree.map(cast, params), carry, jax.tree.map(cast, batch), key)
        return value.astype("float32"), optax.tree.cast_like(after, carry)

    return low_precision_loss


def update_ema(ema: PyTree, params: PyTree, decay: float, number: jax.Array) -> PyTree:
    """Updates the bias-corrected exponential moving average (EMA) after step `number`.

    ema_n = Σ_k decay^(n - k) params_k / Σ_k decay^(n - k),   k = 0, ..., n
    """
    # The weight of the newest, 1 / Σ_k decay^(n - k), accurate where decay is close to 1.
    weight = (1 - decay) / -jnp.expm1((number + 1) * math.log(decay))
    return optax.incremental_update(params, ema, weight)


def shard(
    count: int, batch_axes: PyTree, carry_axes: PyTree
) -> tuple[State, PyTree, NamedSharding]:
    """Returns the shardings of the state, of a batch, and of a replicated array.

    Args:
        count: the number of local devices to use; 0 is all.
        batch_axes: the axis of a batch to shard, or a tree prefix of axes; None replicates.
        carry_axes: the same for the carry.
    """
    devices = jax.local_devices()
    count = count or len(devices)
    if count > len(devices):
        raise UserError(f"devices: this process has {len(devices)}, and --devices is {count}")
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:count])

    def sharding(axis: int | None) -> NamedSharding:
        names = () if axis is None else (*[None] * axis, "rows")
        return NamedSharding(mesh, PartitionSpec(*names))

    batch, carry, replicated = jax.tree.map(
        sharding, (batch_axes, carry_axes, None), is_leaf=lambda axis: axis is None
    )
    return State(replicated, replicated, carry, replicated), batch, replicated


class _Run:
    """The part of a run that one process does."""

    def __init__(self, task: Task, options: Options, folder: Path, identity: Any, console: Console):
        self.task, self.options, self.folder = task, options, folder
        self.identity, self.console = identity, console
        self.log = Log(folder / "metrics.jsonl")
        self.checkpoints = Checkpoints(folder / "checkpoints", options.keep, fresh=options.fresh)
        self.best: dict[str, float] = {"step": 0, task.monitor: math.inf}
        self.best_params: PyTree = None
        self.seconds_before = 0.0  # in the parts before this one
        self.began: float | None = None

    def train(self, state: State, step_function: Callable) -> Outcome:
        if decay := self.options.average:
            self._print(f"validates and keeps the EMA of the parameters, decay {decay:g}")
        step, state = self._resume(state)
        compile_seconds, seconds, received = 0.0, self.seconds_before, None
        if step < self.options.steps and not self._is_stale(step):
            began = time.perf_counter()
            train_step, state = self._compile(step_function, state)
            metrics = self.task.validate(state.eval_params)
            self.began = time.perf_counter()
            compile_seconds = self.began - began
            self._print(f"compiled in {compile_seconds:.1f} s")
            if step == 0:
                self._record_validation(step, state, metrics)
            try:
                step, state, received = self._loop(train_step, step, state)
                seconds = self._seconds()
            finally:
                lines, name = self.log.read(), self.task.name
                plot_curves(self.folder / "curves.png", lines, name, self.task.loss_unit)
        shown = ", ".join(f"{k} {v:.4f}" for k, v in self.best.items() if k != "step")
        self._print(
            f"{step} steps in {seconds:.1f} s of training; best validation at step "
            f"{self.best['step']}: {shown}"
        )
        if received is not None:
            self._print(f"stopped by {received.name}; the same command resumes the run")
        return Outcome(self.best_params, self.best, step, seconds, compile_seconds, received)

    def _resume(self, state: State) -> tuple[int, State]:
        """Returns the step and the state to start from; copies, because steps donate the state."""
        self.best_params = jax.tree.map(np.array, state.eval_params)
        found = self.checkpoints.load(self._print)
        if found is None:
            self.log.truncate(-1)
            return 0, jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
        step, arrays, header = found
        before = header["identity"]
        for name in sorted(before.keys() | self.identity.keys()):
            then, now = before.get(name), self.identity.get(name)
            if then != now:
                raise UserError(
                    f"out: {self.folder} holds a run with {name}={then!r}, and this one has "
                    f"{now!r}; name another folder with --out, or start from scratch with --fresh"
                )
        self.best, self.seconds_before = header["best"], header["seconds"]
        content = unflatten(arrays, {**state._asdict(), "best": self.best_params})
        self.best_params = content.pop("best")
        self._write_best()
        self.log.truncate(step)
        self._print(f"resumes from step {step}, {self.checkpoints.latest()}")
        return step, jax.tree.map(jnp.array, State(**content))

    def _compile(self, step_function: Callable, state: State) -> tuple[Callable, State]:
        task, batch, shardings = self.task, self.task.batch(0), {}
        if self.options.devices != 1:
            places = shard(self.options.devices, task.batch_axes, task.carry_axes)
            try:
                state, batch = jax.device_put((state, batch), places[:2])
            except ValueError as error:
                raise UserError(f"devices: {error}; change --devices or the batch size") from error
            shardings = {"in_shardings": places, "out_shardings": (places[0], places[2])}
        jitted = jax.jit(step_function, donate_argnums=0, **shardings)
        return jitted.lower(state, batch, np.int32(0)).compile(), state

    def _loop(
        self, train_step: Callable, step: int, state: State
    ) -> tuple[int, State, signal.Signals | None]:
        task, options = self.task, self.options
        window, window_began, stop = [], time.perf_counter(), False
        bar = ProgressBar(task.name, task.unit, options.steps, self.console)
        with stop_signals() as received, bar:
            bar.advance_to(step)
            while step < options.steps and not stop:
                state, result = train_step(state, task.batch(step), np.int32(step))
                step += 1
                window.append(result)
                last = step == options.steps
                minutes = math.inf if options.minutes is None else options.minutes
                stop = bool(received) or self._seconds() >= 60 * minutes
                validates = last or step % options.validate_every == 0
                saves = last or stop or step % options.checkpoint_every == 0
                # What is saved has been logged, so a resumed run writes the same lines.
                logs = saves or step % options.log_every == 0
                if validates or logs:
                    losses, norms = self._read_finite(step, window)
                if validates:
                    self._record_validation(step, state, task.validate(state.eval_params))
                    if self._is_stale(step) and not last:
                        self._print(
                            f"early stopping: no improvement since step {self.best['step']}"
                        )
                        stop = saves = logs = True
                if logs:
                    rate = len(window) * task.units / (time.perf_counter() - window_began)
                    bar.advance_to(step, f"{losses.mean():.3f}", f"{rate:,.0f}")
                    metrics = {"loss": losses.mean(), "gradient_norm": norms.mean()}
                    metrics |= {f"{task.unit}_per_second": rate, "seconds": self._seconds()}
                    self.log.append(step, metrics)
                if saves:
                    content = {**state._asdict(), "best": self.best_params}
                    header = {"identity": self.identity, "best": self.best}
                    self.checkpoints.save(step, content, header | {"seconds": self._seconds()})
                if logs:
                    window, window_began = [], time.perf_counter()
        return step, state, received[0] if received else None

    def _read_finite(self, step: int, window: list) -> tuple[np.ndarray, np.ndarray]:
        """The losses and gradient norms of the last steps, `[steps, seeds]`, if all are finite.

        A finite gradient leaves finite parameters, so a checkpoint saved after this is sound.
        """
        results = np.asarray(window, np.float64)
        losses, norms = results.reshape(len(window), 2, -1).swapaxes(0, 1)
        bad = np.argwhere(~(np.isfinite(losses) & np.isfinite(norms)))
        if bad.size:
            first, options = tuple(bad[0]), self.options
            raise UserError(
                f"step {step - len(window) + first[0]}: the loss is {losses[first]:.4g}, its "
                f"gradient's norm {norms[first]:.4g}. Lower --learning-rate (now "
                f"{options.learning_rate:g}) or --clip (now {options.clip:g}), or lengthen "
                f"--warmup (now {options.warmup}). The last good checkpoint is kept: "
                f"{self.checkpoints.latest() or 'none yet'}"
            )
        return losses, norms

    def _record_validation(self, step: int, state: State, metrics: Mapping[str, float]) -> None:
        if not math.isfinite(metrics["loss"]):
            raise UserError(f"the validation loss is {metrics['loss']} at step {step}")
        named = {f"validation_{name}": value for name, value in metrics.items()}
        self.log.append(step, named | {"seconds": self._seconds()})
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self._print(f"step {step:6d}  {self._seconds():6.1f} s  validation: {shown}")
        if metrics[self.task.monitor] < self.best[self.task.monitor]:
            self.best = {**metrics, "step": step}
            self.best_params = jax.tree.map(np.array, state.eval_params)
            self._write_best()

    def _write_best(self) -> None:
        arrays, metadata = flatten({"params": self.best_params}), {"best": json.dumps(self.best)}
        replace_file(self.folder / "best.safetensors", safetensors.numpy.save(arrays, metadata))

    def _is_stale(self, step: int) -> bool:
        """Whether the last `patience` validations brought no improvement."""
        patience = self.options.patience * self.options.validate_every
        return patience > 0 and step - self.best["step"] >= patience

    def _seconds(self) -> float:
        now = 0.0 if self.began is None else time.perf_counter() - self.began
        return self.seconds_before + now

    def _print(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)
