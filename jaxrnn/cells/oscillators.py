"""Recurrent networks of oscillators: positions y and velocities z, by symplectic Euler steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_positive, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros


class CoRNNParams(NamedTuple):
    """Parameters of `CoRNN`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [2 * hidden, hidden]; rows for y, then for z
    bias: Array  # [hidden]


class UnICORNNParams(NamedTuple):
    """Parameters of `UnICORNN`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [hidden], the diagonal of a kernel
    bias: Array  # [hidden]
    control: Array  # [hidden], c, which sets each unit's time step


class OscillatorState(NamedTuple):
    """State of `CoRNN` and `UnICORNN`."""

    hidden: Array  # [*batch, hidden], y
    velocity: Array  # [*batch, hidden], z


@frozen
class CoRNN:
    """The coupled oscillatory recurrent network: coupled, damped and driven oscillators.

        z' = z + Δt (tanh(x V + b + y W + z 𝒲) - γ y - ε z)
        y' = y + Δt z'

    A time step of y'' = tanh(x V + b + y W + y' 𝒲) - γ y - ε y'; gradients stay bounded for small
    Δt.

    Args:
        hidden_size: features of y, of z and of the output.
        time_step: Δt.
        frequency: γ, the square of the natural frequency of each oscillator.
        damping: ε.
        kernel_init: initializer of V; default: uniform in ±1/√hidden.
        recurrent_init: initializer of W and of 𝒲, drawn separately; default: uniform in ±1/√hidden.
        bias_init: initializer of b as ``[1, hidden]``; default: uniform in ±1/√hidden.

    Shapes:
        x ``[*batch, input]``, state ``OscillatorState(hidden, velocity)``, both
        ``[*batch, hidden]``, y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int; ``time_step``, ``frequency``
            or ``damping`` is not positive.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.CoRNN(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> bool((final.hidden == ys[-1]).all())
        True

    References:
        T. K. Rusch and S. Mishra, "Coupled oscillatory recurrent neural network (coRNN): an
        accurate and (gradient) stable architecture for learning long time dependencies", 2021.
        Code of the authors: tk-rusch/coRNN, adding/model.py.

    Note:
        The damping acts on the old z, as in the authors' code; the paper also allows the new one.
        The defaults of Δt, γ and ε are the authors' for sequential MNIST. Their initial weights are
        uniform in ±1/√(input + 2 hidden).
    """

    hidden_size: int
    time_step: float = 0.042
    frequency: float = 2.7
    damping: float = 4.7
    kernel_init: Initializer = initializers.PyTorchUniform()
    recurrent_init: Initializer = initializers.PyTorchUniform()
    bias_init: Initializer = initializers.PyTorchUniform()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        for name in ("time_step", "frequency", "damping"):
            check_positive(name, getattr(self, name))

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> CoRNNParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 4)
        hidden = self.hidden_size
        return CoRNNParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 1, dtype),
            jnp.concatenate([self.recurrent_init(k, (hidden, hidden), dtype) for k in keys[1:3]]),
            packed_bias(self.bias_init, keys[3], hidden, 1, dtype),
        )

    def init_state(self, params: CoRNNParams, batch_shape: tuple[int, ...] = ()) -> OscillatorState:
        """Returns zeros: all oscillators at rest."""
        return OscillatorState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(
        self, params: CoRNNParams, state: OscillatorState, x: Array
    ) -> tuple[OscillatorState, Array]:
        """One step of the equations above."""
        y, z = state
        from_input = product(x, params.input_kernel) + widen(params.bias)
        from_state = product(jnp.concatenate([y, z], axis=-1), params.recurrent_kernel)
        force = jnp.tanh(from_input + from_state) - self.frequency * y - self.damping * z
        z = z + self.time_step * force
        y = y + self.time_step * z
        return OscillatorState(y, z), y.astype(params.bias.dtype)


@frozen
class UnICORNN:
    """The undamped independent controlled oscillatory recurrent network: one of its layers.

        d = Δt σ(c)
        z' = z - d (tanh(x V + b + w y) + α y)
        y' = y + d z'

    The oscillators are independent: the Jacobian of a step has one 2×2 block per unit, of
    determinant 1, so that a step is invertible. Units mix between the layers of a stack.

    Args:
        hidden_size: features of y, of z and of the output.
        time_step: Δt, the longest time step; each unit learns a fraction σ(c) of it.
        alpha: α, the square of the natural frequency of all units; may be 0.
        kernel_init: initializer of V; default: Glorot uniform.
        recurrent_init: initializer of w as ``[1, hidden]``; default: uniform in [0, 1).
        bias_init: initializer of b as ``[1, hidden]``; default: zeros.
        control_init: initializer of c as ``[1, hidden]``; default: uniform in ±0.1.

    Shapes:
        x ``[*batch, input]``, state ``OscillatorState(hidden, velocity)``, both
        ``[*batch, hidden]``, y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int, ``time_step`` not positive,
            ``alpha`` negative.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.UnICORNN(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> params.recurrent_kernel.shape, params.control.shape
        ((4,), (4,))

    References:
        T. K. Rusch and S. Mishra, "UnICORNN: a recurrent model for learning very long time
        dependencies", 2021. Code of the authors: tk-rusch/unicornn, psMNIST/network.py.

    Note:
        The paper stacks layers, with the y of one as the x of the next; this is the recurrence of
        one layer. The defaults of Δt and α are the authors' for permuted sequential MNIST.
    """

    hidden_size: int
    time_step: float = 0.19
    alpha: float = 30.65
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Uniform(0.0, 1.0)
    bias_init: Initializer = initializers.Constant()
    control_init: Initializer = initializers.Uniform(-0.1, 0.1)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_positive("time_step", self.time_step)
        if self.alpha != 0:
            check_positive("alpha", self.alpha)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> UnICORNNParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 4)
        hidden = self.hidden_size
        return UnICORNNParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 1, dtype),
            packed_bias(self.recurrent_init, keys[1], hidden, 1, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 1, dtype),
            packed_bias(self.control_init, keys[3], hidden, 1, dtype),
        )

    def init_state(
        self, params: UnICORNNParams, batch_shape: tuple[int, ...] = ()
    ) -> OscillatorState:
        """Returns zeros: all oscillators at rest."""
        return OscillatorState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(
        self, params: UnICORNNParams, state: OscillatorState, x: Array
    ) -> tuple[OscillatorState, Array]:
        """One step of the equations above."""
        y, z = state
        d = self.time_step * jax.nn.sigmoid(widen(params.control))
        from_input = product(x, params.input_kernel) + widen(params.bias)
        force = jnp.tanh(from_input + widen(params.recurrent_kernel) * y) + self.alpha * y
        z = z - d * force
        y = y + d * z
        return OscillatorState(y, z), y.astype(params.bias.dtype)
