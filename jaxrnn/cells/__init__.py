"""The cells: one family a file, the paper's equations and nothing else."""

from jaxrnn.cells.elman import Elman, ElmanParams, ElmanState
from jaxrnn.cells.gru import GRU, GRUParams, GRUState, ResetBeforeGRU, ResetBeforeGRUParams
from jaxrnn.cells.lstm import (
    LSTM,
    LSTMParams,
    LSTMState,
    PeepholeLSTM,
    PeepholeLSTMParams,
    ProjectedLSTM,
    ProjectedLSTMParams,
)

__all__ = [
    "GRU",
    "LSTM",
    "Elman",
    "ElmanParams",
    "ElmanState",
    "GRUParams",
    "GRUState",
    "LSTMParams",
    "LSTMState",
    "PeepholeLSTM",
    "PeepholeLSTMParams",
    "ProjectedLSTM",
    "ProjectedLSTMParams",
    "ResetBeforeGRU",
    "ResetBeforeGRUParams",
]
