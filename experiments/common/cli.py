"""The command line: options, errors without a traceback, the progress bar, and signals."""

import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class UserError(Exception):
    """An error that the user can fix; `command` prints its message without a traceback."""


def parse(
    config: type,
    arguments: Sequence[str],
    description: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> Any:
    """Parses command-line arguments into a configuration.

    Args:
        config: the class of the configuration, a dataclass.
        arguments: the arguments. The first may name a preset.
        description: a module docstring. `--help` prints its first paragraph and its indented lines,
            the commands.
        presets: configurations that replace the defaults, by name.
    """
    settings: dict[str, Any] = {}
    if presets and arguments and arguments[0] in presets:
        settings["default"], arguments = presets[arguments[0]], arguments[1:]
    if description:
        paragraphs = inspect.cleandoc(description).split("\n\n")
        commands = [text for text in paragraphs[1:] if text.startswith("    python -m")]
        settings["description"] = "\n\n".join([paragraphs[0], *commands])
    return tyro.cli(config, args=arguments, config=(tyro.conf.OmitArgPrefixes,), **settings)


def command(
    main: Callable[[Any], Any],
    config: type,
    description: str | None,
    presets: Mapping[str, Any] | None = None,
) -> None:
    """Runs `main` on the configuration that `parse` returns.

    The process exits with status 1 after a `UserError`, and with 128 plus the signal's number
    after a signal stopped the run, as a shell does.
    """
    try:
        result = main(parse(config, sys.argv[1:], description, presets))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if result.outcome.signal is not None:
        sys.exit(128 + result.outcome.signal)


class ProgressBar(Progress):
    """A progress bar with the loss, the rate and the time left."""

    def __init__(self, name: str, unit: str, step: int, steps: int, console: Console):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} " + unit + "/s"),
            TimeRemainingColumn(),
        )
        # Few refreshes: the drawing thread takes its time from the training.
        super().__init__(*columns, console=console, refresh_per_second=2)
        self._bar = self.add_task(name, completed=step, total=steps, loss="-", rate="-")

    def advance_to(self, step: int, loss: float, rate: float) -> None:
        """Shows the progress at a step."""
        self.update(self._bar, completed=step, loss=f"{loss:.3f}", rate=f"{rate:,.0f}")


@contextlib.contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Yields a list that gets the first Ctrl-C or SIGTERM; a second one acts as usual."""
    received, handlers = [], {}

    def restore():
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def handle(number, frame):
        received.append(signal.Signals(number))
        restore()

    # Python handles signals only in the main thread.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        restore()
