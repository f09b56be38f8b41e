"""What a run has written into results.json, as the tables of the documentation read it."""

import json
from pathlib import Path

from docs.tools.experiments_data import Results


def read_results(folder: Path) -> Results:
    """The figures of a run."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return Results(found["experiment"], [found], {})
