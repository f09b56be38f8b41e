"""What all wrappers keep: the members of the cell inside, its affine form, and each other."""

import dataclasses
import itertools
import pickle
from typing import Any

import jax
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import wrappers
from jaxrnn._cell import affine_step, input_rank
from jaxrnn.wrappers import (
    EmitState,
    LearnedInitialState,
    Masked,
    MaskedInput,
    RecurrentDropout,
    Residual,
    VariationalDropout,
    WeightDrop,
    Zoneout,
)
from tests.support.drawing import draw
from tests.support.helpers import assert_near

KEY = jax.random.key(3)

AFFINE = (
    EmitState(rnn.LRU(3)),
    Residual(rnn.LRU(3)),
    LearnedInitialState(rnn.LRU(3)),
    Zoneout(rnn.LRU(3), 0.3),
    Zoneout(Residual(LearnedInitialState(rnn.MinGRU(3))), 0.3),
    VariationalDropout(rnn.MinGRU(3), 0.3),
    WeightDrop(rnn.MinGRU(3), 0.3, kernels=("input_kernel",)),
)


@pytest.mark.parametrize("cell", AFFINE, ids=range(len(AFFINE)))
def test_affine_cells_stay_affine_under_masks_and_starts(cell):
    """A skipped step is (1, 0), a start (0, a · initial + b); and the step follows from these."""
    assert rnn.is_affine(cell)
    assert rnn.is_affine(Masked(cell))
    params, state, xs = draw(cell, time=1)
    params = cell.bind(params, KEY, (4,))
    valid, start = np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool)
    work = params, state, MaskedInput(xs[0], valid, start)

    @jax.jit
    def both(*work):
        plain = cell, work[0], work[1], work[2].x
        return {
            "derived": affine_step(Masked(cell), *work),
            "step": Masked(cell).step(*work),
            "derived, plain": affine_step(*plain),
            "step, plain": cell.step(*plain[1:]),
            "form": Masked(cell).affine(work[0], work[2]),
        }

    out = both(*work)
    assert_near(out["derived"], out["step"], 1e-12)
    assert_near(out["derived, plain"], out["step, plain"], 1e-12)
    for a, b in zip(*map(jax.tree.leaves, out["form"]), strict=True):
        assert (a[~valid] == 1).all()
        assert (b[~valid] == 0).all()
        assert (a[valid & start] == 0).all()


@pytest.mark.parametrize(
    "wrap",
    [Masked, EmitState, Residual, LearnedInitialState, lambda c: Zoneout(c, 0.1)],
    ids=["Masked", "EmitState", "Residual", "LearnedInitialState", "Zoneout"],
)
def test_no_wrapper_makes_a_cell_affine_that_is_not(wrap):
    for cell in (rnn.GRU(3), Residual(rnn.GRU(3)), rnn.PeepholeSRU(3)):
        wrapped = wrap(cell)
        assert not rnn.is_affine(wrapped)
        assert isinstance(wrapped, rnn.Cell)
        assert rnn.is_affine(dataclasses.replace(wrapped, cell=rnn.LRU(3)))


@dataclasses.dataclass(frozen=True)
class MaybeAffine(rnn.LRU):
    """A user's cell that is affine only in part of its instances."""

    affine: Any = None


def test_an_instance_declares_that_it_is_not_affine():
    """``affine = None`` on the instance counts, not the class."""
    cell = MaybeAffine(3)
    assert isinstance(cell, rnn.Cell)
    assert not any(map(rnn.is_affine, (cell, Residual(cell))))
    assert "has neither an affine form" in rnn.engines.Associative().why_not(cell, (), (), ())
    for protocol in (rnn.AffineCell, rnn.ChunkedCell):
        with pytest.raises(TypeError, match="runtime_checkable"):
            isinstance(rnn.LRU(3), protocol)


WRAPS = {
    "EmitState": EmitState,
    "LearnedInitialState": LearnedInitialState,
    "RecurrentDropout": lambda cell: RecurrentDropout(cell, 0.3),
    "Residual": Residual,
    "VariationalDropout": lambda cell: VariationalDropout(cell, 0.3, 0.3),
    "WeightDrop": lambda cell: WeightDrop(cell, 0.3),
    "Zoneout": lambda cell: Zoneout(cell, 0.3),
}


def pairs():
    """All ordered pairs that work; each wrapper is outer and inner once in the default tier."""
    names = list(WRAPS)
    for outer, inner in itertools.permutations(names, 2):
        near = (names.index(inner) - names.index(outer)) % len(names) == 2
        if (outer, inner) not in REFUSED:
            marks = () if near else pytest.mark.thorough
            yield pytest.param(outer, inner, id=f"{outer}-{inner}", marks=marks)


REFUSED = {("Zoneout", "Residual"), ("Residual", "EmitState")}


def test_every_public_wrapper_is_here():
    named = {name for name in wrappers.__all__ if not name.endswith(("Params", "Input"))}
    assert named == {*WRAPS, "Masked"}


@pytest.mark.parametrize(
    ("outer", "inner"),
    list(pairs()),
)
def test_wrappers_nest_in_any_order(outer, inner):
    """The members of the cell inside are kept; drawing reaches both; without a key it repeats."""
    cell = WRAPS[outer](WRAPS[inner](rnn.LSTM(3)))
    assert (cell.output_size, input_rank(cell)) == (3, 1)
    assert pickle.loads(pickle.dumps(cell)) == cell
    assert hash(cell) == hash(dataclasses.replace(cell))
    random = {"RecurrentDropout", "VariationalDropout", "WeightDrop", "Zoneout"} & {outer, inner}
    assert cell.stochastic == bool({"RecurrentDropout", "Zoneout"} & {outer, inner})

    params = cell.init(KEY, 3)
    state, x = cell.init_state(params, (2,)), np.ones((2, 3))

    @jax.jit
    def steps(params, key):
        out = []
        for k in (key, None):
            bound = params if k is None else cell.bind(params, k, (2,))
            s = state
            for _ in range(2):
                s, y = cell.step(bound, s, x, key=k)
            out.append((s, y))
        return out

    (drawn, without), (again, _), (other, _) = (
        steps(params, jax.random.key(seed)) for seed in (0, 0, 1)
    )
    assert jax.tree.structure(drawn) == jax.tree.structure(without)
    assert_near(drawn, again, 0.0)
    differs = [
        any((a != b).any() for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in ((drawn, other), (drawn, without))
    ]
    assert differs == [bool(random)] * 2
    if not {"Residual", "EmitState"} & {outer, inner} and "Zoneout" not in (outer, inner):
        plain = rnn.LSTM(3)
        own = params
        while hasattr(own, "cell"):
            own = own.cell
        s = plain.init_state(own, (2,))
        for _ in range(2):
            s, y = plain.step(own, s, x)
        assert_near(without, (s, y), 1e-12)


def test_what_two_wrappers_draw_is_not_the_same():
    """The outer zoneout holds other elements than the inner one."""
    rates = rnn.GRUState(0.5)
    cell = Zoneout(
        Zoneout(
            rnn.from_step(
                lambda p, s, x: (rnn.GRUState(x), x),
                init=lambda key, size, dtype: (),
                init_state=lambda p, b: rnn.GRUState(np.zeros((*b, 4000))),
            ),
            rates,
        ),
        rates,
    )
    new, _ = cell.step((), rnn.GRUState(np.zeros(4000)), np.ones(4000), key=KEY)
    np.testing.assert_allclose(new.hidden.mean(), 0.25, atol=0.04)


@pytest.mark.parametrize("pair", sorted(REFUSED), ids="-".join)
def test_two_nests_have_no_meaning(pair):
    cell = WRAPS[pair[0]](WRAPS[pair[1]](rnn.LSTM(3)))
    with pytest.raises(ValueError, match=f"{pair[0]} needs"):
        cell.step(cell.init(KEY, 3), cell.init_state(cell.init(KEY, 3)), np.ones(3))


def test_inputs_of_another_rank():
    cell = EmitState(rnn.ConvLSTM(2, (3,), (5,)))
    assert cell.input_rank == 2
    params = cell.init(KEY, 3)
    final, states = rnn.unroll(cell, params, np.ones((4, 2, 5, 3)))
    assert_near(jax.tree.map(lambda s: s[-1], states), final, 0.0)
