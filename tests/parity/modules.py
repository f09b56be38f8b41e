"""PyTorch modules as peers: loads the weights, runs the module, and gives all gradients."""

import numpy as np


def through_module(make, run):
    """The peer's side of a comparison: ``make() -> module``, ``run(module, tensors) -> outputs``.

    Arrays that the weights lack keep the module's values; all that they hold must exist there.
    """

    def theirs(weights, inputs, cotangents):
        import torch

        module = make().to(getattr(torch, str(next(iter(weights.values())).dtype)))
        loaded = module.load_state_dict(
            {n: torch.tensor(np.array(a)) for n, a in weights.items()}, strict=False
        )
        assert not loaded.unexpected_keys, loaded.unexpected_keys
        tensors = {n: torch.tensor(a, requires_grad=a.dtype.kind == "f") for n, a in inputs.items()}
        outputs = run(module, tensors)
        chosen = cotangents({n: o.detach().numpy() for n, o in outputs.items()})
        sum((outputs[n] * torch.tensor(chosen[n])).sum() for n in outputs).backward()
        parameters = dict(module.named_parameters())
        gradients = {f"weights/{n}": parameters[n].grad.numpy() for n in weights}
        gradients |= {f"inputs/{n}": t.grad.numpy() for n, t in tensors.items() if t.requires_grad}
        return {n: o.detach().numpy() for n, o in outputs.items()}, gradients

    return theirs
