"""Rules that keep influence where the structure of a step tells: RTRL, SnAp, RFLO and e-prop."""

from typing import ClassVar

from jaxrnn._arguments import check_size
from jaxrnn._frozen import frozen
from jaxrnn.learning._forward import ForwardRule
from jaxrnn.learning._influence import Influence
from jaxrnn.learning._tracker import Sample


@frozen
class RTRL(ForwardRule):
    """Real-time recurrent learning: the exact gradient, accumulated forward in time.

        M[t] = J[t] M[t-1] + B[t],    J = ∂s[t]/∂s[t-1],   B = ∂s[t]/∂θ
        dL/dθ = Σₜ dL/dy[t] (∂y[t]/∂s[t] M[t] + ∂y[t]/∂θ)

    M, the influence ds/dθ, does not grow with time. It has one row for each element of the state
    and one column for each parameter, but is stored only where the equations of the step allow it
    to be non-zero: O(parameters) for cells with a diagonal Jacobian (`LRU`, `MinGRU`, `IndRNN`),
    by block for block-diagonal ones, and state × parameters for dense ones. ``jaxrnn.explain(cell,
    params, xs, rule=RTRL())`` shows its size.

    The gradients of the parameters and of the initial state are those of back-propagation. The
    inputs receive the gradient of the same step only. A `jaxrnn.layers.Stack` is one cell, so RTRL
    of it is exact, and the first of its layers reaches the states of all others.

    Args:
        max_bytes: the largest influence that is accepted, for the whole batch.

    Raises:
        TypeError: ``max_bytes`` is not a positive int; or the gradient is differentiated.
        ValueError: the influence of a cell would be larger than ``max_bytes``.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.random.normal(jax.random.key(1), (20, 2, 3))
        >>> def loss(params, engine):
        ...     return rnn.unroll(cell, params, xs, engine=engine)[1].sum()
        >>> forward = jax.grad(loss)(params, rnn.learning.RTRL())
        >>> backward = jax.grad(loss)(params, rnn.engines.Hoisted())
        >>> bool(jnp.allclose(forward.recurrent_kernel, backward.recurrent_kernel, atol=1e-4))
        True

    References:
        R. J. Williams and D. Zipser, "A learning algorithm for continually running fully recurrent
        neural networks", Neural Computation 1, 1989.
        N. Zucchet, R. Meier, S. Schug, A. Mujika and J. Sacramento, "Online learning of long-range
        dependencies", 2023 (diagonal recurrences).
        K. Irie, A. Gopalakrishnan and J. Schmidhuber, "Exploring the promise and limits of
        real-time recurrent learning", 2024 (elementwise recurrences).

    Note:
        The rows of a batch are independent in almost every cell, and have one influence each. Where
        they are not, or a step draws random numbers for the whole batch, the batch is one row.
    """

    max_bytes: int = 2**34

    def __post_init__(self):
        check_size("max_bytes", self.max_bytes)

    def track(self, sample: Sample) -> Influence:
        """The influence that the rule carries."""
        return Influence.of(sample, max_bytes=self.max_bytes)


@frozen
class SnAp(ForwardRule):
    """Sparse n-step approximation: influence is kept where a parameter reaches within n steps.

        M[t] = (J[t] M[t-1] + B[t]) masked to the elements that B + J B + ... + J^(n-1) B reaches

    The pattern is found in the equations of the step. ``SnAp(1)`` keeps what a parameter changes
    in one step: one element for each weight of a GRU, two for one of an LSTM. With a dense J,
    ``SnAp(2)`` keeps everything already and equals `RTRL`; with a diagonal J every order does. A
    loss meets the masked influence on the new state, as in the paper.

    Args:
        order: n, the number of steps.
        max_bytes: the largest influence that is accepted, for the whole batch.

    Raises:
        TypeError, ValueError: as `RTRL`; ``order`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> def loss(params):
        ...     xs = jax.numpy.ones((20, 2, 3))
        ...     return rnn.unroll(cell, params, xs, engine=rnn.learning.SnAp(1))[1].sum()
        >>> jax.grad(loss)(params).recurrent_kernel.shape
        (4, 12)

    References:
        J. Menick, E. Elsen, U. Evci, S. Osindero, K. Simonyan and A. Graves, "Practical real-time
        recurrent learning with a sparse approximation", 2021, section 3.

    Note:
        The initial state has influence on what ``order`` steps reach.
    """

    order: int
    max_bytes: int = 2**34

    def __post_init__(self):
        check_size("order", self.order)
        check_size("max_bytes", self.max_bytes)

    def track(self, sample: Sample) -> Influence:
        """The influence that the rule carries."""
        return Influence.of(sample, order=self.order, max_bytes=self.max_bytes)


@frozen
class RFLO(ForwardRule):
    """Random-feedback local online learning: influence moves on through the leak only.

        h' = (1 - α) h + α tanh(x W + h U + b):    M' = (1 - α) M + B

    The products of the step pass no gradient to what they multiply, and of the rest of J only the
    diagonal counts, so that each parameter has influence on its own unit. The rule suits leaky
    units; a gated cell with several states a unit, such as an LSTM, is what `EProp` is for.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.FastRNN(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> def loss(params):
        ...     xs = jax.numpy.ones((20, 2, 3))
        ...     return rnn.unroll(cell, params, xs, engine=rnn.learning.RFLO())[1].sum()
        >>> jax.grad(loss)(params).recurrent_kernel.shape
        (4, 4)

    References:
        J. M. Murray, "Local online learning in recurrent networks with random feedback", eLife 8,
        2019.

    Note:
        The paper's errors reach the units by a fixed random matrix; here they are those of the
        loss, as of ``grad``. For random feedback, pass them through
        ``y + stop_gradient(y @ W - y @ feedback)`` and its like in the loss.
    """

    local: ClassVar[bool] = True

    def track(self, sample: Sample) -> Influence:
        """The influence that the rule carries."""
        return Influence.of(sample, order=1, diagonal=True)


@frozen
class EProp(ForwardRule):
    """E-prop: eligibility traces, the influence of a parameter on the states of its own unit.

        ε' = D ε + B,    D = ∂s'/∂s without the products' paths
        LSTM:  ε_c' = f ε_c + ∂c'/∂θ,   e_h = o (1 - tanh² c') ε_c' + ∂h'/∂o ∂o/∂θ

    The products of the step pass no gradient to what they multiply: the recurrent connections
    between units are cut, and what happens within a unit is exact.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LSTM(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> def loss(params):
        ...     xs = jax.numpy.ones((20, 2, 3))
        ...     return rnn.unroll(cell, params, xs, engine=rnn.learning.EProp())[1].sum()
        >>> jax.grad(loss)(params).recurrent_kernel.shape
        (4, 16)

    References:
        G. Bellec, F. Scherr, A. Subramoney, E. Hajek, D. Salaj, R. Legenstein and W. Maass, "A
        solution to the learning dilemma for recurrent networks of spiking neurons", Nature
        Communications 11, 2020, equations 3, 13 and 14.

    Note:
        The learning signals are those of the loss (symmetric e-prop). A parameter that reaches the
        state through a second product only, such as the reset gate of `ResetBeforeGRU`, gets the
        gradient of its local path, which is zero. Products inside nested loops are not cut.
    """

    local: ClassVar[bool] = True

    def track(self, sample: Sample) -> Influence:
        """The influence that the rule carries."""
        return Influence.of(sample)
