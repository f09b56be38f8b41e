"""A run and its terminal: the command line, the progress bar, and the signals that end a run."""

import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from experiments.common.errors import UserError


def parse(
    config: type,
    arguments: Sequence[str],
    description: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> Any:
    """Reads a configuration from the arguments of a command.

    The first may name a preset: a configuration in place of the defaults, of which the others
    change what they name.
    """
    settings: dict[str, Any] = {"config": (tyro.conf.OmitArgPrefixes,), "description": description}
    if presets and arguments and arguments[0] in presets:
        settings["default"], arguments = presets[arguments[0]], arguments[1:]
    return tyro.cli(config, args=arguments, **settings)


def command(
    main: Callable[[Any], Any],
    config: type,
    description: str | None,
    presets: Mapping[str, Any] | None = None,
) -> None:
    """Runs `main` on a configuration from the command line, which `parse` reads.

    A `UserError` is printed without a traceback and ends the process with 1; a run that a signal
    stopped ends it with 128 and the signal's number, as a shell would say it.
    """
    try:
        result = main(parse(config, sys.argv[1:], description, presets))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if result.outcome.signal is not None:
        sys.exit(128 + result.outcome.signal)


class ProgressBar:
    """Steps, loss, rate and time left; lines printed meanwhile appear above it."""

    def __init__(self, name: str, unit: str, step: int, steps: int, console: Console):
        # Two refreshes a second: the thread that draws takes its time from the training.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} " + unit + "/s"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,
        )
        self._task = self._progress.add_task(name, completed=step, total=steps, loss="-", rate="-")

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, step: int, loss: float, rate: float) -> None:
        """Moves the bar to a step."""
        self._progress.update(self._task, completed=step, loss=f"{loss:.3f}", rate=f"{rate:,.0f}")


class StopSignals:
    """Within it, the first Ctrl-C or SIGTERM is noted, and the second acts as usual."""

    def __init__(self):
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        # Python lets only the main thread handle signals; elsewhere they act as usual.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__()
