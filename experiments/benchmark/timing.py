"""How things are timed: compiled ahead, warmed up, interleaved, medians, paired ratios."""

import contextlib
import gc
import importlib.metadata
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SETTLE = 0.02
"""Seconds of rest before each turn: the OpenMP threads of the library that ran before spin on for
some milliseconds, on cores that the next one needs."""
TURN = 0.02
"""A turn repeats a call until it has taken about so many seconds, so that short calls are timed as
a training loop sees them, with warm caches and threads awake."""
LONG = 0.25
"""A call as long as this is not repeated before it is timed."""
FEWEST = 5
"""Rounds that are done even when time is up."""


class Program(NamedTuple):
    """Something ready to be timed."""

    run: Callable[[], Any]
    """Does the work once, and returns when it is done."""
    values: Callable[[], list[np.ndarray]]
    """Does the work once, and returns the results."""
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    """Memory beside arguments and results."""
    total_bytes: int | None = None
    """Memory with arguments and results."""


def compile_program(
    function: Callable[..., Any], arguments: Sequence[Any], *, exact: bool, compiles: int = 1
) -> Program:
    """Compiles a function of arrays ahead of time.

    Args:
        function: what to time; whatever it closes over becomes a constant.
        arguments: its arguments, arrays.
        exact: whether float32 products must be exact on a GPU, where JAX would by default take the
            faster and coarser TensorFloat-32.
        compiles: how many times to trace and compile; the median time is kept.
    """
    times = []
    for _ in range(compiles):
        compiled, seconds = _compile(function, arguments, exact and jax.default_backend() == "gpu")
        times.append(seconds)
    memory = compiled.memory_analysis()
    temporary = total = None
    if memory is not None:
        temporary = memory.temp_size_in_bytes
        total = temporary + memory.argument_size_in_bytes + memory.output_size_in_bytes

    def run():
        return jax.block_until_ready(compiled(*arguments))

    def values():
        leaves: list[Any] = [np.asarray(leaf) for leaf in jax.tree.leaves(run())]
        parts = [np.stack([x.real, x.imag]) if np.iscomplexobj(x) else x for x in leaves]
        return [np.asarray(part, np.float32) for part in parts]

    return Program(run, values, statistics.median(times), temporary, total)


def _compile(function, arguments, highest: bool):
    precision = jax.default_matmul_precision("highest") if highest else contextlib.nullcontext()
    # Traces left by the contender before would otherwise make this one look quicker to compile.
    jax.clear_caches()
    begin = time.perf_counter()
    with precision:
        compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - begin


def matrix_product(size: int, dtype: str, *, exact: bool) -> Program:
    """The product of two square matrices, `2 * size**3` operations: what the machine can do."""
    a, b = (
        jnp.asarray(np.random.default_rng(n).standard_normal((size, size), np.float32), dtype)
        for n in (0, 1)
    )
    return compile_program(jnp.matmul, (a, b), exact=exact)


def interleave(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    seconds: float,
    note: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Times several things turn by turn, so that whatever disturbs the machine disturbs them all.

    Each round gives every contender one turn, in an order drawn anew.

    Args:
        runs: what to time, by name; each call returns when its work is done.
        rounds: how many rounds to do.
        seconds: no round is begun after so many seconds, once `FEWEST` are done.
        note: told the number of rounds done after each.

    Returns:
        Seconds a call, a number a round, by name: numbers at the same place were measured in the
        same round.
    """
    shuffler = random.Random(0)
    names = list(runs)
    once = {}
    for name in names:
        runs[name]()  # the first call touches memory and wakes threads
        begin = time.perf_counter()
        runs[name]()
        once[name] = time.perf_counter() - begin
    repeats = {name: max(1, math.ceil(TURN / once[name])) for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= FEWEST and time.perf_counter() - begin > seconds:
            break
        shuffler.shuffle(names)
        for name in names:
            samples[name].append(_turn(runs[name], repeats[name], warm=once[name] < LONG))
        note(done + 1)
    return samples


def _turn(run: Callable[[], Any], repeats: int, *, warm: bool) -> float:
    time.sleep(SETTLE)
    if warm:
        run()
    collecting = gc.isenabled()
    gc.disable()
    try:
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - begin) / repeats
    finally:
        if collecting:
            gc.enable()


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """The median of the ratios of times that were measured in the same rounds."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean under which twice as fast here and half as fast there cancel out."""
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What the times depend on besides the code: device, threads, versions, flags, command."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    flags = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(("XLA_", "JAX_", "OMP_", "MKL_", "KMP_", "ONEDNN_"))
    }
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "processor": _processor(),
        "threads": cores(),
        "versions": versions,
        "flags": flags,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
