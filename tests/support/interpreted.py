"""`Fused` under Mosaic GPU's interpreter, which also finds races."""

import dataclasses
import importlib
from typing import Any

import jax

import jaxrnn as rnn

AVAILABLE = jax.__version_info__ >= (0, 11)


def races_found() -> bool:
    """Whether the kernels that were interpreted last had a race."""
    module = "jax._src.pallas.mosaic_gpu.interpret.interpret_pallas_call"  # not public
    return importlib.import_module(module).get_races().races_found


@dataclasses.dataclass(frozen=True)
class Interpreted:
    """An engine: `Fused` in a cluster, interpreted with race detection."""

    units: int | None = None
    on_race: str | None = None  # "warn": JAX 0.12 would raise
    name: str = ""  # engines that differ in it are traced separately

    def why_not(self, cell, params, state, xs) -> str | None:
        return None

    def __call__(self, cell, params, state, xs, *, reverse: bool = False) -> Any:
        import jax.experimental.pallas.mosaic_gpu as plgpu

        options: Any = {"detect_races": True}
        options |= {} if self.on_race is None else {"on_race": self.on_race}
        engine = rnn.engines.Fused(self.units)
        interpret = plgpu.InterpretGPUParams(**options)
        return engine._run(cell, params, state, xs, reverse, interpret=interpret, mode="cluster")
