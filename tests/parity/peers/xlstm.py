"""xlstm: sLSTM and mLSTM layers, blocks and a stack of blocks, step by step and as a sequence."""

import dataclasses

import jax

from jaxrnn import convert
from tests.parity.comparison import BATCH, TIME, Comparison, run_ours
from tests.parity.modules import through_module

SIZE, HEADS, INNER, BLOCK, WIDTH, FEED_FORWARD = 6, 2, 12, 4, 3, 8


def slstm(width=WIDTH):
    shapes = {f"{gate}gate.weight": (HEADS, SIZE // HEADS, SIZE // HEADS) for gate in "ifzo"}
    shapes |= {
        "slstm_cell._recurrent_kernel_": (HEADS, 4 * SIZE // HEADS, SIZE // HEADS),
        "slstm_cell._bias_": (4 * SIZE,),
        "group_norm.weight": (SIZE,),
    }
    if width:
        shapes |= {"conv1d.conv.weight": (SIZE, 1, width), "conv1d.conv.bias": (SIZE,)}
    return shapes


def mlstm(biased=False):
    shapes = {f"{k}_proj.weight": (INNER // BLOCK, BLOCK, BLOCK) for k in "qkv"}
    shapes |= {
        "proj_up.weight": (2 * INNER, SIZE),
        "proj_down.weight": (SIZE, INNER),
        "conv1d.conv.weight": (INNER, 1, WIDTH),
        "conv1d.conv.bias": (INNER,),
        "mlstm_cell.igate.weight": (HEADS, 3 * INNER),
        "mlstm_cell.igate.bias": (HEADS,),
        "mlstm_cell.fgate.weight": (HEADS, 3 * INNER),
        "mlstm_cell.fgate.bias": (HEADS,),
        "mlstm_cell.outnorm.weight": (INNER,),
        "learnable_skip": (INNER,),
    }
    if biased:
        shapes |= {f"{k}_proj.bias": (INNER,) for k in "qkv"}
        shapes |= {"proj_up.bias": (2 * INNER,), "proj_down.bias": (SIZE,)}
    return shapes


def block(layer, feed_forward=False):
    shapes = {"xlstm_norm.weight": (SIZE,)} | {f"xlstm.{n}": s for n, s in layer.items()}
    if feed_forward:
        shapes |= {
            "ffn_norm.weight": (SIZE,),
            "ffn.proj_up.weight": (2 * FEED_FORWARD, SIZE),
            "ffn.proj_down.weight": (SIZE, FEED_FORWARD),
        }
    return shapes


def stack():
    blocks = (block(mlstm()), block(slstm(), True), block(mlstm()))
    shapes = {f"blocks.{i}.{n}": s for i, own in enumerate(blocks) for n, s in own.items()}
    return shapes | {"post_blocks_norm.weight": (SIZE,)}


@dataclasses.dataclass(frozen=True)
class Config:
    shapes: dict
    make: str
    sequence: bool = False  # the module's forward instead of its steps
    width: int = WIDTH
    bias: bool = False
    activation: str = "gelu"
    tolerance: float = 1e-10


CONFIGS = {
    "slstm": Config(slstm(), "slstm_layer"),
    "slstm_sequence": Config(slstm(), "slstm_layer", sequence=True),
    "slstm_no_convolution": Config(slstm(0), "slstm_layer", width=0),
    "slstm_block": Config(block(slstm(), True), "slstm_block"),
    "slstm_block_relu2": Config(block(slstm(), True), "slstm_block", activation="relu^2"),
    "mlstm": Config(mlstm(), "mlstm_layer"),
    "mlstm_biased": Config(mlstm(True), "mlstm_layer", bias=True),
    # Its forward scales the denominator to which it adds 1e-6 in another way than its step.
    "mlstm_sequence": Config(mlstm(), "mlstm_layer", sequence=True, tolerance=1e-4),
    "mlstm_block": Config(block(mlstm()), "mlstm_block"),
    "stack": Config(stack(), "stack"),
}


def make(config):
    def module():
        import xlstm

        feed_forward = xlstm.FeedForwardConfig(
            proj_factor=1.3,
            round_proj_up_to_multiple_of=FEED_FORWARD,
            embedding_dim=SIZE,
            act_fn=config.activation,
        )
        s = xlstm.sLSTMLayerConfig(
            embedding_dim=SIZE,
            num_heads=HEADS,
            conv1d_kernel_size=config.width,
            backend="vanilla",
        )
        m = xlstm.mLSTMLayerConfig(
            embedding_dim=SIZE,
            num_heads=HEADS,
            conv1d_kernel_size=WIDTH,
            qkv_proj_blocksize=BLOCK,
            round_proj_up_to_multiple_of=INNER,
            context_length=TIME,
            bias=config.bias,
        )
        if config.make == "slstm_layer":
            return xlstm.sLSTMLayer(s)
        if config.make == "mlstm_layer":
            return xlstm.mLSTMLayer(m)
        s_block = xlstm.sLSTMBlockConfig(s, feed_forward, _num_blocks=1, _block_idx=0)
        m_block = xlstm.mLSTMBlockConfig(m, _num_blocks=1, _block_idx=0)
        if config.make == "slstm_block":
            return xlstm.sLSTMBlock(s_block)
        if config.make == "mlstm_block":
            return xlstm.mLSTMBlock(m_block)
        return xlstm.xLSTMBlockStack(
            xlstm.xLSTMBlockStackConfig(
                m_block, s_block, TIME, num_blocks=3, embedding_dim=SIZE, slstm_at=[1]
            )
        )

    return module


def run(config):
    def outputs(module, tensors):
        import torch

        xs = tensors["xs"].transpose(0, 1)
        if config.sequence:
            return {"ys": module(xs).transpose(0, 1)}
        state, ys = {}, []
        for x in xs.split(1, dim=1):
            options = {"state": state} if config.make == "stack" else state
            y, state = module.step(x, **options)
            ys.append(y[:, 0])
            if config.make == "stack":
                state = {name: kept(own) for name, own in state.items()}
            else:
                state = kept(state)
        last = {} if config.make == "stack" else state
        found = {"ys": torch.stack(ys)}
        if last.get("conv_state") is not None:
            found["window"] = last["conv_state"][0][:, 1:]
        if "slstm_state" in last:
            found |= dict(zip("hcnm", last["slstm_state"], strict=True))
        if "mlstm_state" in last:
            c, n, m = last["mlstm_state"]
            found |= {"c": c, "n": n[..., 0], "m": m[..., 0, 0]}
        return found

    return outputs


def kept(state):
    """The state of a layer, with a copy of the window that the package overwrites."""
    if state.get("conv_state") is None:
        return state
    return state | {"conv_state": (state["conv_state"][0].clone(),)}


def ours(config):
    def run(weights, inputs):
        network, params = convert.from_xlstm(weights, activation=config.activation)
        state = network.init_state(params, inputs["xs"].shape[1:-1])
        ys, final = run_ours(network, params, inputs["xs"], jax.tree.leaves(state))
        if config.sequence or config.make == "stack":
            return {"ys": ys}
        names = ("h", "c", "n", "m") if "slstm" in config.make else ("c", "n", "m")
        names = (("window",) if config.width else ()) + names
        return {"ys": ys, **dict(zip(names, final, strict=True))}

    return run


COMPARISONS = [
    Comparison(
        f"xlstm_{name}",
        ("torch", "xlstm"),
        config.shapes,
        {"xs": (TIME, BATCH, SIZE)},
        through_module(make(config), run(config)),
        ours(config),
        config.tolerance,
        1e-4,  # normalizations of few features amplify the rounding
    )
    for name, config in CONFIGS.items()
]
