"""How far two sequences are apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def edit_distance(found: Sequence[Any], wanted: Sequence[Any]) -> int:
    """The fewest insertions, deletions and replacements that make one sequence the other.

    Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966.

    Example:
        >>> edit_distance("kitten", "sitting"), edit_distance("", "abc")
        (3, 3)
    """
    row = np.arange(len(wanted) + 1)
    steps = np.arange(len(wanted) + 1)
    for number, symbol in enumerate(found, 1):
        replaced = row[:-1] + np.array([symbol != other for other in wanted], int)
        best = np.concatenate([[number], np.minimum(replaced, row[1:] + 1)])
        # An insertion costs one for each place to the right of the best place to come from.
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])
