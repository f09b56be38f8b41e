"""PyTorch: `torch.nn.LSTM`, `GRU` and `RNN`, time first, on all cores or on the GPU (cuDNN)."""

from typing import Any, NamedTuple

import torch

from experiments.benchmark.peers.workload import Contender, Pass, Workload, supports
from experiments.benchmark.timing import Program
from experiments.common.processes import cores

CELLS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}


class TorchNetwork(NamedTuple):
    """A module, its initial state and its inputs, on their device."""

    workload: Workload
    module: torch.nn.Module
    state: Any
    xs: torch.Tensor

    def program(self, which: Pass) -> Program:
        """Prepares one pass, without compilation; forward alone runs in inference mode."""
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
            return _tensors(final_state) if self.workload.final_only else (ys,)

        cotangents = [
            torch.as_tensor(self.workload.draw(tuple(y.shape), f"cotangent {n}")).to(y)
            for n, y in enumerate(outputs())
        ]
        return lambda: torch.autograd.grad(outputs(), wanted, cotangents)


def _tensors(state: Any) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def build(workload: Workload) -> TorchNetwork:
    """One module for all layers and directions."""
    torch.set_num_threads(cores())
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = workload.tf32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, workload.dtype)
    module = CELLS[workload.cell](
        workload.inputs, workload.hidden, workload.layers, bidirectional=workload.bidirectional
    ).to(device, dtype)
    for n, parameter in enumerate(module.parameters()):
        parameter.data.copy_(torch.as_tensor(workload.draw(tuple(parameter.shape), f"weights {n}")))
    shape = (workload.layers * len(workload.directions), workload.batch, workload.hidden)
    parts = [
        torch.as_tensor(workload.draw(shape, f"state {n}")).to(device, dtype)
        for n in range(2 if workload.cell == "lstm" else 1)
    ]
    state = tuple(parts) if workload.cell == "lstm" else parts[0]
    xs = torch.as_tensor(workload.draw_inputs()).to(device, dtype)
    return TorchNetwork(workload, module, state, xs)


contender = Contender("PyTorch", "torch", supports(CELLS), build)
