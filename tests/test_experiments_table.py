"""The tables of experiments/README.md, from the figures of docs/data/experiments."""

import json
import re
import statistics

import pytest
from PIL import Image

from docs.tools import experiments_data, experiments_pictures, experiments_table
from docs.tools.experiments_data import DATA, PICTURES, Config, Figure, Results, keep, load
from docs.tools.pages import with_section

PAGE = experiments_table.PAGE.read_text(encoding="utf-8")


def record(seeds, baselines=None, experiment="toy", **figures):
    return {
        "experiment": experiment,
        "options": {"steps": 9},
        "seeds": seeds,
        "figures": figures,
        "baselines": baselines or {},
        "seconds": 60.0 * len(seeds),
        "machine": {"command": "python -m experiments.toy", "date": "2026-11-30"},
    }


# The page -----------------------------------------------------------------------------------------


def test_the_tables_are_those_of_the_data():
    written = PAGE
    for mark, text in experiments_table.tables().items():
        written = with_section(written, mark, text)
    assert written == PAGE, "run python -m docs.tools.experiments_table"


def test_every_file_has_a_row_and_every_row_a_file():
    assert {path.name.split(".")[0] for path in DATA.glob("*.json")} == {
        row.name for row in experiments_table.ROWS
    }


def test_every_file_has_a_command_and_says_where_its_figures_are_from():
    for path in DATA.glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["machine"]["command"].startswith("python -m experiments."), path.name
        name = found["experiment"]
        assert found["machine"]["command"].split()[2] == f"experiments.{name}", path.name
        written = {"date", "versions", "processor", "threads"} <= found["machine"].keys()
        assert written or "without date" in found["measured"], path.name
        assert not re.search(r"/(tmp|home|work|root)\b", path.read_text("utf-8")), path.name


def test_the_pictures_of_the_pages_are_those_that_are_there():
    for picture in experiments_pictures.ALL:
        page, mark = picture.page.read_text("utf-8"), f"picture of {picture.name}"
        made = with_section(page, mark, experiments_pictures.section(picture))
        assert made == page, "run python -m docs.tools.experiments_pictures"
    names = {picture.name for picture in experiments_pictures.ALL}
    for path in PICTURES.glob("*"):
        assert path.stem in names and path.stat().st_size <= experiments_data.SIZE, path.name


def test_a_figure_that_is_missing_is_an_error(tmp_path):
    for path in DATA.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), encoding="utf-8")
    experiments_table.tables(tmp_path)
    found = json.loads((tmp_path / "speech.json").read_text("utf-8"))
    del found["figures"]["fused"]
    (tmp_path / "speech.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ValueError, match="speech has no figure 'fused', but"):
        experiments_table.tables(tmp_path)
    (tmp_path / "speech.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"speech\.json"):
        experiments_table.tables(tmp_path)


# Figures ------------------------------------------------------------------------------------------


def test_the_mean_and_the_deviation_over_seeds():
    values = [0.248, 0.271, 0.271]
    figure = Results("toy", [record([0, 1, 2], rate=values)], {})["rate"]
    assert figure.mean == pytest.approx(sum(values) / 3)
    assert figure.std == pytest.approx(statistics.stdev(values))
    assert f"{figure:.1%}" == "26.3 % ± 1.3"
    assert f"{figure:.2f nats}" == "0.26 nats ± 0.01"
    assert f"{figure:each .1%}" == "24.8 %, 27.1 %, 27.1 %"


def test_one_seed_has_no_deviation():
    found = Results("toy", [record([5], rate=[0.5], count=3)], {})
    assert f"{found['rate']:.1f}" == "0.5" and found["rate"].std is None
    assert f"{found['count']:.0f}" == "3"


def test_a_figure_of_some_seeds_has_their_mean():
    figure = Results("toy", [record([0, 1, 2], bleu=[None, 2.0, 4.0])], {})["bleu"]
    assert figure.mean == 3 and figure.values == (2.0, 4.0)
    with pytest.raises(ValueError, match="for no seed"):
        Figure.of([None])


def test_a_mean_that_is_all_that_is_known():
    found = Results("toy", [record([0, 1, 2], loss={"mean": 1.508, "std": 0.007})], {})
    assert f"{found['loss']:.3f nats}" == "1.508 nats ± 0.007"
    with pytest.raises(ValueError, match="only the mean is known"):
        format(found["loss"], "each .3f")


def test_the_seeds_of_several_runs_are_joined(tmp_path):
    for name, seed, loss in (("toy", 0, 1.0), ("toy.1", 1, 2.0), ("toy_strong", 0, 9.0)):
        content = json.dumps(record([seed], {"mean": {"loss": 5.0}}, loss=[loss]))
        (tmp_path / f"{name}.json").write_text(content)
    found = load("toy", tmp_path)
    assert found["loss"].values == (1.0, 2.0) and found["mean/loss"].mean == 5
    assert found.seconds == 60 and len(load("toy_strong", tmp_path).records) == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record([0], a=[1]), record([0], a=[2])], r"a seed occurs twice in \[0, 0\]"),
        ([record([0], a=[1]), record([1], experiment="other", a=[2])], "different commands"),
        ([record([0, 1], a=[1])], "'a' has not one number a seed"),
        ([record([0], a={"mean": 1}), record([1], a=[2])], "cannot be joined"),
    ],
)
def test_files_that_do_not_fit_are_named(records, message):
    with pytest.raises(ValueError, match=message):
        Results("toy", records, {})


def test_durations():
    seconds = (44, 157, 60, 301, 3600, None)
    shown = [experiments_table.duration(each) for each in seconds]
    assert shown == ["44 s", "2 min 37 s", "1 min", "5 min", "60 min", "–"]


# Keeping a run ------------------------------------------------------------------------------------


def test_a_run_is_kept_with_a_small_picture(tmp_path):
    run, data, pictures = (tmp_path / name for name in ("run", "data", "pictures"))
    run.mkdir()
    data.mkdir()
    (run / "results.json").write_text(json.dumps(record([0], loss=[1.5])))
    Image.effect_noise((2000, 1000), 40).convert("RGB").save(run / "curves.png")
    keep(Config(run, "toy", picture="curves.png"), data, pictures)
    assert load("toy", data)["loss"].mean == 1.5 and load("toy", data).seconds == 60
    kept = Image.open(pictures / "toy.png")
    assert kept.size == (experiments_data.WIDTH, experiments_data.WIDTH // 2)
    assert len(kept.getcolors()) == min(experiments_data.COLORS)  # of noise, none fit
    assert (pictures / "toy.png").stat().st_size > experiments_data.SIZE
    Image.effect_noise((200, 100), 40).convert("RGB").save(run / "curves.png")
    keep(Config(run, "toy", picture="curves.png"), data, pictures)
    kept = Image.open(pictures / "toy.png")
    assert min(experiments_data.COLORS) < len(kept.getcolors()) <= max(experiments_data.COLORS)
    drawn = experiments_pictures.ALL[0]._replace(name="toy")
    text = experiments_pictures.section(drawn, pictures)
    assert text.endswith(f"{drawn.text} `python -m experiments.toy`, 2026-11-30.")
    assert experiments_pictures.section(drawn._replace(name="none"), pictures) == ""
    before = json.loads((data / "toy.json").read_text()) | {"seconds": 44}
    (data / "toy.json").write_text(json.dumps(before))
    keep(Config(run, "toy", busy=True), data, pictures)
    assert load("toy", data).seconds == 44
    assert "other work" in load("toy", data).records[0]["measured"]
    keep(Config(run, "other", busy=True), data, pictures)
    assert load("other", data).seconds is None
    keep(Config(run, "seen", figures=False, picture="curves.png"), data, pictures)
    assert (pictures / "seen.png").is_file() and not (data / "seen.json").exists()
