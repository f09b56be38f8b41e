"""Groups of near-duplicates."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from experiments.common.data.splits import group_near_duplicates


@given(st.lists(st.text("ab ", max_size=6), min_size=1, max_size=7))
def test_groups_are_the_connected_texts(texts):
    def triples(text):
        return {f" {text} "[i : i + 3] for i in range(len(text))}

    def alike(a, b):
        both = triples(a) | triples(b)
        return not both or len(triples(a) & triples(b)) >= 0.5 * len(both)

    number, found = group_near_duplicates(texts), {}
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


def test_no_texts_have_no_groups():
    assert group_near_duplicates([]) == []
