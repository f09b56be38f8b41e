"""jaxrnn: recurrent networks for JAX. Write the textbook step; get the expert schedule.

A *cell* is a pure step function over a parameter pytree, written as its paper writes it. An
*engine* runs a cell over time, and finds the schedule that an expert would write by hand.

Example:
    >>> import jax, jaxrnn as rnn
    >>> cell = rnn.GRU(hidden_size=16)
    >>> params = cell.init(jax.random.key(0), input_size=4)
    >>> xs = jax.random.normal(jax.random.key(1), (50, 8, 4))  # [time, batch, features]
    >>> final_state, ys = rnn.unroll(cell, params, xs)
    >>> ys.shape
    (50, 8, 16)
"""

from jaxrnn import cells, engines, initializers, layers, wrappers
from jaxrnn._cell import AffineCell, Cell, ChunkedCell, FunctionCell, from_step
from jaxrnn._pack import Packed, pack
from jaxrnn._unroll import unroll
from jaxrnn.cells import (
    BRC,
    GRU,
    IRNN,
    JANET,
    LEM,
    LMU,
    LRU,
    LSTM,
    LTC,
    NBRC,
    S5,
    SCRN,
    SLSTM,
    STAR,
    AntisymmetricRNN,
    CfC,
    ClockworkRNN,
    ConvLSTM,
    CoRNN,
    CoupledLSTM,
    Elman,
    ElmanState,
    FastGRNN,
    FastRNN,
    GRUState,
    IndRNN,
    Jordan,
    LayerNormLSTM,
    LightGRU,
    LSTMState,
    MinimalGatedUnit,
    MultiplicativeLSTM,
    OrthogonalRNN,
    ParaGRU,
    ParaLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
    RecurrentHighway,
    ResetBeforeGRU,
    UnICORNN,
    UpdateGateRNN,
)

__all__ = [
    "BRC",
    "GRU",
    "IRNN",
    "JANET",
    "LEM",
    "LMU",
    "LRU",
    "LSTM",
    "LTC",
    "NBRC",
    "S5",
    "SCRN",
    "SLSTM",
    "STAR",
    "AffineCell",
    "AntisymmetricRNN",
    "Cell",
    "CfC",
    "ChunkedCell",
    "ClockworkRNN",
    "CoRNN",
    "ConvLSTM",
    "CoupledLSTM",
    "Elman",
    "ElmanState",
    "FastGRNN",
    "FastRNN",
    "FunctionCell",
    "GRUState",
    "IndRNN",
    "Jordan",
    "LSTMState",
    "LayerNormLSTM",
    "LightGRU",
    "MinimalGatedUnit",
    "MultiplicativeLSTM",
    "OrthogonalRNN",
    "Packed",
    "ParaGRU",
    "ParaLSTM",
    "PeepholeLSTM",
    "ProjectedLSTM",
    "RecurrentHighway",
    "ResetBeforeGRU",
    "UnICORNN",
    "UpdateGateRNN",
    "cells",
    "engines",
    "from_step",
    "initializers",
    "layers",
    "pack",
    "unroll",
    "wrappers",
]
