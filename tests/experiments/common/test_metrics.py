"""Metrics: JSON lines and curves."""

from experiments.common.metrics import Log, plot_curves


def test_an_incomplete_line_is_skipped_and_truncated(tmp_path):
    log = Log(tmp_path / "metrics.jsonl")
    assert log.read() == []
    log.append(1, {"loss": 2.0})
    log.append(2, {"loss": 1.5})
    with log.path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert log.read() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
    log.truncate(1)
    log.append(2, {"loss": 1.25})
    assert log.path.read_text() == '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.25}\n'


def test_curves_of_no_lines_are_plotted(tmp_path):
    plot_curves(tmp_path / "a.png", [], "nothing", "nats")
    assert (tmp_path / "a.png").stat().st_size > 1000
