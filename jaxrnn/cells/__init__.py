"""The cells: one family a file, the paper's equations and nothing else."""

from jaxrnn.cells.antisymmetric import (
    AntisymmetricRNN,
    AntisymmetricRNNParams,
    AntisymmetricRNNState,
)
from jaxrnn.cells.bistable import BRC, NBRC, BRCParams, NBRCParams
from jaxrnn.cells.clockwork import ClockworkRNN, ClockworkRNNParams, ClockworkRNNState
from jaxrnn.cells.conv_lstm import (
    ConvLSTM,
    ConvLSTMParams,
)
from jaxrnn.cells.deltanet import (
    DeltaNet,
    DeltaNetParams,
    DeltaNetState,
    GatedDeltaNet,
    GatedDeltaNetParams,
)
from jaxrnn.cells.elman import Elman, ElmanParams, ElmanState
from jaxrnn.cells.fast import FastGRNN, FastGRNNParams, FastRNN, FastRNNParams
from jaxrnn.cells.gla import (
    GatedLinearAttention,
    GatedLinearAttentionParams,
    GatedLinearAttentionState,
)
from jaxrnn.cells.gru import GRU, GRUParams, GRUState, ResetBeforeGRU, ResetBeforeGRUParams
from jaxrnn.cells.hgrn import HGRN, HGRNParams, HGRNState, hgrn_lower_bounds
from jaxrnn.cells.jordan import Jordan, JordanParams, JordanState
from jaxrnn.cells.layer_norm import LayerNormLSTM, LayerNormLSTMParams, LightGRU, LightGRUParams
from jaxrnn.cells.lem import (
    LEM,
    LEMParams,
    LEMState,
)
from jaxrnn.cells.liquid import (
    LTC,
    CfC,
    CfCParams,
    LiquidState,
    LTCParams,
)
from jaxrnn.cells.lmu import (
    LMU,
    LMUParams,
    LMUState,
)
from jaxrnn.cells.lru import LRU, LRUParams, LRUState
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
from jaxrnn.cells.minrnn import MinGRU, MinGRUParams, MinLSTM, MinLSTMParams, MinState
from jaxrnn.cells.mlstm import MLSTM, MLSTMParams, MLSTMState
from jaxrnn.cells.orthogonal import (
    OrthogonalRNN,
    OrthogonalRNNParams,
    OrthogonalRNNState,
)
from jaxrnn.cells.oscillators import (
    CoRNN,
    CoRNNParams,
    OscillatorState,
    UnICORNN,
    UnICORNNParams,
)
from jaxrnn.cells.pararnn import (
    ParaGRU,
    ParaGRUParams,
    ParaLSTM,
    ParaLSTMParams,
)
from jaxrnn.cells.qrnn import QRNN, QRNNParams, QRNNState
from jaxrnn.cells.rectified import IRNN, IndRNN, IndRNNParams
from jaxrnn.cells.recurrent_highway import (
    RecurrentHighway,
    RecurrentHighwayParams,
    RecurrentHighwayState,
)
from jaxrnn.cells.rglru import RGLRU, RGLRUParams, RGLRUState
from jaxrnn.cells.s5 import S5, S5Params, S5State
from jaxrnn.cells.scrn import SCRN, SCRNParams, SCRNState
from jaxrnn.cells.selective_ssm import SelectiveSSM, SelectiveSSMParams, SelectiveSSMState
from jaxrnn.cells.single_gate import JANET, MinimalGatedUnit, SingleGateParams, UpdateGateRNN
from jaxrnn.cells.slstm import (
    SLSTM,
    SLSTMParams,
    SLSTMState,
)
from jaxrnn.cells.sru import SRU, PeepholeSRU, PeepholeSRUParams, SRUParams, SRUState
from jaxrnn.cells.star import STAR, STARParams

__all__ = [
    "BRC",
    "GRU",
    "HGRN",
    "IRNN",
    "JANET",
    "LEM",
    "LMU",
    "LRU",
    "LSTM",
    "LTC",
    "MLSTM",
    "NBRC",
    "QRNN",
    "RGLRU",
    "S5",
    "SCRN",
    "SLSTM",
    "SRU",
    "STAR",
    "AntisymmetricRNN",
    "AntisymmetricRNNParams",
    "AntisymmetricRNNState",
    "BRCParams",
    "CfC",
    "CfCParams",
    "ClockworkRNN",
    "ClockworkRNNParams",
    "ClockworkRNNState",
    "CoRNN",
    "CoRNNParams",
    "ConvLSTM",
    "ConvLSTMParams",
    "CoupledLSTM",
    "CoupledLSTMParams",
    "DeltaNet",
    "DeltaNetParams",
    "DeltaNetState",
    "Elman",
    "ElmanParams",
    "ElmanState",
    "FastGRNN",
    "FastGRNNParams",
    "FastRNN",
    "FastRNNParams",
    "GRUParams",
    "GRUState",
    "GatedDeltaNet",
    "GatedDeltaNetParams",
    "GatedLinearAttention",
    "GatedLinearAttentionParams",
    "GatedLinearAttentionState",
    "HGRNParams",
    "HGRNState",
    "IndRNN",
    "IndRNNParams",
    "Jordan",
    "JordanParams",
    "JordanState",
    "LEMParams",
    "LEMState",
    "LMUParams",
    "LMUState",
    "LRUParams",
    "LRUState",
    "LSTMParams",
    "LSTMState",
    "LTCParams",
    "LayerNormLSTM",
    "LayerNormLSTMParams",
    "LightGRU",
    "LightGRUParams",
    "LiquidState",
    "MLSTMParams",
    "MLSTMState",
    "MinGRU",
    "MinGRUParams",
    "MinLSTM",
    "MinLSTMParams",
    "MinState",
    "MinimalGatedUnit",
    "MultiplicativeLSTM",
    "MultiplicativeLSTMParams",
    "NBRCParams",
    "OrthogonalRNN",
    "OrthogonalRNNParams",
    "OrthogonalRNNState",
    "OscillatorState",
    "ParaGRU",
    "ParaGRUParams",
    "ParaLSTM",
    "ParaLSTMParams",
    "PeepholeLSTM",
    "PeepholeLSTMParams",
    "PeepholeSRU",
    "PeepholeSRUParams",
    "ProjectedLSTM",
    "ProjectedLSTMParams",
    "QRNNParams",
    "QRNNState",
    "RGLRUParams",
    "RGLRUState",
    "RecurrentHighway",
    "RecurrentHighwayParams",
    "RecurrentHighwayState",
    "ResetBeforeGRU",
    "ResetBeforeGRUParams",
    "S5Params",
    "S5State",
    "SCRNParams",
    "SCRNState",
    "SLSTMParams",
    "SLSTMState",
    "SRUParams",
    "SRUState",
    "STARParams",
    "SelectiveSSM",
    "SelectiveSSMParams",
    "SelectiveSSMState",
    "SingleGateParams",
    "UnICORNN",
    "UnICORNNParams",
    "UpdateGateRNN",
    "hgrn_lower_bounds",
]
