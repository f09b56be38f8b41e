"""The tables and the plot of docs/online_learning.md, from the measurements in docs/data.

python -m experiments.benchmark.learning_rules    measures; about two minutes on two cores
cp runs/learning_rules/results.json docs/data/learning_rules.json
python -m docs.tools.learning_rules_table         writes both tables and the plot
"""

import json
from pathlib import Path
from typing import Any

from docs.tools.pages import DOCS, save_picture, write_section
from experiments.benchmark.learning_rules import Cost, Row, markdown, plot

DATA, PAGE = DOCS / "data" / "learning_rules.json", DOCS / "online_learning.md"
PICTURE = DOCS / "images" / "learning_rules.svg"
MARK = "measured"


def make_section(found: dict[str, Any]) -> str:
    """What stands between the markers of the page."""
    machine, config = found["machine"], found["config"]
    rules, cells = markdown(
        [Row(**row) for row in found["rows"]], [Cost(**cost) for cost in found["costs"]]
    ).split("\n\n")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("jax", "jaxlib"))
    where = f"{machine['processor']}, {machine['threads']} cores, {versions}, {machine['date']}"
    return f"""The gradient of a loss at every step of a stream, for one row in float32 and a GRU of
{config["hidden"]} units and {config["inputs"]} inputs. Memory is what the compiled program needs in
addition to its arguments and results. Medians of {config["rounds"]} interleaved rounds, on
{where}.

{rules}

![Time of a step and memory against the length of the stream](images/learning_rules.svg)

RTRL of cells with a diagonal Jacobian, of {config["diagonal"]} units and inputs: the operations of
the compiled `Online.step`, without and with `Online.gradient`, relative to those of the compiled
`cell.step`, which are a part of them.

{cells.strip()}"""


def write(data: Path = DATA, page: Path = PAGE, picture: Path = PICTURE) -> None:
    """Writes the section of the page, and draws the plot."""
    found = json.loads(data.read_text(encoding="utf-8"))
    write_section(page, MARK, make_section(found))
    save_picture(plot([Row(**row) for row in found["rows"]], found["machine"]), picture)


if __name__ == "__main__":
    write()
