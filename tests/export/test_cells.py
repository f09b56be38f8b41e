"""Every cell and wrapper, and users' cells, as ONNX models with a Scan."""

import pytest

import jaxrnn as rnn
from tests.support import onnx_runs
from tests.support.cases import CELLS, WRAPPERS, random_inputs, random_params
from tests.support.user_cells import USER_CELLS

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")

ALL = (*CELLS, *WRAPPERS, *USER_CELLS)
# One of each kind of translation: products, complex states, loops, convolutions, gathers, heads.
QUICK = {"GRU", "HGRN", "ConvLSTM(1D)", "DeltaNet", "Zoneout(LSTM)", "embedding", "nested_cond"}
# Steps with constants of double precision; onnxruntime runs their models in double precision too.
DOUBLE = {"antisymmetric", "closed_over", "concatenated_row_by_row"}
CASES = [
    pytest.param(case, id=str(case), marks=() if str(case) in QUICK else pytest.mark.thorough)
    for case in ALL
]


def exported(case, dtype, reverse):
    layer = rnn.layers.Recurrent(case.cell, reverse=reverse)
    x, params = random_inputs(case, (2,), dtype), random_params(case, dtype)
    flags = {"carry": True, "lengths": True, "starts": True}
    return rnn.export.to_onnx(layer, params, x=x, operators=False, **flags)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in what a Where leaves out
@pytest.mark.parametrize("case", CASES)
def test_one_model_gives_equal_outputs_for_every_size(case):
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra: onnx")
    quick = str(case) in QUICK
    # Each size compiles the oracle, so the default tier has two.
    sizes = [(4, 3), (1, 2)] if quick else [(t, b) for t in (1, 4, 7) for b in (1, 3)]
    for reverse in (True,) if quick else (True, False):
        double = onnx_runs.reference(exported(case, "float64", reverse))
        is_double = str(case) in DOUBLE
        narrow = case if is_double else onnx_runs.in_float32(case)
        dtype = "float64" if is_double else "float32"
        single = onnx_runs.onnxruntime_session(exported(narrow, dtype, reverse))
        for time, batch in sizes:
            wanted = onnx_runs.case_run(case, reverse, time, batch)
            names, tolerance = double.output_names, max(1e-10, case.tolerance)
            given = double.run(None, wanted.feeds)
            onnx_runs.assert_equal(given, names, wanted, tolerance)
            feeds = wanted.feeds
            if not is_double:
                feeds = {name: onnx_runs.narrowed(array) for name, array in feeds.items()}
            onnx_runs.assert_equal(single.run(None, feeds), names, wanted, 1e-5)
