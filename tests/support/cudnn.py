"""Stand-ins for what `jax.experimental.rnn` needs a GPU for."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import rnn as binding
from jax.interpreters import mlir
from jaxlib import gpu_rnn

from jaxrnn.engines import CuDNN


class Substituted(CuDNN):
    """The engine with a stand-in for cuDNN, in float64 too; see `substitute`."""

    _platform = "interpreted"
    _dtypes = (jnp.float32, jnp.float64)


class Lowered(CuDNN):
    """The engine, of which no program has been traced without `lower_anywhere`."""


KEPT = 7  # numbers that the stand-in keeps for the backward pass


def _results(x, h, c, weights, lengths, sizes):
    unpacked = binding.unpack_lstm_weights(weights, *sizes[:3], sizes[4])
    ys, h, c = binding.lstm_ref(x, h, c, *unpacked, lengths, *sizes[:5])
    # As in cuDNN, nothing is promised for a row of length 0, nor for outputs beyond a length.
    undefined = (lengths < 1)[:, None]
    beyond = jnp.arange(x.shape[1], dtype="int32") >= lengths[:, None]
    h, c = (jnp.where(undefined, jnp.nan, state) for state in (h, c))
    return jnp.where(beyond[..., None], jnp.nan, ys), h, c


def _forward(x, h, c, weights, lengths, **options):
    results = _results(x, h, c, weights, lengths, tuple(options.values()))
    return results, (x, h, c, weights, lengths, results[0], jnp.arange(KEPT, dtype="float32"))


def _backward(*args):
    *sizes, (x, h, c, weights, lengths, ys, kept), cotangents = args
    run = functools.partial(_results, lengths=lengths, sizes=tuple(sizes))
    given, pull = jax.vjp(run, x, h, c, weights)
    dx, *others = pull(cotangents)
    wrong = (jnp.abs(given[0] - ys) > 1e-5).any() | (jnp.isnan(ys) != jnp.isnan(given[0])).any()
    wrong |= (kept != jnp.arange(KEPT, dtype="float32")).any() | (lengths < 1).any()
    beyond = (jnp.arange(x.shape[1], dtype="int32") >= lengths[:, None])[..., None]
    others = [jnp.where(wrong, jnp.nan, other) for other in others]
    return jnp.where(beyond, jnp.nan, dx), *others, jnp.zeros_like(lengths)


def substitute(monkeypatch):
    """Runs JAX's reference, ``lstm_ref``, in place of cuDNN."""
    monkeypatch.setattr(binding, "lstm_fwd", _forward)
    monkeypatch.setattr(binding, "lstm_bwd", _backward)


class _Descriptors:
    """Writes the descriptor of a call as text."""

    NAMES = "inputs hidden layers batch time dropout bidirectional tf32 workspace kept".split()

    @classmethod
    def build_rnn_descriptor(cls, *values):
        return " ".join(f"{n}={v:g}" for n, v in zip(cls.NAMES, values, strict=True))


def lower_anywhere(monkeypatch):
    """Gives sizes and descriptors in place of the plugin and cuDNN, so that a program lowers."""
    name = "compute_rnn_workspace_reserve_space_sizes"
    monkeypatch.setattr(gpu_rnn, name, lambda *sizes: (5, KEPT), raising=False)
    for primitive, rule in (
        (binding.rnn_fwd_p, gpu_rnn._rnn_fwd_lowering),
        (binding.rnn_bwd_p, gpu_rnn._rnn_bwd_lowering),
    ):
        described = functools.partial(rule, _Descriptors, "cu")
        mlir.register_lowering(primitive, described, platform="cuda")
