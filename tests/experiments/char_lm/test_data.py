"""Text for character models: every character is an input once and a target once, in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.char_lm.data import Corpus, chunk, longest_copy, parallel_rows


@given(text=st.text(min_size=1, max_size=200))
def test_tokens_decode_to_the_text(text):
    if any("\ud800" <= c <= "\udfff" for c in text):
        return  # a lone surrogate, which UTF-8 does not encode
    corpus = Corpus.of(text)
    assert corpus.decode(np.concatenate([corpus.train, corpus.valid])) == text
    assert len(corpus.train) == len(text) * 9 // 10
    assert list(corpus.vocabulary) == sorted(set(text))
    assert corpus.train.dtype == np.int32


@given(
    size=st.integers(2, 60), rows=st.integers(1, 6), time=st.integers(1, 9), steps=st.integers(1, 9)
)
def test_rows_continue_without_a_gap(size, rows, time, steps):
    """The inputs of successive steps are the text, and the targets are one ahead."""
    tokens = np.arange(size)
    chunks = [chunk(tokens, step, rows, time) for step in range(steps)]
    inputs = np.concatenate([c[:-1] for c in chunks])
    targets = np.concatenate([c[1:] for c in chunks])
    begin = np.arange(rows) * (size // rows)
    expected = begin + np.arange(steps * time + 1)[:, None]
    np.testing.assert_array_equal(inputs, expected[:-1] % size)
    np.testing.assert_array_equal(targets, expected[1:] % size)


@given(size=st.integers(2, 80), rows=st.integers(1, 7), time=st.integers(1, 9))
def test_every_target_is_counted_once_and_follows_its_input(size, rows, time):
    tokens = np.random.default_rng(0).permutation(size)
    successor = dict(zip(tokens, tokens[1:], strict=False))
    streams = parallel_rows(tokens, rows, time)
    assert streams[0].shape[1:] == (time, rows)
    assert sorted(streams[1][streams[2].astype(bool)]) == sorted(tokens[1:])
    for row in range(rows):
        inputs, targets, counts = (part[..., row].reshape(-1) for part in streams)
        n = int(counts.sum())
        assert counts[:n].all()  # padding comes last and does not change a state
        assert [successor[i] for i in inputs[:n]] == list(targets[:n])
        assert list(inputs[1:n]) == list(targets[: n - 1])[: max(n - 1, 0)]


@given(text=st.text("abc", max_size=30), source=st.text("abc", max_size=40))
def test_the_longest_copy_is_the_first_longest_of_all_runs(text, source):
    runs = [text[a:b] for a in range(len(text)) for b in range(a + 1, len(text) + 1)]
    runs = [run for run in runs if run in source]
    assert longest_copy(text, source) == max(runs, key=len, default="")


@pytest.mark.parametrize("text", ["", "a"])
def test_the_longest_copy_from_an_empty_source_is_empty(text):
    assert longest_copy(text, "") == ""


@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_of_a_chunk_are_the_chunk(count):
    tokens = np.random.default_rng(0).integers(0, 9, 100)
    parts = [chunk(tokens, 7, 8, 5, index, count) for index in range(count)]
    np.testing.assert_array_equal(np.concatenate(parts, 1), chunk(tokens, 7, 8, 5))
