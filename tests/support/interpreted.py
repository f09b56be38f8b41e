"""`Fused` under Pallas' interpreters, which also find races."""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax

import jaxrnn as rnn

AVAILABLE = jax.__version_info__ >= (0, 11)


@contextlib.contextmanager
def races(mode: str = "cluster") -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether a kernel that was interpreted within has a race.

    JAX itself forgets the races of a kernel when the next one starts: those of the forward pass
    when the backward pass does.
    """
    kind, file, name = {
        True: ("mosaic", "interpret_pallas_call", "RaceDetectionState"),
        False: ("mosaic_gpu", "gpu_callbacks", "GPURaceDetectionState"),
    }[mode == "tpu"]
    module = importlib.import_module(f"jax._src.pallas.{kind}.interpret.{file}")  # not public
    make, states = getattr(module, name), []

    def remember(*args, **options):
        states.append(make(*args, **options))
        return states[-1]

    with mock.patch.object(module, name, remember):
        yield lambda: any(state.races_found for state in states)


@dataclasses.dataclass(frozen=True)
class Interpreted:
    """An engine: `Fused` in a cluster or on a TPU, interpreted with race detection.

    Blocks that wait, and the program around them, occupy threads of XLA, of which there is one for
    each core unless PJRT_NPROC says more: with too few they wait for ever. conftest.py sets it.
    """

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
