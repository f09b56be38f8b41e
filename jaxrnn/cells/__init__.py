"""The cells: one family a file, the paper's equations and nothing else."""

from jaxrnn.cells.bistable import BRC, NBRC, BRCParams, NBRCParams
from jaxrnn.cells.clockwork import ClockworkRNN, ClockworkRNNParams, ClockworkRNNState
from jaxrnn.cells.elman import Elman, ElmanParams, ElmanState
from jaxrnn.cells.fast import FastGRNN, FastGRNNParams, FastRNN, FastRNNParams
from jaxrnn.cells.gru import GRU, GRUParams, GRUState, ResetBeforeGRU, ResetBeforeGRUParams
from jaxrnn.cells.jordan import Jordan, JordanParams, JordanState
from jaxrnn.cells.layer_norm import LayerNormLSTM, LayerNormLSTMParams, LightGRU, LightGRUParams
from jaxrnn.cells.lstm import (
    LSTM,
    LSTMParams,
    LSTMState,
    PeepholeLSTM,
    PeepholeLSTMParams,
    ProjectedLSTM,
    ProjectedLSTMParams,
)
from jaxrnn.cells.lstm_variants import (
    CoupledLSTM,
    CoupledLSTMParams,
    MultiplicativeLSTM,
    MultiplicativeLSTMParams,
)
from jaxrnn.cells.rectified import IRNN, IndRNN, IndRNNParams
from jaxrnn.cells.scrn import SCRN, SCRNParams, SCRNState
from jaxrnn.cells.single_gate import JANET, MinimalGatedUnit, SingleGateParams, UpdateGateRNN
from jaxrnn.cells.star import STAR, STARParams

__all__ = [
    "BRC",
    "GRU",
    "IRNN",
    "JANET",
    "LSTM",
    "NBRC",
    "SCRN",
    "STAR",
    "BRCParams",
    "ClockworkRNN",
    "ClockworkRNNParams",
    "ClockworkRNNState",
    "CoupledLSTM",
    "CoupledLSTMParams",
    "Elman",
    "ElmanParams",
    "ElmanState",
    "FastGRNN",
    "FastGRNNParams",
    "FastRNN",
    "FastRNNParams",
    "GRUParams",
    "GRUState",
    "IndRNN",
    "IndRNNParams",
    "Jordan",
    "JordanParams",
    "JordanState",
    "LSTMParams",
    "LSTMState",
    "LayerNormLSTM",
    "LayerNormLSTMParams",
    "LightGRU",
    "LightGRUParams",
    "MinimalGatedUnit",
    "MultiplicativeLSTM",
    "MultiplicativeLSTMParams",
    "NBRCParams",
    "PeepholeLSTM",
    "PeepholeLSTMParams",
    "ProjectedLSTM",
    "ProjectedLSTMParams",
    "ResetBeforeGRU",
    "ResetBeforeGRUParams",
    "SCRNParams",
    "SCRNState",
    "STARParams",
    "SingleGateParams",
    "UpdateGateRNN",
]
