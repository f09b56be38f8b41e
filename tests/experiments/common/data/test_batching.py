"""Vocabularies, batches of pairs, parts of words, distances: what they lose, if anything."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.common.data.batching import (
    BEGIN,
    END,
    PAD,
    UNKNOWN,
    Batches,
    Size,
    Vocabulary,
    chunks,
    pad,
)
from experiments.common.data.near_duplicates import groups
from experiments.common.metrics import edit_distance, most_common
from experiments.translation.ibm_model1 import WordForWord
from experiments.translation.subwords import Subwords, join

# Numbers ------------------------------------------------------------------------------------------


def test_numbers_stand_for_symbols_and_what_is_not_known_for_none():
    vocabulary = Vocabulary.of(["banana", "bx"], least=2)
    assert vocabulary.symbols == ("a", "b", "n") and len(vocabulary) == 7
    numbers = vocabulary.encode("nab?")
    assert numbers == [6, 4, 5, UNKNOWN]
    assert vocabulary.decode([*numbers, END, 4]) == ["n", "a", "b", "<?>"]


def random_pairs(count=57, seed=0):
    random = np.random.default_rng(seed)
    draw = lambda: [list(random.integers(4, 9, random.integers(1, 12))) for _ in range(count)]  # noqa: E731
    return draw(), draw()


def read(batch):
    """The pairs of a batch, read back from its arrays."""
    assert (batch.target[0] == BEGIN).all()
    rows = []
    for source, target in zip(batch.source.T, batch.target[1:].T, strict=True):
        x, y = list(source).index(END), list(target).index(END)
        assert (source[x + 1 :] == PAD).all() and (target[y + 1 :] == PAD).all()
        rows.append((tuple(source[:x]), tuple(target[:y])))
    return rows


def test_a_pass_over_the_data_sees_every_pair_and_few_twice():
    sources, targets = random_pairs()
    pairs = {(tuple(x), tuple(y)) for x, y in zip(sources, targets, strict=True)}
    shares = (0.3, 0.6, 1.0)
    batches = Batches(sources, targets, rows=5, seed=3, shares=shares)
    assert batches.plan.sizes[-1] == (11, 11) and len(batches.plan.sizes) == 3
    orders = []
    for number in range(2):
        seen = [read(batches(number * batches.plan.a_pass + i)) for i in range(batches.plan.a_pass)]
        orders.append(seen)
        assert {pair for rows in seen for pair in rows} == pairs
        assert sum(map(len, seen)) < len(pairs) + 3 * 5
        for rows in seen:  # alike in length
            lengths = [[len(side) for side in pair] for pair in rows]
            fits = (np.array(lengths)[:, None] <= np.array(batches.plan.sizes)).all(2)
            assert len(set(fits.argmax(1))) == 1 and fits.any(1).all()
    assert orders[0] != orders[1]
    again = Batches(sources, targets, rows=5, seed=3, shares=shares)
    np.testing.assert_array_equal(again(7).source, batches(7).source)


def test_shares_that_end_at_the_same_length_have_one_size():
    batches = Batches([[4], [4, 5], [4, 5], [5, 5]], [[4]] * 4, rows=2, seed=0)
    assert batches.plan.sizes == ((2, 1),)
    batches = Batches([[4], [5], [4, 5], [5] * 9], [[4]] * 4, rows=2, seed=0)
    assert batches.plan.sizes == ((1, 1), (2, 1), (9, 1))


def test_a_few_pairs_fill_a_batch_by_repeats():
    batches = Batches([[4], [5]], [[6], [7, 8]], rows=4, seed=0)
    assert sorted(set(read(batches(0)) + read(batches(1)))) == [((4,), (6,)), ((5,), (7, 8))]


def test_chunks_hold_all_pairs_once_at_the_smallest_size():
    sources, targets = random_pairs()
    found, sizes = {}, (Size(4, 5), Size(8, 9), Size(11, 11))
    for which, batch in chunks(sources, targets, 10, sizes):
        assert Size(len(batch.source) - 1, len(batch.target) - 2) in sizes
        found |= dict(zip(map(int, which), read(batch), strict=False))
    assert found == {
        i: (tuple(x), tuple(y)) for i, (x, y) in enumerate(zip(sources, targets, strict=True))
    }


def test_pairs_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="broadcast"):
        pad([[4, 5, 6]], [[4]], Size(2, 2))


# Parts of words -----------------------------------------------------------------------------------


one_text = st.text("abcdéß ,.!'", max_size=20).filter(str.strip)
texts = st.lists(one_text, min_size=1, max_size=8)


@given(read=texts, other=st.text("abcdeéxyzß ,.!?'", max_size=20))
def test_parts_of_words_make_the_text_again(read, other):
    subwords = Subwords.learn(read, 10)
    assert join(subwords.split(other)) == " ".join(other.split())


def test_merges_are_those_that_their_paper_makes():
    """The paper's own example: low 5, lower 2, newest 6, widest 3 times."""
    text = " ".join(["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3)
    subwords = Subwords.learn([text], 4)  # e s, es t, l o, lo w
    for word, parts in (("newest", "▁ n e w est"), ("lower", "▁ low e r"), ("est", "▁ est")):
        assert subwords.split(word) == parts.split()
    assert Subwords.learn([text], 1000).split("newest widest") == ["▁newest", "▁widest"]


# The baselines ------------------------------------------------------------------------------------


def test_word_for_word_is_model_1_by_hand():
    """Expectation-maximisation by dictionaries, for the same number of rounds."""
    pairs = [("das Haus", "the house"), ("das Buch", "the book"), ("ein Buch", "a book"),
             ("Haus", "house"), ("das kleine Haus", "the small house")]  # fmt: skip
    split = [
        (["", *(f" {w}" for w in de.lower().split())], [f" {w}" for w in en.split()])
        for de, en in pairs
    ]
    chance = {(f, e): 1.0 for fs, es in split for f in fs for e in es}
    for _ in range(5):
        counts = dict.fromkeys(chance, 0.0)
        for fs, es in split:
            for e in es:
                total = sum(chance[f, e] for f in fs)
                for f in fs:
                    counts[f, e] += chance[f, e] / total
        totals = {}
        for (f, _), n in counts.items():
            totals[f] = totals.get(f, 0) + n
        chance = {(f, e): n / totals[f] for (f, e), n in counts.items()}
    best = {}
    for (f, e), n in chance.items():
        if f and (f not in best or n > chance[f, best[f]]):
            best[f] = e
    table = WordForWord.learn(pairs, rounds=5).table
    assert {f.replace("▁", " "): e.replace("▁", " ") for f, e in table.items()} == best


def test_words_that_are_not_known_stay_and_a_capital_is_kept():
    table = WordForWord.learn([("das Haus", "the house"), ("das", "the"), ("Haus", "house")])
    assert table.translate("Das Haus, Pünktchen") == "The house, Pünktchen"


def test_the_commonest_text():
    assert most_common(["b", "c", "a", "c", "b"]) == "b"


# Distances and likenesses -------------------------------------------------------------------------


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_the_edit_distance_is_that_of_the_recursion(found, wanted):
    table = {}
    for i, j in itertools.product(range(len(found) + 1), range(len(wanted) + 1)):
        options = [i + j] if not i or not j else []
        if i and j:
            options.append(table[i - 1, j - 1] + (found[i - 1] != wanted[j - 1]))
        options += [table[i - 1, j] + 1] if i else []
        options += [table[i, j - 1] + 1] if j else []
        table[i, j] = min(options)
    assert edit_distance(found, wanted) == table[len(found), len(wanted)]


@given(st.lists(st.text("ab ", max_size=6), min_size=1, max_size=7))
def test_groups_are_the_connected_texts(texts):
    def triples(text):
        return {f" {text} "[i : i + 3] for i in range(len(text))}

    def alike(a, b):
        both = triples(a) | triples(b)
        return not both or len(triples(a) & triples(b)) >= 0.5 * len(both)

    number, found = groups(texts), {}
    for i, j in itertools.product(range(len(texts)), repeat=2):
        if alike(texts[i], texts[j]):
            assert number[i] == number[j]
    for i, group in enumerate(number):
        found.setdefault(group, []).append(i)
    for members in found.values():  # nothing is in a group without a link into it
        reached, frontier = {members[0]}, [members[0]]
        while frontier:
            i = frontier.pop()
            new = {j for j in members if alike(texts[i], texts[j])} - reached
            reached |= new
            frontier += new
        assert reached == set(members)
