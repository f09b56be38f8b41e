"""The benchmark times the workloads that it names, and its figures follow from its samples."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import main as benchmark
from experiments.benchmark import peers
from experiments.benchmark.peers import GATES, PASSES, PEERS, Contender, Workload, engines, plain
from experiments.benchmark.report import markdown
from experiments.benchmark.results import Entry, Row, Timing, summarise
from tests.support.helpers import on_four_devices

SMALL = Workload("lstm", time=5, batch=3, inputs=2, hidden=4)
INSTALLED = [name for name in PEERS if peers.installed(name)]


# The command --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, defaults, quick_turns):
    console = Console(file=io.StringIO(), width=150)
    config = benchmark.Config(
        grid="tiny",
        points=("1",),
        cells=("gru",),
        nets=("one-layer",),
        engines=("sequential",),
        peers=("scan", "by-hand"),
        rounds=2,
        matrix=32,
        out=tmp_path_factory.mktemp("benchmark"),
    )
    return benchmark.main(config, console), console.file.getvalue()


def test_every_contender_is_timed_or_explains_why_not(run):
    (row,) = run[0].rows
    assert [entry.title for entry in row.entries] == ["Sequential", "plain lax.scan"]
    assert row.refused == {"hoisted by hand": "has no gru of this form"}
    for entry in row.entries:
        for which in PASSES:
            timing = entry.timings[which]
            assert len(timing.samples) == 2 and min(timing.samples) > 0
            # Weights are arguments: constants would not count.
            weights, outputs = 3 * 8 * (4 + 8 + 1), (6 + 1) * 3 * 8
            assert timing.total_bytes - timing.temporary_bytes >= 4 * (weights + outputs)
            assert timing.compile_seconds > 0
            rate = row.workload.operations(which) / timing.median
            assert timing.share == pytest.approx(rate / row.matrix_rate[which])


def test_files_hold_the_measurements(run):
    result, _ = run
    written = json.loads((result.folder / "results.json").read_text())
    assert written["machine"]["versions"]["jax"] == jax.__version__
    assert written["machine"]["config"]["cells"] == ["gru"]
    for row, found in zip(result.rows, written["rows"], strict=True):
        assert found["work"] == dataclasses.asdict(row.workload)
        for entry, copy in zip(row.entries, found["entries"], strict=True):
            for which in PASSES:
                samples = np.array(copy[which]["samples_microseconds"])
                np.testing.assert_allclose(
                    samples, 1e6 * np.array(entry.timings[which].samples), rtol=0, atol=0.01
                )
    assert [line["value"] for line in written["summary"]] == [line.value for line in result.summary]
    assert (result.folder / "table.md").read_text() == markdown(result.rows)
    assert (result.folder / "times.png").read_bytes().startswith(b"\x89PNG")


def test_tables_are_printed(run):
    result, printed = run
    assert result.rows[0].workload.name in printed
    assert "hoisted by hand: has no gru of this form" in printed
    assert "× best JAX peer, LSTM and GRU" in printed


@dataclasses.dataclass(frozen=True)
class WrongGradient:
    """An engine with correct values, and gradients of which 1 % is wrong."""

    def why_not(self, cell, params, state, xs):
        return None

    def __call__(self, cell, params, state, xs, *, reverse=False):
        state, ys = rnn.engines.Sequential()(cell, params, state, xs, reverse=reverse)
        return state, ys + 0.01 * (ys - jax.lax.stop_gradient(ys))


def test_an_engine_with_a_wrong_gradient_is_not_timed(defaults):
    contender = engines.contender(WrongGradient())
    config = benchmark.Config(grid="tiny", rounds=1, matrix=8)
    message = r"WrongGradient, lstm.*, forward\+backward: .* got a difference of 1.0e-02"
    with pytest.raises(ArithmeticError, match=message):
        benchmark.measure(SMALL, [contender], config, Console(file=io.StringIO()))


def test_a_device_a_core():
    """Four devices, in a separate process: each computes its own rows of the batch."""
    done = on_four_devices("tests.support.spread_contenders")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "same_weights", "layers", "value", "message"),
    [
        ("jaxrnn", True, 3, 1.01, "expected the results of Sequential to 1e-04"),
        ("jax", True, 1, 1.01, "expected the results of Sequential to 1e-04"),
        ("jax", True, 3, 1.01, None),
        ("torch", False, 1, 1.01, None),
        ("torch", False, 1, np.nan, "expected finite results, got NaN or infinity"),
    ],
)
def test_results_are_checked(kind, same_weights, layers, value, message):
    contender = Contender("some", kind, lambda workload: None, None, same_weights)
    workload = dataclasses.replace(SMALL, layers=layers)
    arguments = workload, "forward", contender, [np.array([value])], [np.ones(1)]
    if message is None:
        benchmark.check(*arguments)
    else:
        with pytest.raises(ArithmeticError, match=message):
            benchmark.check(*arguments)


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


def workloads(grid, **options):
    return benchmark.Config(grid=grid, **options).workloads()


def test_grids():
    cpu = workloads("cpu")
    # Six sizes of five cells, and three layers and two directions of two cells at the first size.
    assert len(cpu) == len(set(cpu)) == 6 * 5 + 4
    assert sum(work.layers == 3 for work in cpu) == sum(work.bidirectional for work in cpu) == 2
    assert Workload("gru", 512, 8, 64, 128) in cpu
    gpu = workloads("gpu")
    # Ten sizes, two cells, two dtypes, with and without the input product; deeper ones with it.
    assert len(gpu) == 10 * 2 * 2 * 2 + 2 * 2 * 2
    published = Workload("lstm", 1024, 16, 768, 768, dtype="bfloat16", gates_given=True)
    assert published in gpu and dataclasses.replace(published, gates_given=False) in gpu
    assert all(work.final_only for work in workloads("memory"))
    chosen = workloads("cpu", points=("3", "9,8,7,6"), cells=("elman",), nets=("bidirectional",))
    assert [(work.time, work.hidden) for work in chosen] == [(100, 128), (9, 6)]
    assert all(work.cell == "elman" and work.bidirectional for work in chosen)
    assert {work.batch for work in workloads("gpu", scale=0.01)} == {1, 3}


def test_long_sequences_have_checkpoints_at_the_square_root_of_their_length():
    titles = [contender.title for contender in benchmark.Config(grid="memory").contenders()]
    assert "Hoisted(checkpoint_every=100)" in titles


def test_operations_are_those_of_the_products():
    assert SMALL.operations("forward") == 2 * 5 * 3 * (2 + 4) * 16
    assert SMALL.operations("forward+backward") == 3 * SMALL.operations("forward")
    given = dataclasses.replace(SMALL, gates_given=True)
    assert given.operations("forward") == 2 * 5 * 3 * 4 * 16
    deep = dataclasses.replace(SMALL, cell="gru", layers=2, bidirectional=True)
    assert deep.operations("forward") == 2 * (2 * 5 * 3 * 12) * ((2 + 4) + (8 + 4))


# The contenders -----------------------------------------------------------------------------------


def assert_equal(found, wanted):
    for value, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cell", GATES)
def test_plain_steps_and_cells_agree(cell):
    workload = dataclasses.replace(SMALL, cell=cell, dtype="float64")
    contender = engines.contender(rnn.engines.Sequential())
    with jax.enable_x64(True):
        scan, engine = plain.contender.build(workload), contender.build(workload)
        weights = scan.weights[0][0]
        wanted = jax.jit(engine.apply)(engine.weights, engine.state, engine.xs)
        assert_equal(jax.jit(scan.apply)(scan.weights, scan.state, scan.xs), wanted)
        if cell == "gru":
            given = contender.build(dataclasses.replace(workload, gates_given=True))
            gates = scan.xs @ weights.input_kernel + weights.bias
            rest = weights._replace(input_kernel=None, bias=None)
            assert_equal(jax.jit(given.apply)(rest, scan.state[0][0], gates), wanted)


def small_workload(name):
    """A workload that a peer supports: both directions of a GRU, except for the cells by hand."""
    if name == "by-hand":
        return dataclasses.replace(SMALL, cell="two-speed")
    cell = "reset-before-gru" if name == "haiku" else "gru"
    return dataclasses.replace(SMALL, cell=cell, batch=7, bidirectional=True)


@pytest.fixture(scope="module")
def networks(defaults):
    """Each peer's network, built once."""
    built = {}

    def build(name):
        if name not in built:
            built[name] = peers.load(name).build(small_workload(name))
        return built[name]

    return build


@pytest.mark.parametrize("name", INSTALLED)
def test_a_peer_differentiates_with_respect_to_everything(name, networks):
    if name == "cudnn" and jax.default_backend() != "gpu":
        assert peers.load(name).why_not(SMALL) == "needs a GPU"
        return
    workload = small_workload(name)
    gradients = networks(name).program("forward+backward").values()
    size = sum(value.size for value in gradients)
    directions, state = len(workload.directions), workload.batch * workload.hidden
    weights = 3 * workload.hidden * (workload.inputs + workload.hidden + 1)
    inputs = workload.time * workload.batch * workload.inputs
    least = directions * (weights + state) + inputs
    # Some have a second bias, of which only the candidate's part adds anything.
    assert least <= size <= least + directions * (3 * workload.hidden + state)
    assert all(np.isfinite(value).all() and np.abs(value).min() > 0 for value in gradients)


@pytest.mark.parametrize("name", [name for name in INSTALLED if name not in ("cudnn", "by-hand")])
def test_a_peer_runs_both_directions(name, networks):
    network, batch_first = networks(name), name == "keras"
    if name == "torch":
        run = pytest.importorskip("torch").no_grad()(lambda xs: network.module(xs, network.state))
        change = network.xs.clone()
        change[0] += 1.0
        first, moved = run(network.xs)[0].numpy(), run(change)[0].numpy()
    else:
        run = jax.jit(network.apply)
        change = network.xs.at[(slice(None), 0) if batch_first else 0].add(1.0)
        first, moved = (run(*network[2:4], xs)[1] for xs in (network.xs, change))
    change = np.abs(np.asarray(moved) - np.asarray(first))
    change = change.max(axis=0 if batch_first else 1)  # [time, hidden]
    forwards, backwards = np.split(change, 2, axis=-1)
    assert forwards.min() > 0, "the first input reaches every output"
    assert backwards[0].min() > 0 and backwards[1:].max() == 0, "in reverse only the first output"


# The figures --------------------------------------------------------------------------------------


def timing(*samples, compile_seconds=None, temporary=None):
    return Timing(samples, 0.25, compile_seconds, temporary, None)


def row(workload, *entries):
    both = [
        Entry(title, kind, dict.fromkeys(PASSES, measured)) for title, kind, measured in entries
    ]
    return Row(workload, tuple(both), {}, dict.fromkeys(PASSES, 1e9))


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
    long = rows[1].workload.name
    assert values["× the time of Sequential", long] == 1.5
    assert values["× less temporary memory", long] == 10.0
    assert values["× the compile time of Sequential", long] == pytest.approx(0.6)
    assert values["× its compile time in the first row", long] == pytest.approx(1.2)


def test_markdown():
    measured = row(
        SMALL,
        ("Auto", "jaxrnn", timing(0.001, 0.001, 0.1)),
        ("Flax", "jax", timing(0.0025, 0.0025, 0.25)),
        ("Flax, a device a core", "jax spread", timing(0.002, 0.002, 0.002)),
        ("PyTorch", "torch", timing(0.25, 0.25, 0.25)),
    )
    heading, _, line = markdown([measured]).splitlines()
    assert heading == (
        "| work | best JAX peer | the same, a device a core | PyTorch | by hand | Auto |"
    )
    assert line == (
        f"| {SMALL.name} | 2.5 / 2.5 (Flax) | 2 / 2 (Flax, a device a core) | 250 / 250 | – | "
        "1 / 1 (×2.00 / 2.00) |"
    )
