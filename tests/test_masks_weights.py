"""Masks select, weights scale, and a mean over nothing is NaN with a gradient of zero."""

import numpy as np
import pytest
from cases import DRIVERS, ROWS, build, keep, spoil, variants, weights
from oracle import assert_close, expected

import fastloss as fl
from fastloss.registry import LOSSES

REDUCTIONS = ("mean", "sum", "none", "weighted_mean")


@pytest.fixture(params=DRIVERS, scope="session")
def loss(request):
    """A loss of every kernel: what is tested here does not depend on the formula."""
    return request.param


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_and_masks(loss, backend, dtype, reduction):
    for case in variants(loss, dtype):
        kept, weight = keep(case.shape), weights(case.shape)
        for options in ({"mask": kept}, {"sample_weight": weight}, {"mask": kept, "sample_weight": weight}):
            wanted = expected(case, reduction=reduction, **options)
            assert_close(case(backend, reduction=reduction, **options), wanted, dtype, (case.params, [*options]))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_masked_entry_counts_for_nothing_whatever_it_holds(loss, backend, dtype, reduction):
    for case in variants(loss, dtype):
        kept = keep(case.shape)
        options = {"mask": kept, "reduction": reduction, "sample_weight": weights(case.shape)}
        # NaN under the mask in the weights as well.
        spoiled = options | {"sample_weight": np.where(kept, options["sample_weight"], np.nan)}
        clean, result = case(backend, **options), spoil(case, kept)(backend, **spoiled)
        for a, b in zip(clean, result, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=str(case.params))
        assert not result.grad[~kept].any()
        assert result.grad[kept].any()


@pytest.mark.parametrize("width", [5, 70])
@pytest.mark.parametrize("name", ROWS)
def test_an_ignored_row_counts_as_masked(name, backend, dtype, width):
    case = build(name, dtype, (67,), width)
    kept = keep((67,))
    x, y = case.args
    x, y = np.where(kept[:, None], x, np.nan).astype(dtype), np.where(kept, y, -100)
    for reduction in REDUCTIONS:
        masked = case(backend, mask=kept, reduction=reduction)
        ignored = case.with_args(x, y)(backend, reduction=reduction)
        np.testing.assert_array_equal(masked.loss, ignored.loss)
        np.testing.assert_array_equal(masked.grad, ignored.grad)


@pytest.mark.parametrize("name", ROWS)
def test_ignore_index_may_be_a_class_or_nothing_that_occurs(name, backend):
    case = build(name, "float64", width=4, ignore_index=2)
    assert not case(backend).grad[case.args[1] == 2].any()
    beyond, default = case.with_params(ignore_index=77)(backend), case.with_params(ignore_index=-100)(backend)
    np.testing.assert_array_equal(beyond.grad, default.grad)


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5), (4100, 3), (3, 4100)])
def test_weights_and_masks_of_leading_dimensions(loss, backend, shape):
    case = build(loss, "float64", shape)
    for depth in range(len(shape)):
        short = {"mask": keep(shape[:depth]) | (depth == 0), "sample_weight": weights(shape[:depth]) + 0.5}
        full = {k: np.broadcast_to(v.reshape(v.shape + (1,) * (len(shape) - depth)), shape) for k, v in short.items()}
        for reduction in ("none", "weighted_mean"):
            results = (case(backend, reduction=reduction, **options) for options in (short, full))
            for a, b in zip(*results, strict=True):
                np.testing.assert_array_equal(a, b)
        assert_close(case(backend, **short), expected(case, **short), "float64")
        for options in ({"mask": short["mask"]}, {"sample_weight": short["sample_weight"]}):
            options["reduction"] = "weighted_mean"
            assert_close(case(backend, **options), expected(case, **options), "float64")
        mixed = {"mask": short["mask"], "sample_weight": full["sample_weight"], "reduction": "weighted_mean"}
        assert_close(case(backend, **mixed), expected(case, **mixed), "float64")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (5,), (70, 2)])
def test_over_nothing(loss, backend, dtype, reduction, shape):
    case = build(loss, dtype, shape)
    kept = np.zeros(shape, bool)
    for options in ({"mask": kept}, {"mask": kept, "sample_weight": weights(shape)}):
        result = spoil(case, kept)(backend, reduction=reduction, **options)
        nothing = {"sum": 0.0, "none": np.zeros(shape)}.get(reduction, np.nan)
        np.testing.assert_array_equal(result.loss, nothing)
        np.testing.assert_array_equal(result.grad, np.zeros(case.args[0].shape))


@pytest.mark.parametrize("width", [2, 70])
@pytest.mark.parametrize("name", ROWS)
def test_all_rows_ignored(name, backend, dtype, width):
    case = build(name, dtype, (9,), width)
    case = case.with_args(case.args[0], np.full(9, -100))
    for reduction, nothing in (("mean", np.nan), ("weighted_mean", np.nan), ("sum", 0.0)):
        result = case(backend, reduction=reduction)
        np.testing.assert_equal(result.loss, nothing)
        assert not result.grad.any()


def test_a_normalizer_makes_a_mean_over_nothing_zero(loss, backend):
    case = build(loss, "float64")
    result = case(backend, mask=np.zeros(case.shape, bool), normalizer=4.0)
    assert result.loss == 0.0
    assert not result.grad.any()


def test_weights_that_sum_to_nothing(loss, backend):
    case = build(loss, "float64")
    case.args[0][3] = np.nan  # 0 times NaN must not reach the gradient of a mean over nothing
    result = case(backend, sample_weight=np.zeros(case.shape), reduction="weighted_mean")
    assert np.isnan(result.loss)
    np.testing.assert_array_equal(result.grad, np.zeros_like(result.grad))


@pytest.mark.parametrize("name", ROWS)
def test_class_weights_under_the_mean_follow_pytorch(name, backend):
    # There the mean of cross-entropies divides by the sum of the weights, that of margins by the number of rows.
    case = build(name, "float64", width=3, weight=np.array([0.5, 1.0, 2.0]))
    weight = weights(case.shape) + 0.5
    rows, own = case(backend, reduction="none").loss, case.params["weight"][case.args[1]]
    own = own if case.facts.class_weighted_mean else np.ones_like(own)
    assert case(backend).loss == pytest.approx(rows.sum() / own.sum())
    # Sample weights scale the terms of a mean; they enter the divisor of a weighted mean only.
    assert case(backend, sample_weight=weight).loss == pytest.approx((rows * weight).sum() / own.sum())
    both = case(backend, sample_weight=weight, reduction="weighted_mean").loss
    assert both == pytest.approx((rows * weight).sum() / (own * weight).sum())


@pytest.mark.parametrize("kind", ["int8", "uint64", "float16", "float32", ">f8", "bfloat16"])
def test_dtypes_of_weights(loss, backend, kind):
    # float32 predictions: float64 weights would be the ordinary case.
    if kind == "bfloat16":
        kind = pytest.importorskip("ml_dtypes").bfloat16
    if kind == "float32" and backend == "numba" and loss != "mse_loss":
        pytest.skip("Numba compiles once more for float32 weights; one loss shows it")
    case = build(loss, "float32")
    weight = np.random.default_rng(0).integers(0, 4, case.shape)
    for reduction in ("none", "weighted_mean"):
        wanted = case(backend, reduction=reduction, sample_weight=weight.astype(np.float64))
        result = case(backend, reduction=reduction, sample_weight=weight.astype(kind))
        for a, b in zip(wanted, result, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_mask_selects_in_grad_hess(elementwise, backend):
    if LOSSES[elementwise].needs_third or elementwise == "nmae_loss":  # whose norm comes from all kept targets
        pytest.skip("not a loss of a prediction and a target alone")
    case = build(elementwise, "float64")
    kept = keep(case.shape)
    found = fl.grad_hess(getattr(fl, elementwise), *spoil(case, kept).args, mask=kept, backend=backend)
    assert not found.grad[~kept].any()
    assert not found.hess[~kept].any()
    clean = fl.grad_hess(getattr(fl, elementwise), *case.args, backend=backend)
    np.testing.assert_array_equal(found.hess[kept], clean.hess[kept])


ROW_LOSSES = tuple(name for name, facts in LOSSES.items() if facts.kind != "elementwise")


@pytest.mark.parametrize("width", [5, 70, 1030])
@pytest.mark.parametrize("name", ROW_LOSSES)
def test_weights_and_divisors_of_rows_meet_in_float64(name, backend, dtype, width):
    case = build(name, dtype, (9,), width)
    weight = np.random.default_rng(0).random(9) + 0.5
    plain = case(backend, sample_weight=weight, reduction="weighted_mean")
    close = {"rtol": 8 * float(np.finfo(dtype).eps), "atol": 0.0}
    for power in (-990, -500, -200, 200, 500, 990):  # what is weighed and divided by the same does not change
        found = case(backend, sample_weight=np.ldexp(weight, power), reduction="weighted_mean")
        np.testing.assert_allclose(found.loss, plain.loss, **close)
        np.testing.assert_allclose(found.grad, plain.grad, **close)
        found = case(backend, sample_weight=np.ldexp(weight, power), normalizer=np.ldexp(1.0, power))
        wanted = case(backend, sample_weight=weight, reduction="sum")
        np.testing.assert_allclose(found.loss, wanted.loss, **close)
        np.testing.assert_allclose(found.grad, wanted.grad, **close)
    for normalizer in (1e-42, 1e-20, 1e20, 1e42):
        wanted = expected(case, normalizer=normalizer)
        found = case(backend, normalizer=normalizer)
        np.testing.assert_allclose(found.loss, wanted[0], rtol=1e-5)
        least = float(np.finfo(dtype).smallest_subnormal)
        with np.errstate(over="ignore"):
            right = wanted[1].astype(dtype)
        size = np.max(np.abs(right), initial=0.0, where=np.isfinite(right))
        np.testing.assert_allclose(found.grad, right, rtol=1e-4, atol=2 * least + 1e-6 * float(size))


@pytest.mark.parametrize("name", [n for n in LOSSES if LOSSES[n].target == "class" and n != "td_loss"])
@pytest.mark.parametrize("width", [5, 70])
def test_class_weights_meet_their_divisor_in_float64(name, backend, dtype, width):
    weight = np.random.default_rng(0).random(width) + 0.5
    plain = build(name, dtype, (9,), width, weight=weight)
    divisor = weight[plain.args[1]].sum()
    wanted = plain(backend, reduction="sum")
    for power in (-990, -200, 200, 990):
        found = plain.with_params(weight=np.ldexp(weight, power))(backend, normalizer=np.ldexp(divisor, power))
        close = {"rtol": 8 * float(np.finfo(dtype).eps)}
        np.testing.assert_allclose(found.loss, wanted.loss / divisor, **close)
        np.testing.assert_allclose(found.grad, wanted.grad / divisor, atol=1e-15, **close)


def test_the_discount_meets_the_next_value_in_float64(backend):
    rng = np.random.default_rng(0)
    q, next_q = np.zeros((2000, 2), np.float32), rng.standard_normal((2000, 1)).astype(np.float32).repeat(2, axis=1)
    rewards = rng.standard_normal(2000).astype(np.float32)
    call = {"gamma": 0.99, "backend": backend}
    found = fl.td_loss(q, np.zeros(2000, int), rewards, next_q, np.zeros(2000, bool), **call).td_error
    exact = rewards.astype(np.float64) + 0.99 * next_q[:, 0].astype(np.float64)
    np.testing.assert_array_max_ulp(found, exact.astype(np.float32), 1)
    assert np.mean(found == exact.astype(np.float32)) > 0.99
