"""Commands in several processes, all of which end with the test."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
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
        environments: `environments[i]` are variables of process i in a cluster that JAX detects,
            and take the place of a coordinator.
    """

    def __init__(
        self,
        folder,
        module,
        arguments,
        *,
        count=2,
        devices=2,
        own=(),
        faults=(),
        pace=0,
        environments=(),
    ):
        self.faults = faults
        self.outputs = [folder / f"process-{number}.txt" for number in range(count)]
        options = {**arguments, "devices": devices}
        if environments:
            options |= {"distributed": None}
        elif count > 1:
            options |= {"coordinator": f"127.0.0.1:{free_port()}", "processes": count}
        self.all = []
        for number, output in enumerate(self.outputs):
            more = dict(own[number]) if own else {}
            if "coordinator" in options:
                more |= {"process": number}
            variables = {"PACE": str(pace), "JAX_PLATFORMS": "cpu"}
            if faults and faults[number]:
                variables |= {"FAULT": faults[number]}
            if environments:
                variables |= environments[number]
            with output.open("w") as file:
                self.all.append(
                    subprocess.Popen(
                        command(module, options | more),
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # a group of its own, see `end`
                        env=os.environ | variables,
                    )
                )

    def wait(self, timeout=300):
        """The exit statuses of all processes."""
        return [process.wait(timeout) for process in self.all]

    def wait_for(self, condition, timeout=60):
        """Waits until a condition holds, while all processes run."""
        end = time.monotonic() + timeout
        while not condition():
            running = all(process.poll() is None for process in self.all)
            assert running and time.monotonic() < end, self.text(0)
            time.sleep(0.01)

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
    """The command line of options by name; None is a flag."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return [sys.executable, "-W", "error", "-m", module] + [
        f"--{name}" if value is None else f"--{name}={value}" for name, value in named.items()
    ]


def free_port(least: int = 0) -> int:
    """A port that is free now, the first one from `least` if that is given."""
    for port in range(least, 2**16):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return listener.getsockname()[1]
    raise OSError(f"no port is free from {least}")
