"""All comparisons with peers."""

from tests.parity.peers import cudnn, equinox, haiku, keras, linen, nnx, onnx, pytorch

COMPARISONS = [
    comparison
    for peer in (pytorch, keras, linen, nnx, haiku, equinox, onnx, cudnn)
    for comparison in peer.COMPARISONS
]
