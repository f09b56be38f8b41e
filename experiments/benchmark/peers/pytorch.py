"""PyTorch: `torch.nn.LSTM`, `GRU` and `RNN`, time first, on all cores or on the GPU (cuDNN)."""

from dataclasses import dataclass
from typing import Any

import torch

from experiments.benchmark.peers.work import Pass, Work, refusal
from experiments.benchmark.timing import Program, cores

CELLS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}


@dataclass(frozen=True)
class TorchNetwork:
    """A module and what it is given, on their device."""

    work: Work
    module: torch.nn.Module
    state: Any
    xs: torch.Tensor

    def program(self, which: Pass) -> Program:
        """Nothing is compiled; forward alone, nothing is recorded for gradients."""
        once = self._forward if which == "forward" else self._gradients()
        on_gpu = self.xs.is_cuda

        def run():
            results = once()
            if on_gpu:
                torch.cuda.synchronize()
            return results

        def values():
            return [tensor.detach().float().cpu().numpy() for tensor in run()]

        total = None
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            run()
            total = torch.cuda.max_memory_allocated()
        return Program(run, values, total_bytes=total)

    def _forward(self):
        with torch.inference_mode():
            ys, final_state = self.module(self.xs, self.state)
        return *_tensors(final_state), ys

    def _gradients(self):
        wanted = [self.xs, *_tensors(self.state), *self.module.parameters()]
        for tensor in wanted:
            tensor.requires_grad_()

        def outputs():
            ys, final_state = self.module(self.xs, self.state)
            return _tensors(final_state) if self.work.final_only else (ys,)

        cotangents = [
            torch.as_tensor(self.work.draw(tuple(y.shape), f"cotangent {n}")).to(y)
            for n, y in enumerate(outputs())
        ]
        return lambda: torch.autograd.grad(outputs(), wanted, cotangents)


def _tensors(state: Any) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def why_not(work: Work) -> str | None:
    """Its cells only."""
    return refusal(work, CELLS)


def build(work: Work) -> TorchNetwork:
    """One module for all layers and directions."""
    torch.set_num_threads(cores())
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = work.tf32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, work.dtype)
    module = CELLS[work.cell](
        work.inputs, work.hidden, work.layers, bidirectional=work.bidirectional
    ).to(device, dtype)
    for n, parameter in enumerate(module.parameters()):
        parameter.data.copy_(torch.as_tensor(work.draw(tuple(parameter.shape), f"weights {n}")))
    shape = (work.layers * len(work.directions), work.batch, work.hidden)
    parts = [
        torch.as_tensor(work.draw(shape, f"state {n}")).to(device, dtype)
        for n in range(2 if work.cell == "lstm" else 1)
    ]
    state = tuple(parts) if work.cell == "lstm" else parts[0]
    return TorchNetwork(work, module, state, torch.as_tensor(work.draw_inputs()).to(device, dtype))
