"""The memory tasks: their targets, computed from the inputs by other means."""

import numpy as np
import pytest

from experiments.long_memory.tasks import (
    TASKS,
    Adding,
    AssociativeRecall,
    Copy,
    Counting,
    Parity,
    SelectiveCopy,
    TemporalOrder,
)

ROWS = 300


def draw(task, seed=0, rows=ROWS):
    return task.batch(np.random.default_rng(seed), rows)


def tokens(batch):
    assert (batch.inputs.sum(-1) == 1).all() and set(np.unique(batch.inputs)) == {0, 1}
    return batch.inputs.argmax(-1)


def constant_loss(batch):
    """The least loss of a constant prediction."""
    asked = batch.targets[batch.weights > 0]
    share = np.bincount(asked) / len(asked)
    return -(share[share > 0] * np.log(share[share > 0])).sum()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_batches_depend_on_the_seed_alone_and_have_the_documented_shapes(name):
    task = TASKS[name]()
    batch, again, other = draw(task), draw(task), draw(task, seed=1)
    for mine, same in zip(batch, again, strict=True):
        np.testing.assert_array_equal(mine, same)
    assert not np.array_equal(batch.inputs[:10], other.inputs[:10])
    time = batch.inputs.shape[0]
    assert batch.inputs.shape == (time, ROWS, task.inputs) and batch.inputs.dtype == np.float32
    assert batch.targets.shape == batch.weights.shape == (time, ROWS)
    assert batch.weights.dtype == np.float32 and set(np.unique(batch.weights)) <= {0, 1}
    assert (batch.weights.sum(0) > 0).all()
    if task.classes is not None:
        assert batch.targets.dtype == np.int32
        assert batch.targets.min() >= 0 and batch.targets.max() < task.classes


def test_adding():
    batch = draw(Adding(21), rows=4000)
    numbers, marks = batch.inputs[..., 0], batch.inputs[..., 1]
    for row in range(50):
        first, second = np.flatnonzero(marks[:, row])
        assert first < 10 <= second
        assert batch.targets[-1, row] == pytest.approx(numbers[first, row] + numbers[second, row])
    assert (batch.weights[:-1] == 0).all() and (batch.weights[-1] == 1).all()
    assert ((batch.targets[-1] - 1) ** 2).mean() == pytest.approx(Adding.chance, rel=0.1)
    assert numbers.min() >= 0 and numbers.max() <= 1


def test_copy():
    task = Copy(15)
    batch = draw(task, rows=4000)
    given = tokens(batch)
    assert given.shape[0] == 35
    assert (given[:10] > 0).all() and (given[:10] < 9).all()
    np.testing.assert_array_equal(batch.targets[-10:], given[:10])
    assert (batch.targets[:-10] == 0).all() and (batch.weights == 1).all()
    # The symbol 9 says "now" one step before the first answer, and the rest is blank.
    assert (given[24] == 9).all() and (given[10:24] == 0).all() and (given[25:] == 0).all()
    symbols = batch.targets[-10:]
    share = np.bincount(symbols.ravel())[1:] / symbols.size
    entropy = -(share * np.log(share)).sum()
    assert task.chance == pytest.approx(10 * entropy / 35, rel=1e-3)


def test_selective_copy():
    batch = draw(SelectiveCopy(30))
    given = tokens(batch)
    for row in range(ROWS):
        symbols = [token for token in given[:30, row] if token]
        assert len(symbols) == 10
        np.testing.assert_array_equal(batch.targets[-10:, row], symbols)
    places = (given[:30] > 0).mean(1)
    assert (np.abs(places - 1 / 3) < 0.15).all()
    assert (given[-10:] == 9).all() and (batch.weights.sum(0) == 10).all()

    with pytest.raises(ValueError, match="length must be at least 10 for this task, got 9"):
        SelectiveCopy(9)


def test_temporal_order():
    batch = draw(TemporalOrder(60))
    given, classes = tokens(batch), {(6, 6): 0, (6, 7): 1, (7, 6): 2, (7, 7): 3}
    for row in range(ROWS):
        first, second = np.flatnonzero(given[:, row] >= 6)
        assert 6 <= first < 12 and 30 <= second < 36
        assert batch.targets[-1, row] == classes[given[first, row], given[second, row]]
    assert (given[0] == 0).all() and (given[-1] == 1).all()
    assert constant_loss(batch) == pytest.approx(TemporalOrder.chance, rel=0.02)
    assert draw(TemporalOrder(3)).inputs.shape[0] == 3


def test_parity():
    batch = draw(Parity(12))
    for row, bits in enumerate(tokens(batch).T):
        odd = False
        for t, bit in enumerate(bits):
            odd ^= bool(bit)
            assert batch.targets[t, row] == odd
    assert constant_loss(batch) == pytest.approx(Parity.chance, rel=0.01)


def test_counting():
    batch = Counting(9).strings(np.array([1, 4, 9]))
    for row, n in enumerate((1, 4, 9)):
        symbols = ["ab"[x.argmax()] if x.sum() else "." for x in batch.inputs[:, row]]
        assert "".join(symbols) == "a" * n + "b" * n + "." * (18 - 2 * n)
        # After each of the n letters b: n - 1 times another b, then the end.
        asked = batch.targets[batch.weights[:, row] > 0, row]
        np.testing.assert_array_equal(asked, [0] * (n - 1) + [1])
    n = draw(Counting(9)).weights.sum(0)
    assert set(n) == set(range(1, 10))


def test_associative_recall():
    batch = draw(AssociativeRecall(5))
    for row, given in enumerate(tokens(batch).T):
        letters, digits, (mark, asked) = given[:-2:2], given[1:-2:2] - 26, given[-2:]
        assert mark == 36 and len(set(letters)) == 5 and letters.max() < 26
        pairs = dict(zip(letters, digits, strict=True))
        assert batch.targets[-1, row] == pairs[asked]
    assert constant_loss(batch) == pytest.approx(AssociativeRecall.chance, rel=0.02)
    with pytest.raises(ValueError, match="length must be at most 26 for this task, got 27"):
        AssociativeRecall(27)


# Longer sequences --------------------------------------------------------------------------------


def test_the_longer_accuracy_of_parity_counts_only_steps_beyond_the_trained_length():
    def correct_at_first(batch):  # and always wrong after the 8 steps of training
        t = np.arange(len(batch.targets))[:, None]
        return np.where(t < 8, batch.targets, 1 - batch.targets)

    assert Parity(8).longer_metrics(correct_at_first) == {"accuracy_longer": 0.0}
    assert Parity(8).longer_metrics(lambda batch: batch.targets) == {"accuracy_longer": 1.0}
    constant = Parity(8).longer_metrics(lambda batch: np.zeros_like(batch.targets))[
        "accuracy_longer"
    ]
    assert constant == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("limit", [0, 3, 17, 24])
def test_counting_reports_the_n_up_to_which_every_string_is_correct(limit):
    def counts(batch):
        n = batch.weights.sum(0)
        return np.where(n <= limit, batch.targets, 0)

    assert Counting(6).longer_metrics(counts) == {"counts_to": limit}


def test_other_tasks_have_no_metrics_on_longer_sequences():
    assert Adding().longer_metrics(lambda batch: batch.targets) == {}
