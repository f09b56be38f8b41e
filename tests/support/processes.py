"""Commands in several processes, all of which end with the test."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


class Processes:
    """Processes `python -m module arguments --process I`, and what they print.

    Args:
        folder: where each process writes what it prints.
        module: the module.
        arguments: options by name.
        count: the number of processes; 1 is a command without a coordinator.
        devices: devices of each process.
        own: `own[i]` are further options of process i.
        faults: `faults[i]` is what goes wrong in process i, see `tests.support.worker`.
        pace: seconds that its batches take.
    """

    def __init__(self, folder, module, arguments, *, count=2, devices=2, own=(), faults=(), pace=0):
        self.faults = faults
        self.outputs = [folder / f"process-{number}.txt" for number in range(count)]
        options = {**arguments, "devices": devices}
        if count > 1:
            options |= {"coordinator": f"127.0.0.1:{free_port()}", "processes": count}
        self.all = []
        for number, output in enumerate(self.outputs):
            more = ({"process": number} if count > 1 else {}) | dict(own[number] if own else {})
            fault = {"FAULT": faults[number]} if faults and faults[number] else {}
            fault |= {"PACE": str(pace)}
            with output.open("w") as file:
                self.all.append(
                    subprocess.Popen(
                        command(module, options | more),
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # a group of its own, see `end`
                        env=os.environ | fault | {"JAX_PLATFORMS": "cpu"},
                    )
                )

    def wait(self, timeout=120):
        """The exit statuses of all processes."""
        return [process.wait(timeout) for process in self.all]

    def text(self, number):
        """What a process has printed."""
        return self.outputs[number].read_text()

    def end(self):
        """Kills what is left of the processes and of their children."""
        for process in self.all:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def running(*args, **kwargs) -> Iterator[Processes]:
    """`Processes` that end with the block, whatever happens in it."""
    processes = Processes(*args, **kwargs)
    try:
        yield processes
    finally:
        processes.end()


def finish(folder: Path, module: str, arguments: dict, **kwargs) -> str:
    """Runs processes to their end; returns what the first has printed."""
    with running(folder, module, arguments, **kwargs) as processes:
        statuses = processes.wait()
        assert not any(statuses), "\n".join(map(processes.text, range(len(statuses))))
        return processes.text(0)


def command(module: str, options: dict) -> list[str]:
    """The command line of options by name."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return [sys.executable, "-W", "error", "-m", module] + [
        f"--{name}={value}" for name, value in named.items()
    ]


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
