"""Turns are interleaved, and figures follow from samples of the same rounds."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.benchmark import timing
from experiments.benchmark.timing import Comparison, Program


def test_every_round_gives_every_function_one_turn():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    samples = timing.interleave(runs, rounds=7, seconds=60)
    assert {name: len(times) for name, times in samples.items()} == dict.fromkeys("abc", 7)
    turns = calls[6:]  # two calls each to warm up
    rounds = [tuple(turns[begin : begin + 3]) for begin in range(0, 21, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1, "the order is random"


@pytest.fixture
def clock(monkeypatch):
    """A clock of which every reading is one second later, and calls of known duration."""
    readings, timed = itertools.count(), []

    def timeit(run, number):
        timed.append((run(), number))
        return run() * number

    fake = SimpleNamespace(perf_counter=lambda: float(next(readings)), sleep=lambda seconds: None)
    monkeypatch.setattr(timing, "time", fake)
    monkeypatch.setattr(timing, "timeit", SimpleNamespace(timeit=timeit))
    return timed


def test_short_calls_are_repeated(clock, monkeypatch):
    monkeypatch.setattr(timing, "TURN", 8.0)
    samples = timing.interleave({"a": lambda: 1.0, "b": lambda: 16.0}, rounds=2, seconds=60)
    assert samples == {"a": [1.0, 1.0], "b": [16.0, 16.0]}
    assert sorted(clock[2:]) == [(1.0, 8), (1.0, 8), (16.0, 1), (16.0, 1)]


def test_no_round_starts_after_the_time_limit(clock, monkeypatch):
    monkeypatch.setattr(timing, "FEWEST", 5)
    for seconds, rounds in ((0.5, 5), (2.5, 7), (100.0, 9)):
        samples = timing.interleave({"a": lambda: 1.0}, rounds=9, seconds=seconds)
        assert len(samples["a"]) == rounds


def program(*values):
    return Program(lambda: None, lambda: [np.array(values)])


def test_ratios_are_medians_within_a_round(monkeypatch):
    # The machine is three times slower in the second round; the ratio of the medians is 4.
    samples = {"first": [2.0, 6.0, 6.0, 1.0, 90.0], "second": [1.0, 3.0, 1.5, 1.0, 30.0]}
    monkeypatch.setattr(timing, "interleave", lambda runs, **options: samples)
    got = timing.compare(program(1.0), program(1.0), tolerance=0.1, rounds=5, seconds=1.0)
    assert got == Comparison(6.0, 1.5, 2.0)


def test_programs_with_different_results_are_not_timed():
    for wrong in (1.1, float("nan")):
        with pytest.raises(ArithmeticError, match="expected results that agree to 1e-02"):
            timing.compare(
                program(wrong, 2.0), program(1.0, 2.0), tolerance=1e-2, rounds=1, seconds=1.0
            )


def test_differences_are_relative_to_the_largest_element():
    values, wanted = [np.array([1.0, 4.5]), np.zeros(2)], [np.array([1.0, 5.0]), np.zeros(2)]
    assert timing.difference(values, wanted) == pytest.approx(0.1)
    assert timing.difference([np.array([1e-9])], [np.array([0.0])], least=1.0) == 1e-9


def test_arguments_are_not_constants():
    """A contender is compiled for arguments, which stay arguments of the program."""
    compiled = timing.compile_program(lambda a, b: a @ b, (np.eye(3), np.ones((3, 2))), exact=True)
    np.testing.assert_array_equal(compiled.values()[0], np.ones((3, 2)))
    assert compiled.compile_seconds > 0
    assert compiled.total_bytes - compiled.temporary_bytes == 4 * (9 + 6 + 6)
