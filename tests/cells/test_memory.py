"""What cells can remember: the adding problem over 100 steps, and the parity of bits.

    python -m pytest -m slow tests/cells/test_memory.py

Small networks, trained in seconds. The catalogue's figures for all cells are made by
``python -m docs.tools.cells_memory --measure``.
"""

import functools

import pytest

import jaxrnn as rnn
from docs.tools.cells_memory import memory_cells, steps_of
from docs.tools.memory_tasks import ADDING, HIDDEN, PARITY, accuracy, error, train

CELLS = memory_cells()


@functools.cache
def error_of(cell, steps):
    return error(cell, train(cell, ADDING, steps)[1])


def accuracy_of(cell):
    return accuracy(cell, train(cell, PARITY)[1])


LONG_MEMORY = (
    "LSTM", "GRU", "JANET", "IRNN", "IndRNN", "OrthogonalRNN", "AntisymmetricRNN", "CoRNN",
    "UnICORNN", "LEM", "NBRC", "BRC", "SLSTM", "LRU", "S5", "SelectiveSSM", "MinGRU", "MinLSTM",
    "RGLRU", "HGRN", "GatedLinearAttention", "MLSTM", "DeltaNet", "GatedDeltaNet", "LMU",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("steps", sorted({steps_of(name) for name in LONG_MEMORY}))
def test_elman_does_not_add_over_a_hundred_steps(steps):
    """The error is 0.16, nothing learned, or 0.08; in 500 steps rounding decides between them."""
    assert error_of(rnn.Elman(HIDDEN), steps) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG_MEMORY)
def test_cells_for_long_memory_add_better_than_elman(name):
    steps = steps_of(name)
    assert error_of(CELLS[name], steps) < 0.5 * error_of(rnn.Elman(HIDDEN), steps)


TRACK = ("Elman", "LSTM", "GRU", "SLSTM")
CANNOT = (
    "MinGRU", "MinLSTM", "RGLRU", "LRU", "S5", "HGRN", "SRU", "QRNN", "SelectiveSSM",
    "GatedLinearAttention", "MLSTM", "DeltaNet",
)  # fmt: skip


# Initialized as their classes are: a gate that begins closed learns parity later.
@pytest.mark.slow
@pytest.mark.parametrize("name", TRACK)
def test_cells_that_track_state_tell_the_parity_of_more_bits_than_they_learned_from(name):
    assert accuracy_of(getattr(rnn, name)(HIDDEN)) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", CANNOT)
def test_cells_with_positive_eigenvalues_do_not_tell_parity(name):
    """Nor those whose eigenvalues do not see the input: no bit can turn their state's sign."""
    assert accuracy_of(CELLS[name]) < 0.65
