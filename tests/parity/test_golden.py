"""jaxrnn against records of the peers: no peer is needed."""

import pytest

from tests.parity import comparison as parity
from tests.parity import golden
from tests.parity.peers import COMPARISONS


@pytest.mark.parametrize("case", COMPARISONS, ids=lambda case: case.name)
def test_values_and_gradients(case):
    parity.check(case, golden.read(case.name), case.tolerance)


@pytest.mark.parametrize("case", COMPARISONS, ids=lambda case: case.name)
def test_a_file_holds_the_weights_and_inputs_of_its_comparison(case):
    kept = golden.read(case.name)
    for name, array in parity.draw(case, "float64").items():
        assert (kept[name] == array).all(), name


def test_every_file_has_its_comparison():
    assert {file.stem for file in golden.FOLDER.glob("*.safetensors")} == {
        case.name for case in COMPARISONS
    }
