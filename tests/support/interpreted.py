"""`Fused` under Mosaic GPU's interpreter, which also finds races."""

import dataclasses
import importlib
from typing import Any

import jax

import jaxrnn as rnn

AVAILABLE = jax.__version_info__ >= (0, 11)


def races_found(mode: str = "cluster") -> bool:
    """Whether the kernels that were interpreted last had a race."""
    kind = "mosaic" if mode == "tpu" else "mosaic_gpu"
    module = f"jax._src.pallas.{kind}.interpret.interpret_pallas_call"  # not public
    found = importlib.import_module(module)
    return (found.races if mode == "tpu" else found.get_races()).races_found


@dataclasses.dataclass(frozen=True)
class Interpreted:
    """An engine: `Fused` in a cluster or on a TPU, interpreted with race detection."""

    units: int | None = None
    on_race: str | None = None  # "warn": JAX 0.12 would raise
    mode: str = "cluster"
    name: str = ""  # engines that differ in it are traced separately

    def why_not(self, cell, params, state, xs) -> str | None:
        return None

    def __call__(self, cell, params, state, xs, *, reverse: bool = False) -> Any:
        kind = "tpu" if self.mode == "tpu" else "mosaic_gpu"
        pallas = importlib.import_module(f"jax.experimental.pallas.{kind}")
        make = pallas.InterpretParams if kind == "tpu" else pallas.InterpretGPUParams
        options: Any = {"detect_races": True}
        options |= {} if self.on_race is None else {"on_race": self.on_race}
        engine = rnn.engines.Fused(self.units)
        return engine._run(cell, params, state, xs, reverse, self.mode, make(**options))
