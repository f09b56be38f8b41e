"""Timing: ahead-of-time compilation, warm-up, interleaved rounds, medians, paired ratios."""

import contextlib
import math
import random
import statistics
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SETTLE = 0.02
"""Seconds of rest before each turn. The OpenMP threads of the library that ran before keep spinning
for some milliseconds, on cores that the next one needs."""
TURN = 0.02
"""A turn repeats a call for about this many seconds, so that short calls are timed as in a training
loop, with warm caches and active threads."""
LONG = 0.25
"""Calls that take at least this many seconds are not warmed up before they are timed."""
FEWEST = 5
"""Rounds that are completed even after the time limit."""


class Program(NamedTuple):
    """A computation that is ready for timing."""

    run: Callable[[], Any]  # runs once, and returns when it is done
    values: Callable[[], list[np.ndarray]]  # runs once, and returns the results
    compile_seconds: float | None = None
    temporary_bytes: int | None = None  # in addition to arguments and results
    total_bytes: int | None = None  # including arguments and results


def compile_program(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    exact: bool,
    compiles: int = 1,
    shardings: Any = None,
) -> Program:
    """Compiles a function of arrays ahead of time.

    Args:
        function: what to time; everything that it closes over becomes a constant.
        arguments: its arguments, arrays.
        exact: whether to use full float32 precision for products on a GPU, where JAX uses the
            faster and less precise TensorFloat-32 by default.
        compiles: how many times to trace and compile; the median time is kept.
        shardings: how the results are sharded over devices.
    """
    highest = exact and jax.default_backend() == "gpu"
    times = []
    for _ in range(compiles):
        # Cached traces of the previous contender would shorten this compile time.
        jax.clear_caches()
        begin = time.perf_counter()
        with jax.default_matmul_precision("highest") if highest else contextlib.nullcontext():
            compiled = jax.jit(function, out_shardings=shardings).lower(*arguments).compile()
        times.append(time.perf_counter() - begin)
    temporary = total = None
    if memory := compiled.memory_analysis():
        temporary = memory.temp_size_in_bytes
        total = temporary + memory.argument_size_in_bytes + memory.output_size_in_bytes

    def run():
        return jax.block_until_ready(compiled(*arguments))

    def values():
        leaves: list[Any] = [np.asarray(leaf) for leaf in jax.tree.leaves(run())]
        parts = [np.stack([x.real, x.imag]) if np.iscomplexobj(x) else x for x in leaves]
        return [np.asarray(part, np.float32) for part in parts]

    return Program(run, values, statistics.median(times), temporary, total)


def matrix_product(size: int, dtype: str, *, exact: bool) -> Program:
    """The product of two square matrices, `2 * size**3` operations: the rate of the machine."""
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
    """Times several functions in turn, so that disturbances of the machine affect all of them.

    Each round gives every function one turn, in random order.

    Args:
        runs: what to time, by name; each call returns when it is done.
        rounds: number of rounds.
        seconds: time limit after which no round starts, once `FEWEST` are completed.
        note: callback that receives the number of completed rounds.

    Returns:
        Seconds per call by name, one number per round; equal indices belong to the same round.
    """
    shuffler = random.Random(0)
    names = list(runs)
    once = {}
    for name in names:
        runs[name]()  # the first call touches memory and wakes threads
        once[name] = timeit.timeit(runs[name], number=1)
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
    return timeit.timeit(run, number=repeats) / repeats  # without garbage collection


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """The median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


class Comparison(NamedTuple):
    """Two functions, timed in the same rounds."""

    first: float  # median seconds
    second: float
    ratio: float  # the median of first / second within a round


def compare_samples(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Medians and the median ratio of times from the same rounds."""
    medians = statistics.median(first), statistics.median(second)
    return Comparison(*medians, paired_ratio(first, second))


def compare(
    first: Program, second: Program, *, tolerance: float, rounds: int, seconds: float
) -> Comparison:
    """Times two programs in turn, after a check that their results agree.

    Raises:
        ArithmeticError: the results differ by more than the tolerance.
    """
    error = difference(first.values(), second.values())
    if not error <= tolerance:
        raise ArithmeticError(
            f"expected results that agree to {tolerance:.0e} of the largest element of each array, "
            f"got a difference of {error:.1e}"
        )
    runs = {"first": first.run, "second": second.run}
    return compare_samples(**interleave(runs, rounds=rounds, seconds=seconds))


def difference(values: Sequence[Any], wanted: Sequence[Any], least: float = 1e-30) -> float:
    """The largest difference, relative to the largest element of each array, but at least `least`.

    The bound matters for gradients that vanish over a long time.
    """
    errors = [
        np.abs(value - want).max(initial=0) / max(np.abs(want).max(initial=0), least)
        for value, want in zip(values, wanted, strict=True)
    ]
    return float(np.max(errors))
