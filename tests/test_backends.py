"""The backends against each other, and that they are interchangeable."""

import inspect

import numpy as np
import pytest
from cases import BACKENDS, FLOATS, ROWS, assert_same_bits, build, keep, spoil, variants, weights

import fastloss as fl
from fastloss import _blocks, _dispatch

pytestmark = pytest.mark.usefixtures("both_compiled")

POSITIVE = [0.0, 5e-324, 1e-45, 1e-39, 1e-7, 1.0, 88.0, 104.0, 745.0, 1e38, np.inf]
NUMBERS = [*POSITIVE, *(-number for number in POSITIVE), np.nan]


def same(case, **options):
    assert_same_bits(case("numba", **options), case("cython", **options), (case.loss, case.params, [*options]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "weighted_mean"])
def test_all_options(loss, dtype, reduction):
    for shape in ((67,), (4_099,)):
        for case in variants(loss, dtype, shape):
            kept, weight = keep(shape), weights(shape)
            for options in ({}, {"mask": kept}, {"sample_weight": weight}, {"mask": kept, "sample_weight": weight}):
                same(case, reduction=reduction, **options)
            same(spoil(case, kept), reduction=reduction, mask=kept)
            same(case, reduction=reduction, grad=False)


@pytest.mark.parametrize("width", [1, 2, 3, 10, 31, 32, 33, 64, 65, 130, 1000, 1025, 4097])
@pytest.mark.parametrize("name", [*ROWS, "td_loss"])
def test_widths_of_rows(name, dtype, width):
    for case in variants(name, dtype, (70,), width):
        same(case, sample_weight=weights((70,)), mask=keep((70,)))
        same(case, reduction="none")


def test_leading_dimensions(loss, dtype):
    case = build(loss, dtype, (30, 4, 50))
    for depth in range(3):
        shape = (30, 4, 50)[:depth]
        same(case, mask=keep(shape) | (depth == 0), sample_weight=weights(shape) + 0.25, reduction="weighted_mean")


def test_in_place(loss, dtype):
    case = build(loss, dtype, (300,))
    found = [case.each(np.copy) for _ in range(2)]
    results = [c(b, out=c.args[0]) for c, b in zip(found, ("cython", "numba"), strict=True)]
    assert_same_bits(*results)


def scrambled(case, change):
    """The case with every array changed that may hold any number."""
    facts, changed = case.facts, case.each(change)
    x = changed.args[0] if facts.kind != "elementwise" or facts.input == "real" else case.args[0]
    y = changed.args[1] if facts.target in ("real", "class", "action") else case.args[1]
    params = {k: v for k, v in case.params.items() if k == facts.third}
    return changed.with_args(x, y, *changed.args[2:]).with_params(**params)


def test_random_patterns(loss, dtype):
    # Any bits at all: NaNs, infinities, subnormals, every exponent.
    rng = np.random.default_rng(0)
    case = build(loss, dtype, (3_000,))
    unsigned = f"u{np.dtype(dtype).itemsize}"

    def scramble(a):
        if a.dtype != dtype:
            return a
        return rng.integers(0, np.iinfo(unsigned).max, a.shape, unsigned, endpoint=True).view(dtype)

    changed = scrambled(case, scramble)
    for reduction in ("none", "sum"):
        same(changed, reduction=reduction)
        same(changed, reduction=reduction, sample_weight=weights((3_000,)))


def test_special_numbers(loss, dtype):
    with np.errstate(all="ignore"):
        numbers = np.array(NUMBERS, dtype)
    rng = np.random.default_rng(0)
    for case in variants(loss, dtype, (1_000,), 3):
        changed = scrambled(case, lambda a: rng.choice(numbers, a.shape) if a.dtype == dtype else a)
        same(changed, reduction="none")
        same(changed, reduction="mean")


def test_grad_hess(elementwise, dtype):
    for case in variants(elementwise, dtype, (4_099,)):
        results = [
            fl.grad_hess(
                getattr(fl, elementwise), *case.args, sample_weight=weights((4_099,)), mask=keep((4_099,)), backend=b,
                **case.params,
            )
            for b in ("cython", "numba")
        ]  # fmt: skip
        assert_same_bits(*results)


def test_half_precision():
    for name in ("binary_cross_entropy_with_logits", "cross_entropy", "td_loss"):
        same(build(name, "float16", (300,)), reduction="none", sample_weight=weights((300,)))


def test_integer_targets():
    case = build("binary_cross_entropy_with_logits", "float32", (4_099,))
    same(case.with_args(case.args[0], (case.args[1] > 0.5).astype(np.int64)))


def test_the_numpy_backend_is_close(loss, dtype):
    for case in variants(loss, dtype, (300,)):
        options = {"sample_weight": weights((300,)), "mask": keep((300,)), "reduction": "none"}
        tolerance = 32 * np.finfo(dtype).eps
        for a, b in zip(case("cython", **options), case("numpy", **options), strict=True):
            scale = np.max(np.abs(b), initial=0.0)
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=str(case.params))


def test_functions_have_equal_signatures():
    engines = [_dispatch.engine(name) for name in BACKENDS]
    for function in ("elementwise", "rows", "target_weight", "td_loss", "describe"):
        signatures = [list(inspect.signature(getattr(engine, function)).parameters) for engine in engines]
        assert signatures[0] == signatures[1] == signatures[2], function
    for engine, name in zip(engines, BACKENDS, strict=True):
        assert engine.name == name
        assert engine.GRAIN > 0
        assert isinstance(engine.describe(), str)


def test_compiled_modules_have_the_sizes_that_partial_sums_depend_on():
    from fastloss._cython import kernels

    assert kernels.SIZES
    for name, size in kernels.SIZES.items():
        assert getattr(_blocks, name) == size, name
    assert {"BLOCK", "LANES"} <= set(kernels.SIZES)


def test_compiled_row_losses_are_numbered_as_in_the_registry():
    from fastloss._cython import kernels

    assert {name: facts.index for name, facts in LOSSES.items() if facts.kind == "rows"} == kernels.ROW_LOSSES


def test_warmup_compiles_everything_that_it_says():
    fl.warmup(dtypes=FLOATS, backend="numba")
    fl.warmup(["mse_loss"], dtypes=["float32"], backend="numpy")
