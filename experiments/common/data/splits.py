"""Splits by a hash of the text, which every machine repeats, and groups of near-duplicates."""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csgraph


def digest(text: str) -> int:
    """The first eight bytes of the text's SHA-256, as an integer.

    Example:
        >>> digest("hello") % 100
        42
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def group_near_duplicates(texts: Sequence[str], similarity: float = 0.5) -> list[int]:
    """The group of each text: the connected components of the graph of similar texts.

    Two texts are similar if the Jaccard index of their sets of character trigrams is at least
    `similarity`. A split that keeps groups whole trains on no near-duplicate of a held-out text.

    Example:
        >>> group_near_duplicates(["press one now", "goodbye", "please press one now"])
        [0, 1, 0]
    """
    trigrams = [{f" {text} "[i : i + 3] for i in range(len(text))} for text in texts]
    columns = {trigram: i for i, trigram in enumerate(sorted(set().union(*trigrams)))}
    occurs = np.zeros((len(texts), len(columns)), np.float32)
    for row, own in enumerate(trigrams):
        occurs[row, [columns[trigram] for trigram in own]] = 1
    shared, counts = occurs @ occurs.T, occurs.sum(1)
    similar = shared >= similarity * (counts[:, None] + counts - shared)
    return csgraph.connected_components(similar, directed=False)[1].tolist()
