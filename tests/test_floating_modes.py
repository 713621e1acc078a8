"""Floating-point modes that another library has set: never changed by us, and survived.

All promises of accuracy and of equal bits hold in the default mode: rounding to nearest, subnormal numbers kept. In
another mode a call still ends, checks its arguments, keeps masked entries at 0 and is right to four digits in float32
and ten in float64; where subnormal numbers are flushed, only they are lost. Threads keep the mode in which they were
started, so that bits may depend on the number of threads. Back in the default mode the promised bits are back too.
"""

import math
from pathlib import Path

import fenv
import numpy as np
import pytest
from cases import LOSS_NAMES, assert_same_bits, build, keep, variants, weights
from processes import output

import fastloss as fl
from fastloss.registry import LOSSES

RELATIVE = {"float32": 1e-4, "float64": 1e-10}
pytestmark = pytest.mark.skipif(not fenv.AVAILABLE, reason="modes are set through glibc on x86-64")

MODES = {
    "flush": {"flush": True},
    **{rounding: {"rounding": rounding} for rounding in ("down", "up", "towards zero")},
    "up and flush": {"rounding": "up", "flush": True},
}
BOUNDED = ("unit", "binary", "sign", "class", "action")


def test_neither_import_nor_call_sets_a_mode(backend):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np
        import fenv
        before = fenv.mxcsr()
        import fastloss as fl
        imported = fenv.mxcsr()
        x, backend = np.ones((150_000, 2)), {backend!r}
        for n_threads in (1, 2):
            fl.cross_entropy(x, np.zeros(len(x), int), backend=backend, n_threads=n_threads)
            fl.bce_with_logits(x, x, backend=backend, n_threads=n_threads)
        print(hex(before), hex(imported), hex(fenv.mxcsr()))
    """
    assert len(set(output(code).split())) == 1


@pytest.mark.parametrize("mode", MODES)
def test_results_in_another_mode(loss, compiled, dtype, mode):
    eps, kept = float(np.finfo(dtype).eps), keep((700,))
    for case in variants(loss, dtype, (700,)):
        for options in ({}, {"reduction": "none"}):
            given = {"mask": kept, "sample_weight": weights((700,)), **options}
            wanted = case(compiled, **given)
            with fenv.mode(**MODES[mode]):
                found = case(compiled, **given)
            if mode == "flush":  # nothing here is subnormal
                assert_same_bits(found, wanted, case.params)
            for a, b in zip(found, wanted, strict=True):
                size = np.max(np.abs(b))
                np.testing.assert_allclose(a, b, rtol=RELATIVE[dtype], atol=2.0**16 * eps * size)
                assert isinstance(a, float) or np.all(a[~kept] == 0)
            assert_same_bits(case(compiled, **given), wanted)


@pytest.mark.parametrize("mode", MODES)
def test_extremes_in_another_mode(compiled, dtype, mode):
    # Saturated ends, where results are subnormal or overflow.
    x = np.array([0, -0.0, 1e-40, 20, -20, 88, -88, 104, -104, 700, -700, 745, 1e30, -1e30, np.inf, -np.inf], dtype)
    wanted = fl.bce_with_logits(x, np.ones_like(x), backend=compiled, reduction="none")
    rows = np.stack([x, x[::-1]], axis=1)
    rows_wanted = fl.cross_entropy(rows, np.zeros(len(x), int), backend=compiled, reduction="none")
    with fenv.mode(**MODES[mode]):
        found = fl.bce_with_logits(x, np.ones_like(x), backend=compiled, reduction="none")
        rows_found = fl.cross_entropy(rows, np.zeros(len(x), int), backend=compiled, reduction="none")
    # In the default rounding only subnormal results are lost. In others, what should vanish may leave a trace: of
    # exponentials, as little as their own error there.
    eps, tiny = (float(getattr(np.finfo(dtype), name)) for name in ("eps", "tiny"))
    flushed = mode == "flush"
    for results, expected, trace in ((found, wanted, eps), (rows_found, rows_wanted, RELATIVE[dtype] / 10)):
        for a, b in zip(results, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=RELATIVE[dtype], atol=4 * tiny if flushed else trace)


@pytest.mark.parametrize("name", [n for n in LOSS_NAMES if LOSSES[n].target in BOUNDED])
@pytest.mark.parametrize("mode", MODES)
def test_errors_in_another_mode(name, compiled, mode):
    case = build(name, "float32", (3_000,))
    bad = case.args[1].copy()
    bad[2_000] = 77
    with fenv.mode(**MODES[mode]), pytest.raises((ValueError, IndexError), match="at index 2000"):
        case.with_args(case.args[0], bad, *case.args[2:])(compiled)


def test_threads_in_another_mode(compiled):
    x = np.linspace(-3, 3, 400_000, dtype=np.float32)
    wanted = fl.bce_with_logits(x, 0 * x, backend=compiled).loss
    for mode in MODES.values():
        with fenv.mode(**mode):
            found = fl.bce_with_logits(x, 0 * x, backend=compiled, n_threads=2).loss
        assert math.isclose(found, wanted, rel_tol=1e-5)
    assert fl.bce_with_logits(x, 0 * x, backend=compiled, n_threads=2).loss == wanted


def test_the_modes_are_real():
    # If this fails, the tests above prove nothing.
    with fenv.mode(flush=True):
        assert np.float32(1e-40) * np.float32(0.5) == 0
    with fenv.mode(rounding="up"):
        assert float(np.float64(1.0) + np.float64(1e-30)) > 1.0
    assert np.float64(1.0) + np.float64(1e-30) == 1.0
