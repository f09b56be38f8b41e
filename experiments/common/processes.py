"""Several processes that train one model: how they start, agree and wait for each other.

`jax.distributed` connects the processes and its collectives carry what they exchange; a scheduler
such as SLURM starts them. Process 0 alone prints, logs, plots and reports.
"""

import dataclasses
import itertools
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from experiments.common.errors import UserError

DAY = 24 * 60 * 60
RESUME = (
    "Start all of them again, or fewer, by the same command: the run resumes from its last "
    "checkpoint."
)


def start(options: Any) -> None:
    """Makes a CPU's cores JAX devices and connects the processes, before JAX's first computation.

    Args:
        options: the training options, see `experiments.common.options.Options`.

    Raises:
        UserError: the options do not say how to connect; no cluster was detected; or the
            coordinator cannot be reached in `options.wait` seconds.
    """
    settings: Any = jax.config
    if options.devices != 1 and settings.jax_num_cpu_devices < 0:
        jax.config.update("jax_num_cpu_devices", options.devices or cores())
    address, count, own = options.coordinator, options.processes, options.process
    if not options.distributed and (address, count, own) == (None, None, None):
        return
    if not options.distributed:
        if None in (address, count, own):
            raise UserError(
                "coordinator: --coordinator HOST:PORT, --processes N and --process I go together, "
                f"got {address}, {count} and {own}; or pass --distributed in a cluster"
            )
        if not 0 <= own < count:
            raise UserError(f"process must be from 0 to {count - 1}, got {own}")
        print(f"process {own} waits for {count} at {address}, up to {options.wait} s", flush=True)
        if own > 0:
            _wait_for(address, options.wait)
    # The loop handles SIGTERM itself, and all processes stop at the same step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            address,
            count,
            own,
            cluster_detection_method=None if options.distributed else "deactivate",
            initialization_timeout=options.wait,
            heartbeat_timeout_seconds=options.heartbeat,
            shutdown_timeout_seconds=options.heartbeat,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"distributed: the processes could not be connected: {error}. In a cluster that JAX "
            "detects pass --distributed; elsewhere --coordinator HOST:PORT --processes N "
            "--process I, with the same address and N in all"
        ) from error
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise UserError(
            f"devices: this process has {jax.local_device_count()} and all have "
            f"{jax.device_count()}; pass a --devices that each of them has"
        )
    print(
        f"process {jax.process_index()} of {jax.process_count()} has {jax.local_device_count()} "
        f"devices. If a process ends early, JAX ends the others within {options.heartbeat} "
        f"seconds, and names it (its task; the leader is process 0). {RESUME}",
        flush=True,
    )


def is_first() -> bool:
    """Whether this is the process that prints, logs and reports."""
    return jax.process_index() == 0


def make_console() -> Console:
    """The console of an experiment, which shows what process 0 prints."""
    return Console(soft_wrap=True, highlight=False, markup=False, quiet=not is_first())


def gather(value: Any) -> list[Any]:
    """The JSON values that all processes pass, in their order."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.process_allgather(np.int32(len(text))).max())
    padded = np.pad(text, (0, length - len(text)), constant_values=ord(" "))
    return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]


def from_first(compute: Callable[[], Any]) -> Any:
    """The JSON value that process 0 computes."""
    return gather(compute() if is_first() else None)[0]


def broadcast(tree: Any) -> Any:
    """The arrays of process 0, for all: another machine may round an initialization differently."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def explain(error: Exception) -> None:
    """Adds what to do to an error, which in one of several processes may come from another."""
    if jax.process_count() > 1:
        error.add_note(
            f"process {jax.process_index()} of {jax.process_count()} ends. If the error comes from "
            f"an operation over all processes, one of them has ended: JAX will name it. {RESUME}"
        )


def check_same(values: Mapping[str, Any]) -> None:
    """Raises `UserError` with the difference unless all processes pass the same JSON values."""
    first, *others = gather(dict(values))
    for number, other in enumerate(others, 1):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise UserError(
                    f"{name}: process 0 has {first.get(name)!r} and process {number} has "
                    f"{other.get(name)!r}; start all processes with the same options and data"
                )


def describe(config: Any) -> dict[str, Any]:
    """The options that all processes have to share, as JSON values: all but paths and addresses."""
    fields = dataclasses.asdict(config)
    fields |= fields.pop("training", {})
    own = ("process", "coordinator")
    kept = {k: v for k, v in fields.items() if k not in own and not isinstance(v, Path)}
    return json.loads(json.dumps(kept, default=str))


def check_shared(folder: Path) -> None:
    """Raises `UserError` unless all processes see the same folder."""
    if jax.process_count() == 1:
        return

    def leave_mark() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / f".shared-{secrets.token_hex(8)}"
        mark.touch()
        return mark.name

    mark = folder / from_first(leave_mark)
    seen = gather(mark.exists())
    if is_first():
        mark.unlink()
    if not all(seen):
        raise UserError(
            f"out: process {seen.index(False)} does not see {folder} of process 0; name a folder "
            "that all processes share with --out"
        )


_waits = itertools.count()


def wait_for_all() -> None:
    """Waits, a day at most, until all processes have called this as often."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost  # slow to import

        multihost.sync_global_processes(f"experiments {next(_waits)}", timeout=DAY)


def to_host(tree: Any) -> Any:
    """Copies a pytree to NumPy, whichever processes hold its parts."""

    def copy(leaf):
        whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        if not whole and not leaf.is_fully_replicated:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.array(leaf)

    return jax.tree.map(copy, tree)


class Vote:
    """The largest number that any process passes, known one call later in several processes.

    So no device waits for the answer: a process calls this once a step, and the answer to the last
    step's call has come while it computed.
    """

    def __init__(self, mesh: Mesh | None):
        self._mesh, self._pending = mesh, None
        if mesh is not None:
            self._numbers = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
            self._max = jax.jit(jax.numpy.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, number: int) -> int:
        """Passes a number; returns the largest of this call, or of the last one."""
        if self._mesh is None or jax.process_count() == 1:
            return number
        local = np.full(self._mesh.local_mesh.size, number, np.int32)
        numbers = jax.make_array_from_process_local_data(self._numbers, local)
        pending, self._pending = self._pending, self._max(numbers)
        return 0 if pending is None else int(pending)


def cores() -> int:
    """The number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _wait_for(address: str, seconds: int) -> None:
    """Waits for the coordinator: when JAX itself waits in vain, it aborts the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"coordinator must be HOST:PORT, got {address!r}")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                raise UserError(
                    f"coordinator: no answer from {address} in {seconds} seconds ({error}); start "
                    "process 0 there, or pass its address, or wait longer by --wait"
                ) from error
            time.sleep(0.2)
