"""The contract of every cell: structure, dtypes, batch axes, gradients, no retracing."""

import copy
import dataclasses
import functools
import inspect
import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import (
    CELLS,
    WRAPPERS,
    drawn_params,
    random_inputs,
    random_params,
    random_state,
)
from tests.support.helpers import assert_near, split, weighted_sum

ROUNDING = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 0.05}
PUBLIC = {name: kind for name, kind in vars(rnn.cells).items() if hasattr(kind, "init_state")}
AFFINE = [case for case in CELLS + WRAPPERS if rnn.is_affine(case.cell)]


@pytest.fixture(scope="module", params=CELLS + WRAPPERS, ids=str)
def case(request):
    return request.param


def describe(tree):
    """Structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def at(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def in_float64(tree):
    floats, join = split(tree)
    return join([x.astype("complex128" if jnp.iscomplexobj(x) else "float64") for x in floats])


@functools.cache
def steps(case):
    """One step in several batch shapes and dtypes, in one compilation."""
    cell = case.cell

    @jax.jit
    def run(work, lower):
        params, state, x = work
        mapped = jax.vmap(jax.vmap(cell.step, (None, 0, 0)), (None, 0, 0))
        return {
            "mapped": mapped(params, state, x),
            "two axes": cell.step(params, state, x),
            "no axis": cell.step(params, at(state, 0, 0), at(x, 0, 0)),
            "dtypes": {dtype: cell.step(*work) for dtype, work in lower.items()},
            "in float64": {dtype: cell.step(*in_float64(work)) for dtype, work in lower.items()},
        }

    work = random_params(case), random_state(case, (3, 2)), random_inputs(case, (3, 2))
    lower = {
        dtype: (
            random_params(case, dtype),
            random_state(case, (2,), dtype),
            random_inputs(case, (2,), dtype),
        )
        for dtype in case.dtypes
        if dtype != "float64"  # which the other results have
    }
    return run(work, lower), lower


def test_every_public_cell_and_its_capabilities_are_in_the_table():
    assert {type(case.cell).__name__ for case in CELLS} == set(PUBLIC)
    assert all(getattr(rnn, name) is kind for name, kind in PUBLIC.items())
    linear = {"GatedLinearAttention", "HGRN", "LRU", "MinGRU", "MinLSTM", "QRNN", "RGLRU"}
    linear |= {"S5", "SRU", "SelectiveSSM"}
    assert {str(case) for case in AFFINE} == linear
    chunked = {str(case) for case in CELLS if rnn.is_chunked(case.cell)}
    assert chunked == {"DeltaNet", "GatedDeltaNet", "GatedLinearAttention", "MLSTM"}


@pytest.mark.parametrize("kind", PUBLIC.values(), ids=PUBLIC)
def test_docstrings_are_complete(kind):
    """Equations, arguments, shapes, errors, an example, and a reference with title and year."""
    text = inspect.getdoc(kind) or ""
    sections = re.split(r"\n\n(\w+):\n", "\n\n" + text)
    named = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(named)[:5] == ["Args", "Shapes", "Raises", "Example", "References"]
    assert re.search(r"^    \S.* = ", sections[0], re.MULTILINE), "no equation"
    assert ">>> " in named["Example"]
    assert re.search(r'"\w[^"]+".*\b(19|20)\d\d\b', named["References"], re.DOTALL)
    for field in dataclasses.fields(kind):
        assert re.search(rf"^    {field.name}: ", named["Args"], re.MULTILINE), field.name
    for method in ("init", "init_state", "step"):
        assert getattr(kind, method).__doc__, method


def test_init_draws_finite_parameters_of_the_requested_dtype(case):
    init = functools.partial(case.cell.init, input_size=case.input_size)
    for dtype in case.dtypes:
        params = jax.eval_shape(functools.partial(init, dtype=dtype), jax.random.key(0))
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(params))
    first, other = (drawn_params(case, seed) for seed in (0, 1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))
    changed = jax.tree.map(lambda a, b: (a != b).any(), first, other)
    assert any(jax.tree.leaves(changed)), "init does not use its key"


@pytest.mark.thorough
def test_init_draws_finite_parameters_in_low_precision(case):
    params = case.cell.init(jax.random.key(0), case.input_size, case.dtypes[-1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(in_float64(params)))


@pytest.mark.parametrize("case", CELLS, ids=str)
def test_init_draws_as_many_parameters_as_the_paper(case):
    hidden = getattr(case.cell, case.size)
    for h, n in ((hidden, case.input_size), (2 * hidden, case.input_size + 2)):
        init = dataclasses.replace(case.cell, **{case.size: h}).init
        params = jax.eval_shape(functools.partial(init, input_size=n), jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == case.count(h, n)


def test_initial_states_are_finite_and_the_same_for_every_row(case):
    params = random_params(case)
    single = case.cell.init_state(params)
    want = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, 2, *leaf.shape)), single)
    assert_near(case.cell.init_state(params, (3, 2)), want, 0.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(single))


def test_step_keeps_structure_shapes_and_dtypes(case):
    results, work = steps(case)
    work = work | {"float64": (None, random_state(case, (3, 2)), random_inputs(case, (3, 2)))}
    for dtype, (_, state, x) in work.items():
        new_state, y = results["two axes"] if dtype == "float64" else results["dtypes"][dtype]
        assert describe(new_state) == describe(state)
        wide = "float32" if dtype == "bfloat16" else dtype
        assert all(jnp.finfo(leaf.dtype).dtype == wide for leaf in split(state)[0])
        if case in CELLS:  # a wrapper may give other outputs
            batch = (3, 2) if dtype == "float64" else (2,)
            space = jax.tree.leaves(x)[0].shape[len(batch) : -1]
            assert (y.shape, y.dtype) == ((*batch, *space, case.cell.output_size), dtype)


def test_low_precision_is_float64_rounded(case):
    results, _ = steps(case)
    for dtype, got in results["dtypes"].items():
        want = results["in float64"][dtype]
        assert_near(in_float64(got), in_float64(want), ROUNDING[dtype])


def test_batch_axes_are_vmap(case):
    results, _ = steps(case)
    mapped = results["mapped"]
    assert_near(results["two axes"], mapped, 1e-12)
    assert_near(results["no axis"], at(mapped, 0, 0), 1e-12)


@pytest.mark.parametrize("case", AFFINE, ids=str)
def test_affine_form_is_the_step(case):
    work = params, state, x = (
        random_params(case),
        random_state(case, (3, 2)),
        random_inputs(case, (3, 2)),
    )
    a, b = case.cell.affine(params, x)
    assert jax.tree.structure(a) == jax.tree.structure(b) == jax.tree.structure(state)
    new_state = jax.tree.map(lambda a, h, b: a * h + b, a, state, b)
    y = case.cell.readout(params, new_state, x)
    assert_near((new_state, y), case.cell.step(*work), 1e-12)


@pytest.mark.thorough
def test_jacobian_is_as_diagonal_as_the_table_says(case):
    """Perturbs one element of the state at a time."""
    params, state, x = random_params(case), random_state(case, ()), random_inputs(case, ())
    floats, join = split(state)
    sizes = [leaf.size for leaf in floats]

    @jax.jit
    @jax.vmap
    def moved(changes):
        parts = jnp.split(changes, np.cumsum(sizes)[:-1])
        near = [
            leaf + part.reshape(leaf.shape).astype(leaf.dtype)
            for leaf, part in zip(floats, parts, strict=True)
        ]
        new_state, _ = case.cell.step(params, join(near), x)
        return [leaf.reshape(-1) for leaf in split(new_state)[0]]

    size = sum(sizes)
    there = moved(jnp.concatenate([jnp.zeros((1, size)), 0.1 * jnp.eye(size)]))
    elsewhere = 0.0  # the largest influence of an element on another than its own
    for leaf in there:
        influence = np.abs(leaf[1:] - leaf[:1])  # [size, elements of this leaf]
        for block in np.split(influence, np.cumsum(sizes)[:-1]):  # of each old leaf
            others = ~np.eye(*block.shape, dtype=bool)
            elsewhere = max(elsewhere, block[others].max(initial=0))
    assert (elsewhere < 1e-12) if case.diagonal else (elsewhere > 1e-4)


def test_gradients_are_finite_differences(case):
    """Perturbs each leaf of parameters, inputs and initial state in its own direction."""
    work = random_params(case), random_state(case, (4,)), random_inputs(case, (3, 4))
    floats, join = split(work)
    rng = case.rng(2)

    def direction(leaf):
        real, imaginary = rng.normal(size=(2, *leaf.shape))
        return jnp.asarray(real + 1j * imaginary if jnp.iscomplexobj(leaf) else real, leaf.dtype)

    directions = [direction(leaf) for leaf in floats]

    def loss(floats):
        params, state, xs = join(floats)
        return weighted_sum(rnn.unroll(case.cell, params, xs, state))

    @jax.jit
    def both(floats, directions):
        grads = jax.grad(loss)(floats)
        exact = [(g * d).sum().real for g, d in zip(grads, directions, strict=True)]

        def along(moves):
            """The loss after a move of each leaf along its direction."""
            steps = [m.astype(d.dtype) * d for m, d in zip(moves, directions, strict=True)]
            near = [x + step for x, step in zip(floats, steps, strict=True)]
            return loss([x.astype(leaf.dtype) for x, leaf in zip(near, floats, strict=True)])

        far = 1e-4 * jnp.asarray([-2.0, -1.0, 1.0, 2.0])
        moves = far[:, None, None] * jnp.eye(len(floats))
        values = jax.vmap(jax.vmap(along))(moves)
        weights = jnp.asarray([1.0, -8.0, 8.0, -1.0]) / (12 * 1e-4)
        return jnp.stack(exact), weights @ values

    exact, differences = both(floats, directions)
    np.testing.assert_allclose(exact, differences, rtol=1e-7, atol=1e-7)
    assert np.all(exact != 0), "a leaf without effect"


def test_equal_cells_are_one(case):
    cell = case.cell
    twin = pickle.loads(pickle.dumps(cell))
    assert twin == cell and hash(twin) == hash(cell) and twin is not cell
    assert copy.deepcopy(cell) == cell
    assert repr(twin) == repr(cell) and repr(cell).startswith(type(cell).__name__ + "(")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cell, dataclasses.fields(cell)[0].name, None)
    work = random_params(case), random_state(case, (2,))
    chex.assert_trees_all_equal(pickle.loads(pickle.dumps(work)), work, strict=True)


def test_equal_cells_share_one_trace(case, monkeypatch):
    traces = []
    step = type(case.cell).step

    def counted(self, *args, **kwargs):
        traces.append(self)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(type(case.cell), "step", counted)
    work = random_params(case), random_inputs(case, (2, 7))

    def trace(cell):  # a new function each time, as eager calls are: only unroll can share
        before = len(traces)
        jax.eval_shape(lambda params, xs: rnn.unroll(cell, params, xs), *work)
        return len(traces) - before

    assert trace(case.cell) > 0
    assert trace(pickle.loads(pickle.dumps(case.cell))) == 0
