"""PyTorch's modules, cells and packed sequences: each attribute, against PyTorch itself."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import convert
from tests.convert.test_objects import peer, same

LENGTHS = (2, 5, 0 + 3)
RNG = np.random.default_rng(6)
XS = RNG.normal(size=(5, 3, 2))


def pack(torch, rows, **options):
    rows = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pack_sequence(rows, **options)


@pytest.mark.parametrize("lengths", [(2, 5, 3), (5, 3, 2)], ids=["unsorted", "sorted"])
def test_packed_sequences(lengths):
    torch = peer("torch")
    torch.manual_seed(0)
    module = torch.nn.GRU(2, 3, 2, bidirectional=True, dtype=torch.float64)
    rows = [XS[:n, i] for i, n in enumerate(lengths)]
    packed = pack(torch, rows, enforce_sorted=list(lengths) == sorted(lengths, reverse=True))
    wanted, final = module(packed)
    wanted, counts = torch.nn.utils.rnn.pad_packed_sequence(wanted)
    xs, found = convert.from_packed_sequence(packed)
    assert xs.dtype == jnp.float64 and found.dtype == np.int32
    np.testing.assert_array_equal(found, counts)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(xs[: len(row), i], row)
        assert not xs[len(row) :, i].any()
    state, ys = rnn_apply(convert.from_pytorch(module), xs, found)
    same(ys, wanted.detach())
    same(jnp.stack([leaf for leaf in jax.tree.leaves(state)]), final.detach())


def rnn_apply(converted, xs, lengths):
    net, params = converted
    return net.apply(params, None, xs, lengths=lengths)


@pytest.mark.parametrize("dtype", ["int64", "bfloat16", "float32"])
def test_packed_tokens_and_narrow_floats(dtype):
    torch = peer("torch")
    rows = [torch.arange(1, 1 + n).to(getattr(torch, dtype)) for n in (1, 4)]
    packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
    for x64, wanted in ((True, dtype), (False, "int32" if dtype == "int64" else dtype)):
        with jax.enable_x64(x64):
            xs, lengths = convert.from_packed_sequence(packed)
        assert xs.dtype == wanted and lengths.tolist() == [1, 4]
        assert xs.astype(int).T.tolist() == [[1, 0, 0, 0], [1, 2, 3, 4]]


def test_what_is_not_a_packed_sequence():
    torch = peer("torch")
    with pytest.raises(TypeError, match="must be a torch.nn.utils.rnn.PackedSequence, got ndarray"):
        convert.from_packed_sequence(XS)
    broken = torch.nn.utils.rnn.PackedSequence(torch.ones(4, 2), torch.tensor([2, 1]))
    with pytest.raises(ValueError, match=r"add up to the 4 steps of packed.data, got \[2, 1\]"):
        convert.from_packed_sequence(broken)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_over_time_from_a_state_and_back(kind):
    torch = peer("torch")
    torch.manual_seed(1)
    module = getattr(torch.nn, kind)(2, 3, dtype=torch.float64)
    cell, params = convert.from_pytorch(module)
    leaves = [RNG.normal(size=(3, 3)) for _ in range(2 if kind == "LSTMCell" else 1)]
    theirs = [torch.tensor(leaf) for leaf in leaves]
    wanted = []
    for x in XS:
        theirs = module(torch.tensor(x), tuple(theirs) if len(theirs) > 1 else theirs[0])
        theirs = list(theirs) if isinstance(theirs, tuple) else [theirs]
        wanted.append(theirs[0].detach().numpy())
    state = jax.tree.unflatten(
        jax.tree.structure(cell.init_state(params)), map(jnp.asarray, leaves)
    )
    final, ys = rnn.unroll(cell, params, XS, state)
    same(ys, wanted)
    for ours, leaf in zip(final, theirs, strict=True):
        same(ours, leaf.detach())
    fresh = getattr(torch.nn, kind)(2, 3, dtype=torch.float64)
    arrays = convert.to_pytorch(cell, params)
    fresh.load_state_dict({n.removesuffix("_l0"): torch.tensor(a) for n, a in arrays.items()})
    again = fresh(torch.tensor(XS[0]))
    same(rnn.unroll(cell, params, XS)[1][0], (again[0] if kind == "LSTMCell" else again).detach())


# A value other than the default for each attribute; the outputs must follow it.
CHANGES = {
    "input_size": None,
    "hidden_size": None,
    "device": None,
    "dtype": None,
    "num_layers": 2,
    "bias": False,
    "batch_first": True,
    "dropout": 0.5,
    "bidirectional": True,
    "nonlinearity": "relu",
    "proj_size": 1,
    "mode": None,
}


def kinds(torch):
    return [torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU]


def test_every_attribute_of_modules_changes_both_outputs_alike():
    torch = peer("torch")
    for kind in kinds(torch):
        names = {*inspect.signature(torch.nn.RNNBase.__init__).parameters, "nonlinearity"}
        assert names - {"self"} <= CHANGES.keys()
        for name, value in CHANGES.items():
            applies = (name != "nonlinearity" or kind is torch.nn.RNN) and (
                name != "proj_size" or kind is torch.nn.LSTM
            )
            if value is None or not applies:
                continue
            torch.manual_seed(2)
            options = {"num_layers": 2} | {name: value}
            module = kind(2, 3, dtype=torch.float64, **options).eval()
            xs = torch.tensor(XS.swapaxes(0, 1) if name == "batch_first" else XS)
            wanted = module(xs)[0].detach().numpy()
            net, params = convert.from_pytorch(module)
            if name == "dropout":
                assert net.dropout == 0.5
            _, ys = (
                net.apply(params, None, XS)
                if hasattr(net, "apply")
                else rnn.unroll(net, params, XS)
            )
            same(ys, wanted.swapaxes(0, 1) if name == "batch_first" else wanted)


def test_every_attribute_of_cells_changes_both_outputs_alike():
    torch = peer("torch")
    for kind, (name, value) in itertools.product(
        (torch.nn.RNNCell, torch.nn.LSTMCell, torch.nn.GRUCell),
        {"bias": False, "nonlinearity": "relu"}.items(),
    ):
        assert inspect.signature(kind.__init__).parameters.keys() - {"self"} <= CHANGES.keys()
        if name in inspect.signature(kind.__init__).parameters:
            torch.manual_seed(3)
            module = kind(2, 3, dtype=torch.float64, **{name: value})
            theirs = module(torch.tensor(XS[0]))
            theirs = theirs[0] if kind is torch.nn.LSTMCell else theirs
            cell, params = convert.from_pytorch(module)
            same(rnn.unroll(cell, params, XS)[1][0], theirs.detach())


def test_another_forward_is_refused():
    torch = peer("torch")

    class Negated(torch.nn.LSTM):
        def forward(self, xs):
            return super().forward(-xs)

    model = torch.nn.Sequential(Negated(2, 3))
    for source, prefix in ((model[0], ""), (model, "0.")):
        words = f"module under prefix='{prefix}' must be one of torch.nn's own, got Negated"
        with pytest.raises(TypeError, match=words):
            convert.from_pytorch(source, prefix=prefix)
    assert convert.from_pytorch(model[0].state_dict())[0] == rnn.LSTM(3)
