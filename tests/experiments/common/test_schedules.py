"""Learning rates, read off their definitions."""

import jax
import numpy as np
import pytest

from experiments.common.schedules import make_schedule


def rates(name, peak=0.5, warmup=10, updates=40):
    schedule = jax.jit(jax.vmap(make_schedule(name, peak, warmup, updates)))
    return np.asarray(schedule(np.arange(updates + 1)))


def half_cosine(begin, end, steps):
    return end + (begin - end) * (1 + np.cos(np.pi * np.arange(steps + 1) / steps)) / 2


def test_constant_stays_at_the_peak_after_the_warm_up():
    expected = np.minimum(np.arange(41) / 10, 1) * 0.5
    np.testing.assert_allclose(rates("constant"), expected, rtol=1e-6)


def test_cosine_falls_to_zero():
    got = rates("cosine")
    np.testing.assert_allclose(got[:11], 0.5 * np.arange(11) / 10, rtol=1e-6)
    np.testing.assert_allclose(got[10:], half_cosine(0.5, 0, 30), atol=1e-7)


def test_one_cycle_rises_for_three_tenths_and_falls_further_than_it_began():
    got = rates("one-cycle")
    np.testing.assert_allclose(got[:13], half_cosine(0.5 / 25, 0.5, 12), rtol=1e-5)
    np.testing.assert_allclose(got[12:], half_cosine(0.5, 0.5 / 25e4, 28), rtol=1e-5, atol=1e-8)


def test_a_warm_up_takes_at_most_half():
    np.testing.assert_allclose(rates("constant", warmup=100, updates=8)[:5], np.arange(5) / 8)


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="name must be one of .*'cosine'.*, got 'linear'"):
        make_schedule("linear", 0.1, 0, 10)
