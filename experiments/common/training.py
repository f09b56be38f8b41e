"""The training loop that the experiments share.

An experiment gives a loss, a batch for every step, and a validation; the loop does the rest: one
jitted step with donated state, a progress bar, metrics, curves, checkpoints, and a clean end on
Ctrl-C, on SIGTERM, and on a loss that is not finite.

A resumed run equals an uninterrupted one bit for bit (same machine, same number of threads),
because all that a step depends on is in the checkpoint or follows from the step's number: its
batch is `batch(step)`, its randomness `fold_in(key(seed), step)`.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.common import checkpoint as _checkpoint
from experiments.common.cli import ProgressBar, StopSignals
from experiments.common.errors import DivergedError, OtherRunError
from experiments.common.metrics import Log, draw_curves
from experiments.common.options import Options
from experiments.common.sharding import layout
from experiments.common.step import Loss, State, Trainer, make_trainer

PyTree = Any


@dataclass(frozen=True)
class Task:
    """What an experiment trains.

    Args:
        name: what the progress bar and the curves call it.
        loss: `(params, carry, batch, key) -> (loss, carry)`. What `carry` holds goes from one batch
            to the next, as the recurrent state does in truncated back-propagation; no gradient
            flows through it. Use `()` if nothing does.
        batch: the batch of a step, as NumPy arrays: a pure function of the step's number.
        validate: `params -> values`, with a `"loss"` among them.
        units: how many units of work one batch holds.
        unit: what they are called, for the rate.
        loss_unit: what the loss counts, for the curves.
        rows: the axis of a batch's leaves that devices can share, or a tree of such axes.
        carry_rows: the same for what is carried.
        choose_by: which value of the validation the best parameters have the least of.
    """

    name: str
    loss: Loss
    batch: Callable[[int], PyTree]
    validate: Callable[[PyTree], Mapping[str, float]]
    units: int
    unit: str
    loss_unit: str
    rows: PyTree = 1
    carry_rows: PyTree = 0
    choose_by: str = "loss"


class Outcome(NamedTuple):
    """How a run ended.

    Fields:
        params: the best parameters by validation, or the best average of them.
        best: their validation, and its `step`.
        step: the number of steps done.
        seconds: of training with its validations and checkpoints, over all resumed parts.
        compile_seconds: of compilation and a first validation, in this part only.
        signal: the signal that stopped it, if one did.
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
) -> Outcome:
    """Trains, or goes on training from the folder's newest sound checkpoint.

    Args:
        task: what to train.
        params: the first parameters.
        carry: what the first batch finds.
        options: how to train.
        folder: where checkpoints, metrics and curves are kept.
        identity: all that decides what the run computes, as JSON values.
        console: where to report.

    Raises:
        DivergedError: the loss or its gradient is not finite; the last good checkpoint stays.
        OtherRunError: the folder holds a run with another identity.
    """
    trainer = make_trainer(task.loss, options)
    return Run(task, trainer, options, folder, identity, console).train(params, carry)


class Run:
    """One process's part of a run: `fit` with another way to make a step."""

    def __init__(
        self,
        task: Task,
        trainer: Trainer,
        options: Options,
        folder: Path,
        identity: Mapping[str, Any],
        console: Console,
    ):
        self.task, self.trainer, self.options = task, trainer, options
        self.folder, self.identity, self.console = folder, identity, console
        self.log = Log(folder / "metrics.jsonl")
        self.checkpoints = _checkpoint.Folder(folder, options.keep)
        self.best: dict[str, float] = {"step": 0, task.choose_by: math.inf}
        self.best_path = folder / "best.safetensors"
        self.seconds_before = 0.0  # those of the parts before this one
        self.began: float | None = None

    def train(self, params: PyTree, carry: PyTree) -> Outcome:
        """Trains, as `fit` does."""
        if decay := self.options.average:
            self._say(f"validates and keeps the parameters' average, decay {decay:g} a step")
        step, state = self._resume(self.trainer.init(params, carry))
        # Copies: the step donates its state, and must neither eat the caller's arrays nor be given
        # one buffer twice.
        state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
        compile_seconds, seconds, received = 0.0, self.seconds_before, None
        if step < self.options.steps and not self._is_stale(step):
            began = time.perf_counter()
            train_step, state = self._compile(state)
            first = self.task.validate(state.judged)
            self.began = time.perf_counter()
            compile_seconds = self.began - began
            self._say(f"compiled in {compile_seconds:.1f} s")
            if step == 0:
                self._record_validation(step, state.judged, first)
            try:
                step, state, received = self._loop(train_step, step, state)
            finally:
                seconds = self._seconds()
                draw_curves(
                    self.folder / "curves.png", self.log.read(), self.task.name, self.task.loss_unit
                )
        best = self._load_best()
        params = best.restore({"params": state.judged})["params"] if best else state.judged
        return Outcome(params, self.best, step, seconds, compile_seconds, received)

    # Starting -------------------------------------------------------------------------------------

    def _resume(self, state: State) -> tuple[int, State]:
        """The step and the state to go on from."""
        if self.options.fresh:
            self.checkpoints.clear()
            self.best_path.unlink(missing_ok=True)
        found = self.checkpoints.load(report=self._say)
        if found is None:
            self.log.rewind(-1)
            return 0, state
        self._check_identity(found.header["identity"])
        self.log.rewind(found.step)
        self.seconds_before = found.header["seconds"]
        if best := self._load_best():
            self.best = best.header["validation"]
        self._say(f"goes on from step {found.step}, {found.path}")
        return found.step, found.restore(state)

    def _check_identity(self, before: Mapping[str, Any]) -> None:
        for name in sorted(before.keys() | self.identity.keys()):
            then, now = before.get(name), self.identity.get(name)
            if then != now:
                raise OtherRunError(
                    f"out: {self.folder} holds a run with {name}={then!r}, and this one has "
                    f"{now!r}; name another folder with --out, or begin anew with --fresh"
                )

    def _compile(self, state: State) -> tuple[Callable, State]:
        """The compiled step, and the state where that wants it."""
        batch, where = self.task.batch(0), {}
        if self.options.devices != 1:
            task = self.task
            places = layout(self.options.devices, state, batch, task.rows, task.carry_rows)
            state = jax.device_put(state, places[0])
            where = {"in_shardings": places, "out_shardings": (places[0], places[2])}
        jitted = jax.jit(self.trainer.step, donate_argnums=0, **where)
        return jitted.lower(state, batch, np.int32(0)).compile(), state

    # Going on -------------------------------------------------------------------------------------

    def _loop(
        self, train_step: Callable, step: int, state: State
    ) -> tuple[int, State, signal.Signals | None]:
        task, options = self.task, self.options
        window, window_began, stop = [], time.perf_counter(), False
        bar = ProgressBar(task.name, task.unit, step, options.steps, self.console)
        with StopSignals() as signals, bar:
            while step < options.steps and not stop:
                state, result = train_step(state, task.batch(step), np.int32(step))
                step += 1
                window.append(result)
                stop = signals.received is not None or self._out_of_time()
                if validates := step == options.steps or step % options.validate_every == 0:
                    losses, norms = self._read_finite(step, window)
                    self._record_validation(step, state.judged, task.validate(state.judged))
                    if self._is_stale(step) and step < options.steps:
                        stop = True
                        self._say(f"stops early: nothing better since step {self.best['step']}")
                saves = stop or step == options.steps or step % options.checkpoint_every == 0
                # What is saved has been logged: so a resumed run logs what it would have anyway.
                if logs := saves or step % options.log_every == 0:
                    if not validates:
                        losses, norms = self._read_finite(step, window)
                    rate = len(window) * task.units / (time.perf_counter() - window_began)
                    bar.update(step, losses.mean(), rate)
                    self._record_training(step, losses, norms, rate)
                if saves:
                    self._save(step, state)
                if logs:
                    window, window_began = [], time.perf_counter()
        return step, state, signals.received

    def _read_finite(self, step: int, window: list) -> tuple[np.ndarray, np.ndarray]:
        """The losses and gradient norms of the steps before `step`, if all are finite.

        A finite gradient leaves finite parameters, so what is saved after this is sound.
        """
        results = np.asarray(window, np.float64)
        losses, norms = results.reshape(len(window), 2, -1).swapaxes(0, 1)  # [steps, seeds]
        bad = np.argwhere(~(np.isfinite(losses) & np.isfinite(norms)))
        if bad.size:
            first, options = tuple(bad[0]), self.options
            raise DivergedError(
                f"step {step - len(window) + first[0]}: the loss is {losses[first]:.4g}, its "
                f"gradient's norm {norms[first]:.4g}. Lower --learning-rate (now "
                f"{options.learning_rate:g}) or --clip (now {options.clip:g}), or lengthen "
                f"--warmup (now {options.warmup}). The last good checkpoint is kept: "
                f"{self.checkpoints.newest() or 'none was due yet'}"
            )
        return losses, norms

    def _out_of_time(self) -> bool:
        return self.options.minutes is not None and self._seconds() >= 60 * self.options.minutes

    def _is_stale(self, step: int) -> bool:
        """Whether the last validations brought nothing better: known from the best one's step."""
        patience = self.options.patience * self.options.validate_every
        return patience > 0 and step - self.best["step"] >= patience

    # Recording ------------------------------------------------------------------------------------

    def _record_training(
        self, step: int, losses: np.ndarray, norms: np.ndarray, rate: float
    ) -> None:
        values = {"loss": losses.mean(), "gradient_norm": norms.mean()}
        values |= {f"{self.task.unit}_per_second": rate, "seconds": self._seconds()}
        self.log.append(step, values)

    def _record_validation(self, step: int, params: PyTree, values: Mapping[str, float]) -> None:
        if not math.isfinite(values["loss"]):
            raise DivergedError(f"the validation loss is {values['loss']} at step {step}")
        named = {f"validation_{name}": value for name, value in values.items()}
        self.log.append(step, named | {"seconds": self._seconds()})
        shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._say(f"step {step:6d}  {self._seconds():6.1f} s  validation: {shown}")
        if values[self.task.choose_by] < self.best[self.task.choose_by]:
            self.best = {**values, "step": step}
            header = {"identity": self.identity, "validation": self.best}
            _checkpoint.write(self.best_path, {"params": params}, step=step, header=header)

    def _save(self, step: int, state: State) -> None:
        header = {"identity": self.identity, "seconds": self._seconds()}
        self.checkpoints.save(state, step=step, header=header)

    def _load_best(self) -> _checkpoint.Loaded | None:
        return _checkpoint.read_or_set_aside(self.best_path, report=self._say)

    def _seconds(self) -> float:
        now = 0.0 if self.began is None else time.perf_counter() - self.began
        return self.seconds_before + now

    def _say(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)
