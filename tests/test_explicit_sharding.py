"""Arrays whose types have shardings: the same values and gradients, and what need not be placed.

One device is enough: the types are those of many.
"""

import jax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxrnn as rnn
from tests.support.cases import CELLS, WRAPPERS, random_inputs, random_params
from tests.support.helpers import assert_near, thorough_but, weighted_sum
from tests.support.user_cells import USER_CELLS

TIME, BATCH = 4, 2

INDEXING = ("embedding", "chosen_weight")
FIRST = (
    "ConvLSTM(1D)",
    "SCRN",
    "ClockworkRNN",
    "RecurrentDropout(GRU)",
    "Zoneout(LSTM)",
    "nested_cond",
)
CASES = sorted(
    (case for case in (*CELLS, *WRAPPERS, *USER_CELLS) if case.tangents),
    key=lambda case: str(case) not in FIRST,
)


@pytest.mark.parametrize("case", thorough_but(*CASES, quick=len(FIRST)), ids=str)
def test_parameters_and_states_on_no_mesh(case):
    if str(case) in INDEXING:
        pytest.skip("JAX asks the author of the step for the sharding of what it takes by index")

    @jax.jit
    def run(params, xs):
        def loss(params):
            _, ys = rnn.unroll(case.cell, params, xs, key=case.key)
            return weighted_sum(ys), ys

        return jax.grad(loss, has_aux=True, allow_int=True)(params)

    params, xs = random_params(case), random_inputs(case, (TIME, BATCH))
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    placement = NamedSharding(mesh, P(None, "rows"))
    with jax.set_mesh(mesh):
        got = run(params, jax.tree.map(lambda x: jax.device_put(x, placement), xs))
    assert_near(got, run(params, xs), 1e-10)
