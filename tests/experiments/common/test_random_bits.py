"""The random bits of training: the numbers of JAX, in one pass."""

import jax
import numpy as np
import pytest

from experiments.common.random_bits import THREEFRY
from tests.support.helpers import optimizing_jit

DRAWS = {
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.9, (5, 3, 7)),
    "normal": lambda key: jax.random.normal(key, (2, 3), "float32"),
    "bytes": lambda key: jax.random.bits(key, (3, 5), "uint8"),
    "scalar": lambda key: jax.random.bits(key),
    "none": lambda key: jax.random.bits(key, (0, 3)),
    "permutation": lambda key: jax.random.permutation(key, 10),
    "keys": lambda key: jax.vmap(lambda key: jax.random.bits(key, (2, 3)))(jax.random.split(key)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("seed", [0, 2**31])
def test_the_numbers_are_those_of_jax(draw, seed):
    own, theirs = (
        draw(jax.random.fold_in(jax.random.key(seed, impl=impl), 3))
        for impl in (THREEFRY, "threefry2x32")
    )
    np.testing.assert_array_equal(own, theirs)


def test_a_mask_is_written_once_and_nothing_else():
    """JAX's own bits take a loop over arrays of four bytes a number."""
    shape = (16, 8, 128)

    def compiled(impl):
        draw = optimizing_jit(lambda key: jax.random.bernoulli(key, 0.9, shape))
        return draw.lower(jax.random.key(0, impl=impl)).compile()

    own, theirs = compiled(THREEFRY), compiled("threefry2x32")
    assert " while(" in theirs.as_text() and " while(" not in own.as_text()
    assert own.cost_analysis()["bytes accessed"] < 1.01 * np.prod(shape)
    assert theirs.cost_analysis()["bytes accessed"] > 30 * np.prod(shape)
