"""The experiment measures what it names, and writes the numbers that it measured."""

import functools
import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import parallel_in_time
from experiments.benchmark.parallel_report import PEER, Entry, Row
from experiments.benchmark.peers.scan_tree import ScanTree
from experiments.benchmark.timing import Program


@pytest.fixture(scope="module")
def run(tmp_path_factory, defaults, quick_turns):
    console = Console(file=io.StringIO(), width=200)
    config = parallel_in_time.Config(
        cells=("elman",),
        lengths=(32,),
        unrolls=(4,),
        rounds=2,
        seconds=0.0,
        driven=("elman",),
        scales=(0.5, 8.0),
        driven_hidden=8,
        driven_length=100,
        out=tmp_path_factory.mktemp("parallel"),
    )
    return parallel_in_time.main(config, console), console.file.getvalue()


def test_every_engine_is_timed_on_the_same_problem(run):
    rows = run[0].rows
    assert [(row.time, row.which) for row in rows] == [(32, "forward"), (32, "forward+backward")]
    for row in rows:
        titles = [entry.title for entry in row.entries]
        engines = ["Sequential(unroll=4)", "Hoisted(unroll=4)", "Newton", "Newton(quasi=True)"]
        assert titles == engines
        assert "Associative" in row.refused and PEER in row.refused  # not affine
        assert row.iterations is not None and row.iterations < 32
        for entry in row.entries:
            # Exact Jacobians leave far less than the tolerance of 2e-6 a state. The approximate
            # ones leave about as much as that, and the loss adds up all states.
            limit = 1e-4 if "quasi=True" in entry.title else 1e-5
            assert entry.error < limit and entry.milliseconds > 0 and entry.compile_seconds > 0


def test_iterations_are_counted(run):
    points = run[0].points
    assert [point.scale for point in points] == [0.5, 8.0]
    first = points[0]  # a kernel of half the spectral radius forgets
    assert first.exponent < 0 and first.iterations["Newton"] < first.iterations["damped by half"]


def test_files_hold_the_measurements(run):
    result, printed = run
    written = json.loads((result.folder / "results.json").read_text())
    for row, copy in zip(result.rows, written["rows"], strict=True):
        got = [(e["title"], e["milliseconds"]) for e in copy["entries"]]
        assert got == [(e.title, e.milliseconds) for e in row.entries]
    assert [p["exponent"] for p in written["points"]] == [p.exponent for p in result.points]
    assert "elman, 32×1×8×8" in printed and "times as fast" in printed
    for name in ("times.png", "iterations.png"):
        assert (result.folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_fastest_of_each_kind():
    def entry(title, milliseconds):
        return Entry(title, milliseconds, 0, 1.0, 0.0)

    entries = [("Sequential", 3.0), ("Hoisted", 2.0), ("Newton", 5.0), ("Associative", 4.0)]
    entries += [(PEER, 1.0)]
    row = Row("gru", 10, "10×1×8×8", "forward", tuple(entry(*e) for e in entries), {}, 3)
    assert row.sequential().title == "Hoisted" and row.parallel().title == "Associative"
    assert row._replace(entries=row.entries[:2]).parallel() is None
    rows = [row, row._replace(which="forward+backward")]
    table = parallel_in_time.report.problem_table(rows)
    assert "forward: Associative is 0.50 times as fast as Hoisted" in table.caption


@pytest.fixture
def stubs(monkeypatch):
    """Programs that are not compiled; Newton's run out of memory."""

    def exhausted():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    def compile_program(function, arguments, *, exact):
        newton = function.args[1] == rnn.engines.Newton()
        return Program(lambda: None, exhausted if newton else lambda: [np.ones(2)], 0.1, 10, 20)

    def interleave(runs, **options):
        return {title: [1.0, 2.0, 9.0] for title in runs}

    monkeypatch.setattr(parallel_in_time, "compile_program", compile_program)
    monkeypatch.setattr(parallel_in_time, "interleave", interleave)


def test_an_engine_that_runs_out_of_memory_is_left_out(tmp_path, stubs):
    console = Console(file=io.StringIO(), width=200)
    config = parallel_in_time.Config(
        cells=("elman",), lengths=(5,), driven=(), rounds=1, seconds=0.0, out=tmp_path
    )
    for row in parallel_in_time.main(config, console).rows:
        titles = [entry.title for entry in row.entries]
        assert "Sequential(unroll=8)" in titles and "Newton" not in titles
        assert all(entry.milliseconds == 2000 for entry in row.entries), "medians"
        assert row.refused["Newton"] == f"5×1×8×8, {row.which}: out of memory"
    assert "Newton: 5×1×8×8, forward: out of memory" in console.file.getvalue()


def test_the_tables_of_affine_cells(tmp_path, stubs):
    console = Console(file=io.StringIO(), width=200)
    config = parallel_in_time.Config(grid="affine", quick=True, out=tmp_path)
    check_affine(parallel_in_time.main(config, console))


@pytest.mark.thorough
def test_affine_cells(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    config = parallel_in_time.Config(grid="affine", quick=True, out=tmp_path)
    result = parallel_in_time.main(config, console)
    check_affine(result)
    assert all(entry.error < 1e-5 for row in result.rows for entry in row.entries)


def check_affine(result):
    assert not result.points and len(result.rows) == 4
    titles = ["Sequential", "Hoisted", "Associative"]
    for row, more in zip(result.rows, ([PEER], [PEER], [], []), strict=True):
        assert [entry.title for entry in row.entries] == titles + more
    table = (result.folder / "table.md").read_text(encoding="utf-8").splitlines()
    assert table[0] == "| work | " + " | ".join(f"`{title}`" for title in [*titles, PEER]) + " |"
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| LRU, 16×1×3×4",
        "| MLSTM, 2 heads, 16×2×3×4",
    ]
    assert all(line.count("**") == 4 and line.count("|") == 6 for line in table[2:])


@pytest.mark.parametrize(
    "cell", [rnn.LRU(3), rnn.GatedLinearAttention(4, num_heads=2)], ids=["LRU", "GLA"]
)
def test_the_peer_for_affine_cells_computes_the_same(cell):
    params, state, xs = parallel_in_time.Problem("", cell, 7, batch=2, inputs=2).draw(seed=0)
    state = jax.tree.map(lambda leaf: leaf + 0.3, state)

    @jax.jit
    def both_directions(*inputs):
        return [
            [engine(cell, *inputs, reverse=reverse) for reverse in (False, True)]
            for engine in (rnn.engines.Sequential(), ScanTree())
        ]

    for ours, theirs in zip(*map(jax.tree.leaves, both_directions(params, state, xs)), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=2e-6)


@pytest.mark.parametrize("cell", [rnn.Elman(3), rnn.LRU(3)], ids=["Elman", "LRU"])
def test_the_backward_pass_has_the_gradients_of_all_inputs(cell):
    """Forward mode agrees, along random directions: c (J d) = (Jᵀ c) d."""
    engine = rnn.engines.Sequential()
    inputs = parallel_in_time.Problem("", cell, 5, batch=1, inputs=2).draw(seed=0)
    forward = functools.partial(parallel_in_time.forward, cell, engine)
    directions = parallel_in_time.draw_like(inputs, seed=1)
    cotangents = parallel_in_time.draw_like(jax.eval_shape(forward, *inputs), seed=2)

    @jax.jit
    def both_modes(inputs, directions, cotangents):
        backward = parallel_in_time.backward(cell, engine, cotangents, *inputs)
        return jax.jvp(forward, inputs, directions), backward

    (want, change), (got, gradients) = both_modes(inputs, directions, cotangents)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, want)

    def product(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return sum((x * y).sum().real for x, y in pairs)

    along = product(cotangents, change)
    assert abs(along) > 0.1
    np.testing.assert_allclose(product(gradients, directions), along, rtol=1e-4)


@pytest.mark.parametrize(("cell", "gates"), [(rnn.Elman(100), 1), (rnn.GRU(100), 3)])
def test_scaled_kernels_have_the_spectral_radius(cell, gates):
    """Eigenvalues fill a disc evenly, so that their mean size is 2/3 of its radius. The largest
    differs by some tenths, as few of 100 lie near the edge.
    """
    params = jax.eval_shape(lambda key: cell.init(key, 2), jax.random.key(0))
    kernel = parallel_in_time.scaled(params, 3.0, seed=0).recurrent_kernel
    assert kernel.shape == params.recurrent_kernel.shape == (100, gates * 100)
    for gate in np.split(np.asarray(kernel), gates, axis=1):
        sizes = np.abs(np.linalg.eigvals(gate))
        assert sizes.mean() == pytest.approx(2 / 3 * 3.0, rel=0.05)
        assert sizes.max() == pytest.approx(3.0, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"lengths": ()}, "lengths must be at least 1 each"),
        ({"unrolls": (1, 0)}, "unrolls must be at least 1 each"),
        ({"driven_length": 3}, "driven_length must be at least 10, got 3"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        parallel_in_time.Config(**options)
