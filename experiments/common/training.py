"""The training loop that the experiments share.

An experiment gives a loss, the batch of every step, and a validation. A resumed run equals an
uninterrupted one bit for bit (same machine, same number of threads): all that a step depends on is
in the checkpoint or follows from the step number. Its batch is `batch(step)`, its randomness
`fold_in(key(seed), step)`.

Several devices, of one process or of several, share the rows of each batch. All processes do the
same steps: what one of them measures or receives (a validation, a signal, the time) they agree on.
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
import safetensors.numpy
from jax.sharding import Mesh
from rich.console import Console

from experiments.common import processes, sharding
from experiments.common.checkpoint import Checkpoints, flatten, replace_file, unflatten
from experiments.common.cli import ProgressBar, stop_signals
from experiments.common.errors import UserError
from experiments.common.metrics import Log, plot_curves
from experiments.common.options import Options
from experiments.common.step import Loss, State, init_state, jit_step

PyTree = Any


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
        batch_axes: the axis of a batch that devices share, or a tree prefix of axes; None
            replicates.
        carry_axes: the same for the carry.
        monitor: the metric whose minimum chooses the best parameters.
        own_batch: `(step, index, count) -> batch` returns one of `count` equal parts of the rows of
            `batch(step)`, so that a process reads no others; None cuts them from the whole batch.
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
    own_batch: Callable[[int, int, int], PyTree] | None = None


_TIME_IS_UP = 1  # stops a run as a signal does; SIGHUP, which has this number, is not handled


class Outcome(NamedTuple):
    """The result of a run.

    Attributes:
        params: the best parameters by validation (their EMA with `--average`).
        best: their metrics, and their `step`.
        step: the number of steps done.
        seconds: the time of all parts of the run.
        compile_seconds: compilation and first validation of this part.
        signal: the signal that stopped the run (of one process or all), or None.
    """

    params: PyTree
    best: dict[str, float]
    step: int
    seconds: float
    compile_seconds: float
    signal: signal.Signals | None

    @property
    def reports(self) -> bool:
        """Whether to report: no signal stopped the run, and this is process 0."""
        return self.signal is None and processes.is_first()


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
            finite, and the last good checkpoint is kept; or the processes differ in their options,
            identities or folders, or one of them ended.
    """
    same = processes.describe(options)
    processes.wait_for_all()  # process 0 may still report what was trained before
    processes.check_same({**same, **identity})
    processes.check_shared(folder)
    params, carry = processes.broadcast((params, carry))
    state = init_state(params, carry, options, seeds)
    try:
        return _Run(task, options, folder, identity, console, seeds).train(state)
    except Exception as error:
        if not isinstance(error, UserError):
            processes.explain(error)
        raise


class _Run:
    """The part of a run from its start, or a checkpoint, to its end, or a stop."""

    def __init__(
        self,
        task: Task,
        options: Options,
        folder: Path,
        identity: Any,
        console: Console,
        seeds: Sequence[int] | None,
    ):
        self.task, self.options, self.folder, self.seeds = task, options, folder, seeds
        self.mesh: Mesh | None = None
        self.layout: sharding.Layout | None = None
        self.identity, self.console = identity, console
        self.log = Log(folder / "metrics.jsonl", writes=processes.is_first())
        self.checkpoints = Checkpoints(folder / "checkpoints", options.keep, fresh=options.fresh)
        self.best: dict[str, float] = {"step": 0, task.monitor: math.inf}
        self.best_params: PyTree = None
        self.seconds_before = 0.0  # in the parts before this one
        self.began: float | None = None

    def train(self, state: State) -> Outcome:
        if decay := self.options.average:
            self._print(f"validates and keeps the EMA of the parameters, decay {decay:g}")
        step, state = self._resume(state)
        compile_seconds, seconds, received = 0.0, self.seconds_before, None
        if step < self.options.steps and not self._is_stale(step):
            began = time.perf_counter()
            train_step, state = self._compile(state)
            metrics = self._validate(state)
            self.began = time.perf_counter()
            compile_seconds = self.began - began
            devices = 1 if self.mesh is None else self.mesh.size
            self._print(f"compiled in {compile_seconds:.1f} s; devices: {devices}")
            if step == 0:
                self._record_validation(step, state, metrics)
            try:
                step, state, received = self._loop(train_step, step, state)
                seconds = self._seconds()
            finally:
                if processes.is_first():
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

    def _compile(self, state: State) -> tuple[Callable, State]:
        task, options = self.task, self.options
        axes, batch = (task.batch_axes, task.carry_axes), task.batch(0)
        rows = sharding.count_rows(axes, (batch, state.carry))
        self.mesh = mesh = sharding.make_mesh(options.devices, rows, self._print)
        if mesh is not None:
            self.layout = layout = sharding.make_layout(mesh, state, *axes, options.shard)
            state = sharding.place(state, layout.state)
            batch = self._batch(0)
        jitted = jit_step(task.loss, options, self.layout, self.seeds)
        return jitted.lower(state, batch, np.int32(0)).compile(), state

    def _batch(self, step: int) -> PyTree:
        """The batch of a step, of which each of several processes reads its own rows."""
        task, layout = self.task, self.layout
        if layout is None or jax.process_count() == 1:
            return task.batch(step)
        if task.own_batch is None:
            own = sharding.own_rows(task.batch(step), task.batch_axes)
        else:
            own = task.own_batch(step, jax.process_index(), jax.process_count())
        return sharding.place_rows(own, layout.batch, task.batch_axes)

    def _validate(self, state: State) -> dict[str, float]:
        """The metrics of one device; of several processes, those of process 0."""
        params, device = state.eval_params, jax.local_devices()[0]
        if self.layout is not None:
            params = jax.device_put(processes.to_host(params), device)
        metrics = {name: float(value) for name, value in self.task.validate(params).items()}
        return processes.from_first(lambda: metrics)

    def _loop(
        self, train_step: Callable, step: int, state: State
    ) -> tuple[int, State, signal.Signals | None]:
        task, options = self.task, self.options
        window, window_began, stop, vote = [], time.perf_counter(), 0, processes.Vote(self.mesh)
        bar = ProgressBar(task.name, task.unit, options.steps, self.console)
        with stop_signals() as received, bar:
            bar.advance_to(step)
            while step < options.steps and not stop:
                state, result = train_step(state, self._batch(step), np.int32(step))
                step += 1
                window.append(result)
                last = step == options.steps
                minutes = math.inf if options.minutes is None else options.minutes
                time_is_up = self._seconds() >= 60 * minutes
                stop = vote(received[0] if received else _TIME_IS_UP if time_is_up else 0)
                validates = last or step % options.validate_every == 0
                saves = last or stop or step % options.checkpoint_every == 0
                # What is saved has been logged, so a resumed run writes the same lines.
                logs = saves or step % options.log_every == 0
                if validates or logs:
                    losses, norms = self._read_finite(step, window)
                if validates:
                    self._record_validation(step, state, self._validate(state))
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
            for _ in range(2):  # a signal after the last vote; an answer may come one call later
                stop = max(stop, vote(received[0] if received else 0))
        return step, state, signal.Signals(stop) if stop > _TIME_IS_UP else None

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
            self.best_params = processes.to_host(state.eval_params)
            self._write_best()

    def _write_best(self) -> None:
        if not processes.is_first():
            return
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
