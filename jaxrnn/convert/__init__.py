"""Weight conversion from and to other frameworks, which are imported only when needed."""

from jaxrnn.convert.cudnn import from_cudnn, to_cudnn
from jaxrnn.convert.equinox import from_equinox, to_equinox
from jaxrnn.convert.haiku import from_haiku, to_haiku
from jaxrnn.convert.keras import from_keras, to_keras
from jaxrnn.convert.linen import from_linen, to_linen
from jaxrnn.convert.memax import from_memax
from jaxrnn.convert.mingru import from_mingru
from jaxrnn.convert.nnx import from_nnx, to_nnx
from jaxrnn.convert.onnx import from_onnx, to_onnx
from jaxrnn.convert.pytorch import from_packed_sequence, from_pytorch, to_pytorch
from jaxrnn.convert.recurrentgemma import from_recurrentgemma
from jaxrnn.convert.tensorflow import tensorflow_variables
from jaxrnn.convert.torchrecurrent import from_torchrecurrent
from jaxrnn.convert.xlstm import from_xlstm

__all__ = [
    "from_cudnn",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_memax",
    "from_mingru",
    "from_nnx",
    "from_onnx",
    "from_packed_sequence",
    "from_pytorch",
    "from_recurrentgemma",
    "from_torchrecurrent",
    "from_xlstm",
    "tensorflow_variables",
    "to_cudnn",
    "to_equinox",
    "to_haiku",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_onnx",
    "to_pytorch",
]
