"""Griffin's recurrent block and RG-LRU, of recurrentgemma and of transformers."""

import functools
import inspect

import jax
import numpy as np

from jaxrnn import convert
from tests.parity.comparison import BATCH, TIME, Comparison, run_ours
from tests.parity.modules import through_module

SIZE, HIDDEN, HEADS, WIDTH = 4, 6, 2, 3
STARTS = np.zeros((TIME, BATCH), bool)
STARTS[2, 1] = STARTS[3, 2] = True


def rg_lru(transformers):
    head = HIDDEN // HEADS
    if transformers:
        gates = {f"{k}_gate_weight": (HEADS, head, head) for k in ("input", "recurrent")}
        gates |= {f"{k}_gate_bias": (HEADS, head) for k in ("input", "recurrent")}
        return {"recurrent_param": (HIDDEN,)} | gates
    gates = {f"{k}_gate.w": (HEADS, head, head) for k in ("input", "a")}
    gates |= {f"{k}_gate.b": (HEADS, head) for k in ("input", "a")}
    return {"a_param": (HIDDEN,)} | gates


def block(transformers):
    shapes = {f"rg_lru.{n}": shape for n, shape in rg_lru(transformers).items()}
    shapes |= {f"linear_{k}.weight": (HIDDEN, SIZE) for k in "xy"}
    shapes |= {f"linear_{k}.bias": (HIDDEN,) for k in "xy"}
    shapes |= {"linear_out.weight": (SIZE, HIDDEN), "linear_out.bias": (SIZE,)}
    if transformers:
        return shapes | {"conv_1d.weight": (HIDDEN, 1, WIDTH), "conv_1d.bias": (HIDDEN,)}
    return shapes | {"conv_1d.w": (WIDTH, HIDDEN), "conv_1d.b": (HIDDEN,)}


def make_griffin(kind):
    def module():
        from recurrentgemma.torch import layers, modules

        # The package's scan in the dtype of the weights instead of float32.
        layers.rnn_scan = wide(inspect.unwrap(layers.rnn_scan))
        if kind == "rg_lru":
            return layers.RGLRU(HIDDEN, HEADS)
        return modules.RecurrentBlock(SIZE, HEADS, HIDDEN, WIDTH)

    return module


def wide(scan):
    @functools.wraps(scan)
    def run(x, a, reset, h0):
        return scan(x, a, reset, h0, x.dtype)

    return run


def make_transformers(kind):
    def module():
        from transformers import RecurrentGemmaConfig
        from transformers.models.recurrent_gemma import modeling_recurrent_gemma as package

        config = RecurrentGemmaConfig(
            hidden_size=SIZE, lru_width=HIDDEN, num_attention_heads=HEADS, conv1d_width=WIDTH
        )
        if kind == "rg_lru":
            made = package.RecurrentGemmaRglru(config)
            lru = made
        else:
            made = package.RecurrentGemmaRecurrentBlock(config, 0)
            lru = made.rg_lru
        scan = type(lru)._rnn_scan
        lru._rnn_scan = lambda hidden_states, **options: scan(
            lru, hidden_states, acc_dtype=hidden_states.dtype, **options
        )
        return made

    return module


def positions(starts):
    """The position of each step since the last start, batch-major."""
    import torch

    position, count = np.zeros(starts.shape, int), np.full(starts.shape[1], -1)
    for t, start in enumerate(starts):
        count = np.where(start, 0, count + 1)
        position[t] = count
    return torch.tensor(position.T)


def run_griffin(module, tensors):
    xs = tensors["xs"].transpose(0, 1)
    ys, cache = module(xs, positions(tensors["starts"].numpy()))
    if hasattr(cache, "rg_lru_state"):
        window, hidden = cache.conv1d_state, cache.rg_lru_state
        return {"ys": ys.transpose(0, 1), "window": window, "hidden": hidden}
    return {"ys": ys.transpose(0, 1), "hidden": cache}


def run_transformers(kind):
    def outputs(module, tensors):
        xs = tensors["xs"].transpose(0, 1)
        position = positions(tensors["starts"].numpy())
        if kind == "rg_lru":
            ys = module(xs, position)
            return {"ys": ys.transpose(0, 1), "hidden": module.recurrent_states}
        ys, _ = module(xs, position, None, use_cache=False)
        return {"ys": ys.transpose(0, 1), "hidden": module.rg_lru.recurrent_states}

    return outputs


def ours(with_window):
    def run(weights, inputs):
        network, params = convert.from_recurrentgemma(weights)
        state = network.init_state(params, inputs["xs"].shape[1:-1])
        options = {"starts": inputs["starts"]}
        ys, final = run_ours(network, params, inputs["xs"], jax.tree.leaves(state), **options)
        *window, hidden, _ = final
        outputs = {"ys": ys, "hidden": hidden}
        return outputs | ({"window": window[0]} if with_window else {})

    return run


def comparison(name, needs, shapes, make, run, window=False, starts=STARTS):
    return Comparison(
        name,
        needs,
        shapes,
        {"xs": (TIME, BATCH, SIZE if "block" in name else HIDDEN), "starts": starts},
        through_module(make, run),
        ours(window),
    )


GOOGLE, TRANSFORMERS = ("torch", "recurrentgemma.torch"), ("torch", "transformers")
NONE = np.zeros_like(STARTS)  # the convolution of transformers does not see starts
COMPARISONS = [
    comparison("recurrentgemma_rg_lru", GOOGLE, rg_lru(False), make_griffin("rg_lru"), run_griffin),
    comparison(
        "recurrentgemma_block", GOOGLE, block(False), make_griffin("block"), run_griffin, True
    ),
    comparison(
        "transformers_rg_lru",
        TRANSFORMERS,
        rg_lru(True),
        make_transformers("rg_lru"),
        run_transformers("rg_lru"),
    ),
    comparison(
        "transformers_block",
        TRANSFORMERS,
        block(True),
        make_transformers("block"),
        run_transformers("block"),
        starts=NONE,
    ),
]
