"""Results of experiments: docs/data/experiments, one file for each run of a command.

    python -m docs.tools.experiments_data runs/char_lm/1a2b3c4d char_lm --picture curves.png
    python -m docs.tools.experiments_data runs/char_lm/5e6f7a8b char_lm.1 --busy

keeps the `results.json` of a run as `char_lm.json`, and a picture as docs/images/experiments/
char_lm.png, which holds the command and the date. Runs of further seeds are `char_lm.1.json` and so
on. `--busy` is for a machine with other work: the time of the run that is replaced stays.

A file that was not written by a command says in `measured` where its figures are from, and may have
`{"mean": ..., "std": ...}` instead of one number a seed. docs/data/published.json has the figures
of papers and other projects, to compare with.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from docs.tools.pages import DOCS

DATA, PUBLISHED = DOCS / "data" / "experiments", DOCS / "data" / "published.json"
PICTURES = DOCS / "images" / "experiments"
WIDTH, SIZE, COLORS = 1100, 100_000, (64, 32, 16)
"""The most pixels in a row and bytes of a picture, and its colors: as many as fit."""


class Figure(NamedTuple):
    """A figure over seeds, whose values may be known for some of them or for none.

    Its format has the precision, and a unit or "%": `.3f nats` or `.1%`, for the mean and the
    standard deviation. After "each" it is the format of every value.

    Example:
        >>> error = Figure.of([0.125, 0.25])
        >>> f"{error:.2f nats}, {error:.1%}, {error:each .3f}"
        '0.19 nats ± 0.09, 18.8 % ± 8.8, 0.125, 0.250'
    """

    mean: float
    std: float | None = None
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, found: Any) -> "Figure":
        """The figure of a number, a list with one number or null a seed, or a mean with `std`."""
        if isinstance(found, dict):
            return cls(found["mean"], found.get("std"))
        values = tuple(value for value in _as_list(found) if value is not None)
        if not values:
            raise ValueError("it has a value for no seed")
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std, values)

    def __format__(self, spec: str) -> str:
        if spec.startswith("each "):
            if not self.values:
                raise ValueError(f"only the mean is known, of the seeds of {self}")
            return ", ".join(format(Figure(value), spec[5:]) for value in self.values)
        precision, _, unit = spec.partition(" ")
        scale = 100 if precision.endswith("%") else 1
        shown = format(scale * self.mean, precision.replace("%", "f"))
        shown += " %" if scale == 100 else f" {unit}".rstrip()
        if self.std is None:
            return shown
        return f"{shown} ± {format(scale * self.std, precision.replace('%', 'f'))}"


class Results(Mapping[str, Figure]):
    """The figures of one row over all its seeds, and those of baselines.

    `results["loss"]` is a figure, and `results["linear autoregression/rmse"]` one of a baseline.

    Args:
        name: the name of the row.
        records: its runs, as in their files.
        published: figures of others, by method.
    """

    def __init__(self, name: str, records: Sequence[dict[str, Any]], published: dict[str, Any]):
        first = records[0]
        for record in records:
            if any(record[key] != first[key] for key in ("experiment", "options")):
                raise ValueError(f"{name}: the files have results of different commands")
            for figure, values in record["figures"].items():
                if isinstance(values, list) and len(values) != len(record["seeds"]):
                    raise ValueError(f"{name}: {figure!r} has not one number a seed")
        seeds = [seed for record in records for seed in record["seeds"]]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{name}: a seed occurs twice in {seeds}")
        self.name, self.records, self._found = name, records, {}
        for figure in first["figures"]:
            parts = [record["figures"][figure] for record in records]
            self._found[figure] = parts[0] if len(parts) == 1 else sum(map(_as_list, parts), [])
        for method, values in {**first["baselines"], **published}.items():
            self._found |= {f"{method}/{figure}": value for figure, value in values.items()}

    def __getitem__(self, figure: str) -> Figure:
        if figure not in self._found:
            raise ValueError(f"{self.name} has no figure {figure!r}, but {sorted(self._found)}")
        return Figure.of(self._found[figure])

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def machine(self) -> dict[str, Any]:
        """The machine of the first record."""
        return self.records[0]["machine"]

    @property
    def seconds(self) -> float | None:
        """The mean time of training of the runs, None if it was not measured."""
        known = [each["seconds"] for each in self.records if each["seconds"] is not None]
        return statistics.fmean(known) if known else None


def _as_list(values: Any) -> list[Any]:
    if isinstance(values, dict):
        raise ValueError(f"a mean of seeds cannot be joined with other seeds, got {values}")
    return values if isinstance(values, list) else [values]


def load(name: str, data: Path = DATA) -> Results:
    """The results of a row: `name.json`, and further seeds in `name.1.json` and so on."""
    paths = [data / f"{name}.json", *sorted(data.glob(f"{name}.*.json"))]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return Results(name, records, published.get(name, {}))


@dataclass(frozen=True)
class Config:
    """Keeps the results of a run."""

    run: tyro.conf.Positional[Path]
    """Output folder of the run."""
    name: tyro.conf.Positional[str]
    """Name of the kept file."""
    figures: bool = True
    """Whether to keep the results, and not only a picture."""
    picture: str | None = None
    """Picture of the run to keep."""
    busy: bool = False
    """Keep the time of the run that is replaced."""


def keep(config: Config, data: Path = DATA, pictures: Path = PICTURES) -> None:
    """Copies the results, and the picture with few colors."""
    found = json.loads((config.run / "results.json").read_text(encoding="utf-8"))
    if config.figures:
        path = data / f"{config.name}.json"
        if config.busy:
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            found["seconds"] = before.get("seconds")
            found["measured"] = "the machine had other work; seconds, if any, are of an earlier run"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if config.picture:
        image = Image.open(config.run / config.picture).convert("RGB")
        image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        pictures.mkdir(parents=True, exist_ok=True)
        facts = PngInfo()
        for name in ("command", "date"):
            facts.add_text(name, found["machine"][name])
        path = pictures / f"{config.name}.png"
        for colors in COLORS:
            image.quantize(colors).save(path, optimize=True, pnginfo=facts)
            if path.stat().st_size <= SIZE:
                break


if __name__ == "__main__":
    keep(tyro.cli(Config, description=__doc__))
