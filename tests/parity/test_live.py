"""jaxrnn against the peers that are installed: values and all gradients."""

import numpy as np
import pytest

from tests.parity import comparison as parity
from tests.parity.peers import COMPARISONS, TRAINED


# The default tier compares with the recorded results of test_golden.py.
@pytest.mark.thorough
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", COMPARISONS, ids=lambda case: case.name)
def test_values_and_gradients(case, dtype):
    case.require()
    tolerance = case.tolerance if dtype is np.float64 else case.single
    parity.check(case, parity.record(case, dtype), tolerance)


@pytest.mark.thorough
@pytest.mark.parametrize("draw", [1, 2, 3])
@pytest.mark.parametrize(
    "case", [case for peer in TRAINED for case in peer.COMPARISONS], ids=lambda case: case.name
)
def test_other_draws_of_trained_models(case, draw):
    case.require()
    case = case._replace(name=f"{case.name}, draw {draw}")  # the name seeds the weights
    parity.check(case, parity.record(case), case.tolerance)
