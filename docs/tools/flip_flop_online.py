"""The picture of the online flip-flop on docs/online_learning.md.

    python -m docs.tools.flip_flop_online --measure    learns by every rule and writes docs/data/
    python -m docs.tools.flip_flop_online              draws the picture from these data

The measurement is `experiments.flip_flop.online`: several minutes on two cores. Its results are
those that `docs.tools.experiments_data` keeps; here are the losses of all chunks too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from docs.tools.pages import DOCS, save_picture, write_section
from experiments.common.results import machine
from experiments.flip_flop import online

DATA, PAGE = DOCS / "data" / "flip_flop_online.json", DOCS / "online_learning.md"
PICTURE = DOCS / "images" / "flip_flop_online.svg"
MARK = "flip-flop"


def measure(config: online.Config, path: Path = DATA) -> None:
    """Runs the experiment and writes what the picture shows."""
    rules = [
        {
            "rule": result.rule,
            "bytes": result.nbytes,
            "losses": [[float(f"{loss:.4g}") for loss in seed] for seed in result.losses],
        }
        for result in online.main(config)
    ]
    own = {name: getattr(config, name) for name in ("hidden", "rows", "steps", "chunk")}
    content = {"machine": machine(), "config": own, "rules": rules}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def make_section(found: dict[str, Any]) -> str:
    """What stands between the markers of the page."""
    config, machine = found["config"], found["machine"]
    steps, seeds = config["steps"], len(found["rules"][0]["losses"])
    return f"""![Squared error by steps, and at the end by memory](images/{PICTURE.name})

Left, the mean of {seeds} seeds; a GRU of {config["hidden"]} units, {config["rows"]} streams.
Right, that of the last {steps // 10:,} steps against the size of a learner's carry; for BPTT, of
the buffers that the gradient of a sequence needs.
`{machine["command"]}`, jax {machine["versions"]["jax"]}, {machine["date"]}."""


def write(data: Path = DATA, page: Path = PAGE, picture: Path = PICTURE) -> None:
    """Writes the section of the page, and draws the picture."""
    found = json.loads(data.read_text(encoding="utf-8"))
    results = [
        online.Learned(row["rule"], np.array(row["losses"]), row["bytes"], 0.0)
        for row in found["rules"]
    ]
    write_section(page, MARK, make_section(found))
    save_picture(online.plot_rules(found["config"]["chunk"], results), picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="learn and measure first")
    if parser.parse_args().measure:
        measure(online.Config())
    write()
