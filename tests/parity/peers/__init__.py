"""All comparisons with peers."""

from tests.parity.peers import (
    cudnn,
    equinox,
    haiku,
    keras,
    linen,
    memax,
    mingru,
    nnx,
    onnx,
    pytorch,
    recurrentgemma,
    torchrecurrent,
    xlstm,
)

FRAMEWORKS = (pytorch, keras, linen, nnx, haiku, equinox, onnx, cudnn)
TRAINED = (torchrecurrent, mingru, memax, xlstm, recurrentgemma)

COMPARISONS = [comparison for peer in FRAMEWORKS + TRAINED for comparison in peer.COMPARISONS]
