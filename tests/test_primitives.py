"""The vector primitives alone, in ULP: what fastloss/primitives.py states of each is held here."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from fastloss._numba import primitives_generated as primitives  # noqa: E402
from fastloss.primitives import EXP_MIN_F32, EXP_MIN_F64  # noqa: E402

# Largest error, smallest and largest argument.
BOUNDS = {
    "exp_neg_f32": (0.96, 0.0, 110.0),
    "exp_neg_f64": (0.90, 0.0, 750.0),
    "log1p_unit_f32": (1.24, 0.0, 1.0),
    "log1p_unit_f64": (1.40, 0.0, 1.0),
    "log1p_f64": (0.85, 0.0, 2.0**40),
}
LONG = np.finfo(np.longdouble).nmant > 60


def evaluate(name, x):
    function = getattr(primitives, name)
    # The functions of a limit are given it.
    more = (x.dtype.type({"exp_neg_f32": -EXP_MIN_F32, "exp_neg_f64": -EXP_MIN_F64}[name]),) if "neg" in name else ()

    @numba.njit
    def run(x, *more):
        out = np.empty_like(x)
        for i in range(x.size):
            out[i] = function(x[i], *more)
        return out

    return run(x, *more)


def exact(name, x):
    wide = x.astype(np.longdouble if x.dtype == np.float64 else np.float64)
    with np.errstate(all="ignore"):
        return np.exp(-wide) if name.startswith("exp") else np.log1p(wide)


def worst(name, x):
    wanted = exact(name, x)
    bits, smallest = (24, -125) if x.dtype == np.float32 else (53, -1021)
    unit = np.ldexp(np.ones_like(wanted), np.maximum(np.frexp(wanted)[1], smallest) - bits)
    return float(np.max(np.abs(evaluate(name, x).astype(wanted.dtype) - wanted) / unit))


def arguments(name, count, seed):
    """Bit patterns spread evenly over all exponents of the domain, its ends included."""
    _, low, high = BOUNDS[name]
    dtype, bits = (np.float32, np.uint32) if name.endswith("f32") else (np.float64, np.uint64)
    ends = np.array([low, high], dtype).view(bits)
    patterns = np.random.default_rng(seed).integers(ends[0], ends[1], count, dtype=bits, endpoint=True)
    dense = np.random.default_rng(seed).uniform(low, min(high, 100.0), count).astype(dtype)
    return np.concatenate([ends.view(dtype), patterns.view(dtype), dense])


@pytest.mark.parametrize("name", BOUNDS)
def test_error_is_within_the_stated_bound(name):
    if name.endswith("f64") and not LONG:
        pytest.skip("needs a long double of more than 53 bits")
    assert worst(name, arguments(name, 500_000, seed=1)) <= BOUNDS[name][0]


@pytest.mark.parametrize("name", BOUNDS)
def test_nan_passes(name):
    dtype = np.float32 if name.endswith("f32") else np.float64
    assert np.isnan(evaluate(name, np.array([np.nan], dtype))[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp_neg_f32", "log1p_unit_f32"])
def test_every_float32(name):
    bound, low, high = BOUNDS[name]
    first, last = (int(np.float32(v).view(np.uint32)) for v in (low, high))
    step = 1 << 22
    for start in range(first, last + 1, step):
        x = np.arange(start, min(start + step, last + 1), dtype=np.uint32).view(np.float32)
        assert worst(name, x) <= bound, (start, step)
