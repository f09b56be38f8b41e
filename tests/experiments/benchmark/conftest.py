"""Turns without rest or repetition: the tests check what is timed, not how long it takes."""

import pytest

from experiments.benchmark import timing


@pytest.fixture(autouse=True, scope="package")
def quick_turns():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SETTLE", "TURN", "LONG"):
            patch.setattr(timing, name, 0.0)
        patch.setattr(timing, "FEWEST", 2)
        yield
