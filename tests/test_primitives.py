"""The vector primitives alone, in ULP: what fastloss/primitives.py states of each is held here."""

import itertools

import numpy as np
import pytest

pytest.importorskip("numba")

from fastloss import primitives
from fastloss.commands import _exhaustive, _ulp

ALL = [(name, suffix) for name, p in _exhaustive.PRIMITIVES.items() for suffix in p.floats]

needs_longdouble = pytest.mark.skipif(not _ulp.LONG, reason="long double has no spare digits")


def check(name, suffix, numbers, share):
    dtype = _exhaustive.DTYPES[suffix]
    for number in numbers:
        found = _exhaustive.run(_exhaustive.Task("primitives", name, dtype, number), share)[f"{name} {dtype}"]
        for kind, budget in _exhaustive.budgets()[f"{name} {dtype}"].items():
            assert found.get(kind, (0.0, ""))[0] <= budget, (kind, found[kind])


@needs_longdouble
@pytest.mark.parametrize(("name", "suffix"), ALL)
def test_error_is_within_the_budget(name, suffix):
    check(name, suffix, [0], 2.0**-11)


@pytest.mark.parametrize(("name", "suffix"), ALL)
def test_nan_passes(name, suffix):
    assert np.isnan(_exhaustive.primitive(name, np.array([np.nan], _exhaustive.DTYPES[suffix]))[0])


def test_every_primitive_of_losses_has_a_budget():
    named = {f"{name}_{suffix}" for name, suffix in ALL}
    # Steps of others, which are measured with them.
    parts = (
        "expm1_reduced", "expm1_tail", "exp_pair", "exp_reduced", "exp_sum", "exp_times", "exp_top", "half_over_mean",
        "halvings", "log1p_sum", "log_cosh_tail", "log_over_mean", "log_sum",
    )  # fmt: skip
    for name, function in vars(primitives).items():
        if callable(function) and name[-4:] in ("_f32", "_f64") and not name.startswith(parts):
            assert name in named


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-np.inf, -0.0), (-1.0, np.inf), (0.5, 2.0), (-2.0, -0.5), (0.0, np.inf)])
def test_slices_hold_every_float_of_a_domain_once(ends, monkeypatch):
    # Patterns 2^20 apart in place of neighbours; two tasks, several slices.
    low, high = ends
    monkeypatch.setattr(_exhaustive, "CHUNK", 3000)
    monkeypatch.setattr(_exhaustive, "SLICE", 130)
    sides, share = _exhaustive._patterns(low, high), 2.0**-20
    pieces = [list(_exhaustive._slices(sides, number, share)) for number in (0, 1)]
    x = np.concatenate(list(itertools.chain(*pieces)))
    assert np.all((x >= low) & (x <= high))
    assert len(np.unique(x.view(np.uint32))) == len(x)
    assert abs(len(x) - sum(count for _, count in sides) * share) <= 2
    for first, count in sides:
        one = next(_exhaustive._slices([(first, count)], 0, 1.0))
        assert one.view(np.uint32)[0] == first
    assert sum(count for _, count in _exhaustive._patterns(-np.inf, np.inf)) == 2 * 0x7F800001


@pytest.mark.slow
@needs_longdouble
@pytest.mark.parametrize("name", [name for name, suffix in ALL if suffix == "f32"])
def test_every_float32(name):
    p = _exhaustive.PRIMITIVES[name]
    count = sum(count for _, count in _exhaustive._patterns(p.low, p.high))
    check(name, "f32", range(-(-count // _exhaustive.CHUNK)), 1.0)
