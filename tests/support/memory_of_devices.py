"""Run in a separate process with four devices: the memory that docs/scaling.md says they hold."""

from typing import get_args

from docs.tools import memory_table
from docs.tools.pages import DOCS
from experiments.common.sharding import Shard


def main() -> None:
    page = (DOCS / "scaling.md").read_text("utf-8")
    for shard in get_args(Shard):
        held = [memory_table.measure(shard, devices).held for devices in memory_table.DEVICES]
        row = memory_table.held_columns(shard, held)
        assert row in page, f"{row} | ...: run python -m docs.tools.memory_table"


if __name__ == "__main__":
    main()
