"""Texts that are much alike, so that none of them is held out while another is trained on."""

from collections.abc import Sequence

import numpy as np


def groups(texts: Sequence[str], similarity: float = 0.5) -> list[int]:
    """The number of each text's group: two texts are in one if a chain of likenesses joins them.

    Two texts are alike if what they share of their triples of neighbouring letters is that part of
    what either has (Jaccard).

    Example:
        >>> groups(["press one now", "goodbye", "please press one now"])
        [0, 1, 0]
    """
    triples = [{f" {text} "[i : i + 3] for i in range(len(text))} for text in texts]
    numbers = {triple: number for number, triple in enumerate(sorted(set().union(*triples)))}
    has = np.zeros((len(texts), len(numbers)), np.float32)
    for row, own in enumerate(triples):
        has[row, [numbers[triple] for triple in own]] = 1
    shared = has @ has.T
    sizes = has.sum(1)
    alike = shared >= similarity * (sizes[:, None] + sizes - shared)
    group = np.arange(len(texts))
    while True:  # each takes the smallest number among those that it is like
        smallest = np.where(alike, group, len(texts)).min(1)
        if (smallest == group).all():
            break
        group = smallest
    return [int(number) for number in np.unique(group, return_inverse=True)[1]]
