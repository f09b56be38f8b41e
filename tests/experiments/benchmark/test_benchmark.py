"""The benchmark times the work that it names, and its figures follow from its samples."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import grids
from experiments.benchmark import main as benchmark
from experiments.benchmark import peers as _peers
from experiments.benchmark import timing as _timing
from experiments.benchmark.peers import GATES, LISTED, PASSES, Work, by_hand, plain
from experiments.benchmark.peers.engines import Ours
from experiments.benchmark.report import markdown
from experiments.benchmark.results import Entry, Row, Timing, summarise
from tests.support.helpers import quick_jit

SMALL = Work("lstm", time=5, batch=3, inputs=2, hidden=4)
INSTALLED = [name for name in LISTED if _peers.installed(name)]


# The command --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, defaults):
    console = Console(file=io.StringIO(), width=150)
    config = benchmark.Config(
        grid="tiny",
        points=("1",),
        cells=("gru", "two-speed"),
        nets=("one-layer",),
        engines=("sequential",),
        peers=("scan", "by-hand"),
        rounds=2,
        matrix=32,
        out=tmp_path_factory.mktemp("benchmark"),
    )
    return benchmark.main(config, console), console.file.getvalue()


def test_every_contender_is_timed_or_says_why_not(run):
    gru, own = run[0].rows
    assert [entry.title for entry in gru.entries] == ["Sequential", "plain lax.scan"]
    assert gru.refused == {"hoisted by hand": "has no gru of this form"}
    assert len(own.entries) == 3 and not own.refused
    for row in run[0].rows:
        for entry in row.entries:
            for which in PASSES:
                timing = entry.timings[which]
                assert len(timing.samples) == 2 and min(timing.samples) > 0
                assert timing.compile_seconds > 0 and timing.total_bytes > timing.temporary_bytes
                rate = row.work.operations(which) / timing.median
                assert timing.share == pytest.approx(rate / row.matrix_rate[which])


def test_files_hold_what_was_measured(run):
    result, _ = run
    written = json.loads((result.folder / "results.json").read_text())
    assert written["machine"]["versions"]["jax"] == jax.__version__
    assert written["machine"]["config"]["cells"] == ["gru", "two-speed"]
    for row, found in zip(result.rows, written["rows"], strict=True):
        assert found["work"] == dataclasses.asdict(row.work)
        for entry, copy in zip(row.entries, found["entries"], strict=True):
            for which in PASSES:
                samples = np.array(copy[which]["samples_microseconds"])
                np.testing.assert_allclose(
                    samples, 1e6 * np.array(entry.timings[which].samples), 0.1
                )
    assert [line["value"] for line in written["summary"]] == [line.value for line in result.summary]
    assert (result.folder / "table.md").read_text() == markdown(result.rows)
    assert (result.folder / "times.png").read_bytes().startswith(b"\x89PNG")


def test_tables_are_printed(run):
    result, printed = run
    for row in result.rows:
        assert row.work.name in printed
    assert "hoisted by hand: has no gru of this form" in printed
    assert "× best JAX peer, LSTM and GRU" in printed


@dataclasses.dataclass(frozen=True)
class SlightlyWrong:
    def why_not(self, cell, params, state, xs):
        return None

    def __call__(self, cell, params, state, xs, *, reverse=False):
        state, ys = rnn.engines.Sequential()(cell, params, state, xs, reverse=reverse)
        return state, ys * 1.01


def test_a_wrong_engine_is_not_timed(defaults):
    named = benchmark.Named("wrong", "jaxrnn", Ours(SlightlyWrong()))
    config = benchmark.Config(grid="tiny", rounds=1, matrix=8)
    with pytest.raises(ArithmeticError, match="wrong, lstm.* differs from Sequential's by 1.0e-02"):
        benchmark.measure(SMALL, [named], config, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": ("7",)}, "points must be numbers from 1 to 6"),
        ({"points": ("1,2,3",)}, "got '1,2,3'"),
        ({"points": ("0,1,1,1",)}, "got '0,1,1,1'"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"scale": 0.0}, "scale must be greater than 0, got 0.0"),
        ({"seconds": float("nan")}, "seconds must be greater than 0, got nan"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        benchmark.Config(**options)


# What is measured ---------------------------------------------------------------------------------


def works(name, **options):
    grid = grids.GRIDS[name]
    points = options.pop("points", ())
    return grids.works(grid, sizes=grids.read_sizes(grid, points), **options)


def test_grids():
    cpu = works("cpu")
    # Six sizes of five cells, and three layers and two directions of two cells at the first size.
    assert len(cpu) == len(set(cpu)) == 6 * 5 + 4
    assert sum(work.layers == 3 for work in cpu) == sum(work.bidirectional for work in cpu) == 2
    assert Work("gru", 512, 8, 64, 128) in cpu
    gpu = works("gpu")
    # Ten sizes, two cells, two dtypes, with and without the input product; deeper ones with it.
    assert len(gpu) == 10 * 2 * 2 * 2 + 2 * 2 * 2
    published = Work("lstm", 1024, 16, 768, 768, dtype="bfloat16", gates_given=True)
    assert published in gpu and dataclasses.replace(published, gates_given=False) in gpu
    assert all(work.final_only for work in works("memory"))
    chosen = works("cpu", points=("3", "9,8,7,6"), cells=("elman",), nets=("bidirectional",))
    assert [(work.time, work.hidden) for work in chosen] == [(100, 128), (9, 6)]
    assert all(work.cell == "elman" and work.bidirectional for work in chosen)
    assert {work.batch for work in works("gpu", scale=0.01)} == {1, 3}


def test_long_sequences_are_checkpointed_at_their_square_root():
    if not hasattr(rnn.engines, "Hoisted"):
        pytest.skip("no engine with checkpoints")
    grid = grids.GRIDS["memory"]
    assert rnn.engines.Hoisted(checkpoint_every=100) in grids.usual_engines(grid, grid.sizes, 1.0)


def test_operations_are_those_of_the_products():
    assert SMALL.operations("forward") == 2 * 5 * 3 * (2 + 4) * 16
    assert SMALL.operations("forward+backward") == 3 * SMALL.operations("forward")
    given = dataclasses.replace(SMALL, gates_given=True)
    assert given.operations("forward") == 2 * 5 * 3 * 4 * 16
    deep = dataclasses.replace(SMALL, cell="gru", layers=2, bidirectional=True)
    assert deep.operations("forward") == 2 * (2 * 5 * 3 * 12) * ((2 + 4) + (8 + 4))


# The contenders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", GATES)
def test_plain_steps_and_cells_agree(cell):
    work = dataclasses.replace(SMALL, cell=cell, dtype="float64")
    with jax.enable_x64(True):
        scan = plain.build(work)
        engine = Ours(rnn.engines.Sequential()).build(work)
        wanted = quick_jit(engine.apply)(engine.weights, engine.state, engine.xs)
        found = quick_jit(scan.apply)(scan.weights, scan.state, scan.xs)
        for value, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(value, want, rtol=1e-12, atol=1e-14)
        if cell in ("lstm", "gru"):
            given = dataclasses.replace(work, gates_given=True)
            engine = Ours(rnn.engines.Sequential()).build(given)
            weights = scan.weights[0][0]
            zs = scan.xs @ weights.input_kernel + weights.bias
            behind = weights._replace(input_kernel=None, bias=None)
            found = quick_jit(engine.apply)(behind, scan.state[0][0], zs)
            for value, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
                np.testing.assert_allclose(value, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cell", by_hand.CELLS)
def test_derivatives_written_by_hand(cell):
    work = dataclasses.replace(SMALL, cell=cell)
    with jax.enable_x64(True):
        arguments = jax.tree.map(
            lambda leaf: leaf.astype("float64"),
            (*plain.draw(work, work.inputs), jnp.asarray(work.draw_inputs())),
        )

        def library(params, state, xs):
            engine = rnn.engines.Sequential()
            return rnn.unroll(plain.CELLS[cell](4), params, xs, state, engine=engine)

        # Weights of the final state, too: the benchmark's own loss leaves them out.
        cotangents = work.fill(jax.eval_shape(library, *arguments), "cotangent")

        def both(function):
            results, pull = jax.vjp(function, *arguments)
            return results, pull(cotangents)

        found = quick_jit(lambda: both(by_hand.CELLS[cell]))()
        wanted = quick_jit(lambda: both(library))()
        for value, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(value, want, rtol=1e-10, atol=1e-12)


def bidirectional(name):
    """A work for a peer: both directions of the GRU, or of what it has in its place."""
    if name == "by-hand":
        return dataclasses.replace(SMALL, cell="two-speed")
    cell = "reset-before-gru" if name == "haiku" else "gru"
    return dataclasses.replace(SMALL, cell=cell, bidirectional=True)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_peer_differentiates_with_respect_to_everything(name):
    peer = _peers.load(name)
    if name == "cudnn" and jax.default_backend() != "gpu":
        assert peer.why_not(SMALL) == "needs a GPU"
        return
    work = bidirectional(name)
    gradients = peer.build(work).program("forward+backward").values()
    size = sum(value.size for value in gradients)
    directions = len(work.directions)
    weights = 3 * work.hidden * (work.inputs + work.hidden + 1)
    least = directions * (weights + work.batch * work.hidden) + work.time * work.batch * work.inputs
    # Some have a second bias, of which only the candidate's part adds anything.
    assert least <= size <= least + directions * (3 * work.hidden + work.batch * work.hidden)
    assert all(np.isfinite(value).all() and np.abs(value).min() > 0 for value in gradients)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_peer_runs_both_directions(name):
    if name in ("cudnn", "by-hand"):
        pytest.skip("does not take this work here")
    work = bidirectional(name)
    network = _peers.load(name).build(work)
    first = outputs(network)
    if name == "torch":
        with pytest.importorskip("torch").no_grad():
            network.xs[0] += 1.0
    elif name == "keras":  # the batch comes first
        network = dataclasses.replace(network, xs=network.xs.at[:, 0].add(1.0))
    else:
        network = dataclasses.replace(network, xs=network.xs.at[0].add(1.0))
    moved = np.abs(outputs(network) - first)
    if name == "keras":
        moved = moved.swapaxes(0, 1)
    forwards, backwards = np.split(moved.max(axis=1), 2, axis=-1)  # [time, hidden]
    assert forwards.min() > 0, "the first input reaches every output"
    assert backwards[0].min() > 0 and backwards[1:].max() == 0, "and the last one only in reverse"


def outputs(network):
    return network.program("forward").values()[-1]


# The figures --------------------------------------------------------------------------------------


def test_turns_are_taken_in_rounds(monkeypatch):
    monkeypatch.setattr(_timing, "SETTLE", 0.0)
    monkeypatch.setattr(_timing, "TURN", 0.0)
    monkeypatch.setattr(_timing, "LONG", 0.0)  # no call before the timed one
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    samples = _timing.interleave(runs, rounds=7, seconds=60)
    assert {name: len(times) for name, times in samples.items()} == dict.fromkeys("abc", 7)
    turns = calls[6:]  # two calls each to warm up
    for begin in range(0, len(turns), 3):
        assert sorted(turns[begin : begin + 3]) == ["a", "b", "c"]
    assert len({tuple(turns[begin : begin + 3]) for begin in range(0, 21, 3)}) > 1


def test_no_round_begins_when_time_is_up(monkeypatch):
    monkeypatch.setattr(_timing, "SETTLE", 0.0)
    monkeypatch.setattr(_timing, "TURN", 0.0)
    samples = _timing.interleave({"a": lambda: None}, rounds=50, seconds=1e-9)
    assert len(samples["a"]) == _timing.FEWEST


def test_means_and_ratios():
    assert _timing.geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
    # The machine was three times slower in the second round; the ratio of medians would be 3.
    assert _timing.paired_ratio([2.0, 6.0, 6.0], [1.0, 3.0, 1.5]) == 2.0


def timing(*samples, compile_seconds=None, temporary=None):
    return Timing(samples, 0.25, compile_seconds, temporary, None)


def row(work, *entries):
    both = [
        Entry(title, kind, dict.fromkeys(PASSES, measured)) for title, kind, measured in entries
    ]
    return Row(work, tuple(both), {}, dict.fromkeys(PASSES, 1e9))


def test_summary():
    lstm, gru = SMALL, dataclasses.replace(SMALL, cell="gru", time=6)
    rows = [
        row(
            lstm,
            ("Auto", "jaxrnn", timing(1.0, 1.0, 1.0)),
            ("slow", "jax", timing(9.0, 9.0, 9.0)),
            ("fast", "jax", timing(2.0, 2.0, 2.0)),
            ("PyTorch", "torch", timing(0.5, 0.5, 0.5)),
        ),
        row(
            gru,
            ("Auto", "jaxrnn", timing(1.0, 1.0, 2.0)),
            ("fast", "jax", timing(8.0, 8.0, 8.0)),
        ),
    ]
    lines = {line.what: line for line in summarise(rows) if line.which == "forward"}
    peers = lines["× best JAX peer"]
    assert peers.value == pytest.approx(4.0) and peers.rows == 2
    assert peers.least == 2.0 and peers.where == lstm.name
    assert lines["× PyTorch LSTM"].value == 0.5
    assert "× PyTorch GRU and RNN" not in lines and "× hoisted by hand" not in lines
    assert lines["of the matrix rate"].where == lstm.name  # four gates for three: more work


def test_summary_of_long_sequences():
    rows = [
        row(
            dataclasses.replace(SMALL, final_only=True, time=time),
            ("Sequential", "jaxrnn", timing(2.0, compile_seconds=1.0, temporary=10 * time)),
            ("Other", "jaxrnn", timing(3.0, compile_seconds=0.5 * seconds, temporary=1000)),
        )
        for time, seconds in ((100, 1.0), (1000, 1.2))
    ]
    lines = [line for line in summarise(rows) if line.engine == "Other"]
    values = {(line.what, line.where): line.value for line in lines}
    long = rows[1].work.name
    assert values["× the time of Sequential", long] == 1.5
    assert values["× less temporary memory", long] == 10.0
    assert values["× the compile time of Sequential", long] == pytest.approx(0.6)
    assert values["× its compile time in the first row", long] == pytest.approx(1.2)


def test_markdown():
    measured = row(
        SMALL,
        ("Auto", "jaxrnn", timing(0.001)),
        ("Flax", "jax", timing(0.0025)),
        ("PyTorch", "torch", timing(0.25)),
    )
    heading, _, line = markdown([measured]).splitlines()
    assert heading == "| work | best JAX peer | PyTorch | by hand | Auto |"
    assert line == (f"| {SMALL.name} | 2.5 / 2.5 (Flax) | 250 / 250 | – | 1 / 1 (×2.50 / 2.50) |")
