"""The command line: options, errors without a traceback, the progress bar, and signals."""

import contextlib
import ctypes
import inspect
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from experiments.common import processes
from experiments.common.errors import UserError


def parse(
    config: type,
    arguments: Sequence[str],
    description: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> Any:
    """Parses command-line arguments into a configuration.

    The first argument may name a preset, a configuration that replaces the defaults. `--help`
    prints the first paragraph and the commands of the description, a module docstring.
    """
    settings: dict[str, Any] = {}
    if presets and arguments and arguments[0] in presets:
        settings["default"], arguments = presets[arguments[0]], arguments[1:]
    if description:
        first, *rest = inspect.cleandoc(description).split("\n\n")
        commands = [paragraph for paragraph in rest if paragraph.startswith("    python -m")]
        settings["description"] = "\n\n".join([first, *commands])
    return tyro.cli(config, args=arguments, config=(tyro.conf.OmitArgPrefixes,), **settings)


def command(
    main: Callable[[Any], Any],
    config: type,
    description: str | None,
    presets: Mapping[str, Any] | None = None,
) -> None:
    """Runs `main` on the configuration of the command line, and exits as a shell command does.

    If the configuration has a field `training`, its devices and processes are started first, and
    memory that is freed is kept for the next step.

    The status is 1 after a `UserError`, and 128 plus the number of a signal that stopped the run.
    """
    try:
        parsed = parse(config, sys.argv[1:], description, presets)
        if hasattr(parsed, "training"):
            keep_freed_memory()
            processes.start(parsed.training)
            processes.check_same(processes.describe(parsed))
        result = main(parsed)
        processes.wait_for_all()  # the others for the report of process 0
    except UserError as error:
        sys.exit(f"error: {error}")
    if result.outcome.signal is not None:
        sys.exit(128 + result.outcome.signal)


def shell_command() -> str:
    """The command that started this process, for the records of what it measures."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def keep_freed_memory() -> None:
    """Makes the C library of Linux, glibc, keep what a step frees for the next step.

    Otherwise it returns large blocks to the system, which maps and zeroes each page again.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)  # no block has a mapping of its own
        library.mallopt(_M_ARENA_MAX, 1)  # those of threads return what is over 64 MiB
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of malloc.h


class ProgressBar(Progress):
    """A progress bar with the loss, the rate and the time left."""

    def __init__(self, name: str, unit: str, steps: int, console: Console):
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
        columns += ("loss {task.fields[loss]}", "{task.fields[rate]} " + unit + "/s")
        # Few refreshes, because the drawing thread takes its time from the training.
        super().__init__(*columns, TimeRemainingColumn(), console=console, refresh_per_second=2)
        self._bar = self.add_task(name, total=steps, loss="-", rate="-")

    def advance_to(self, step: int, loss: str = "-", rate: str = "-") -> None:
        """Shows the progress at a step."""
        self.update(self._bar, completed=step, loss=loss, rate=rate)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Yields a list that receives the first Ctrl-C or SIGTERM; a second one acts as usual."""
    received, handlers = [], {}

    def restore():
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def handle(number, frame):
        received.append(signal.Signals(number))
        restore()

    if threading.current_thread() is threading.main_thread():  # Python refuses in others
        handlers |= {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        restore()
