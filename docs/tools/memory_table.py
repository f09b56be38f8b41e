"""What a step of training keeps on each device: a table of docs/scaling.md, by the compiler.

python -m docs.tools.memory_table    writes the table of that page; nothing is trained
"""

import string
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import jax
import numpy as np

from docs.tools.pages import DOCS, write_section
from experiments.char_lm.data import Corpus
from experiments.char_lm.train import Config, make_model, make_task
from experiments.common import sharding
from experiments.common.errors import UserError
from experiments.common.step import init_state, jit_step

DEVICES = 1, 2, 4
CONFIG = Config(hidden=2048)
CORPUS = Corpus("", string.printable[:65], np.zeros(10_000, np.int32), np.zeros(1_000, np.int32))


class Memory(NamedTuple):
    """Bytes on one device."""

    held: int  # the state and a batch, between steps
    temporary: int  # during a step


def measure(shard: sharding.Shard, devices: int) -> Memory:
    """The memory of a step of `char_lm`, by `memory_analysis` of the compiled program."""
    options = replace(CONFIG.training, shard=shard)
    model = make_model(CONFIG, CORPUS)
    task = make_task(CONFIG, CORPUS, model)
    params = jax.eval_shape(model.init, jax.random.key(0))
    carry = jax.eval_shape(lambda params: model.init_state(params, CONFIG.batch), params)
    state = jax.eval_shape(lambda params, carry: init_state(params, carry, options), params, carry)
    mesh = sharding.make_mesh(devices, CONFIG.batch, _refuse)
    axes = task.batch_axes, task.carry_axes
    layout = None if mesh is None else sharding.make_layout(mesh, state, *axes, shard)
    step = jit_step(task.loss, options, layout)
    analysis = step.lower(state, task.batch(0), np.int32(0)).compile().memory_analysis()
    return Memory(analysis.argument_size_in_bytes, analysis.temp_size_in_bytes)


def make_table() -> str:
    """The table in Markdown."""
    lines = [
        "| `--shard` | held: 1 device | 2 | 4 | during a step: 1 device | 2 | 4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for shard in get_args(sharding.Shard):
        found = [measure(shard, devices) for devices in DEVICES]
        parts = [held_columns(shard, [memory.held for memory in found])]
        parts += [f"{memory.temporary / 1e6:,.0f} MB" for memory in found]
        lines.append(" | ".join(parts) + " |")
    return "\n".join(lines)


def held_columns(shard: sharding.Shard, held: list[int]) -> str:
    """The first columns of a row."""
    return " | ".join([f"| {shard}", *(f"{n / 1e6:,.0f} MB" for n in held)])


def write_table(page: Path = DOCS / "scaling.md") -> None:
    """Writes the table of the page."""
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    write_section(page, "memory", make_table())


def _refuse(message: str) -> None:
    raise UserError(message)


if __name__ == "__main__":
    write_table()
