"""Weights, divisors and parameters are carried in float64 until they meet what they belong to, whatever their scale."""

import functools
import re

import numpy as np
import pytest
from cases import ELEMENTWISE, LOSS_NAMES, UNIT, assert_same_bits, build, inputs, targets, variants, weights

import fastloss as fl
from fastloss.commands._ulp import LONG, exact, stratified, term_sizes
from fastloss.registry import DOMAINS, LOSSES

needs_longdouble = pytest.mark.skipif(not LONG, reason="long double has no spare digits")
# No float32 among them, and some whose distance from 1 or 2 would lose most of its digits.
NUMBERS = (0.1, 0.9999, 0.999999, 1.000001, 1.0001, 1.9999, 2.3, 0.0123, 3.7)
# Losses whose targets may be integers of any size.
COUNTED = tuple(n for n in ELEMENTWISE if LOSSES[n].target in ("real", "non_negative", "positive", "above_minus_one"))

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def units(actual, wanted):
    """Largest distance from a float64, in units in the last place of the actual type."""
    rounded = np.asarray(wanted, np.float64).astype(actual.dtype)
    step = np.spacing(np.abs(rounded)).astype(np.float64)
    off = np.abs(actual.astype(np.float64) - wanted) / step
    return np.max(np.where(np.isfinite(rounded), off, np.where(actual == rounded, 0.0, np.inf)), initial=0.0)


@pytest.mark.parametrize("power", [-996, -700, -340, -130, 130, 340, 700, 990])
def test_a_weighted_mean_does_not_depend_on_the_scale_of_its_weights(loss, backend, dtype, power):
    # From 1e-300 to 1e298, by powers of two: nothing but exponents changes.
    case = build(loss, dtype, (70,))
    weight = weights(case.shape) + 0.1
    usual = case(backend, sample_weight=weight, reduction="weighted_mean")
    scaled = case(backend, sample_weight=np.ldexp(weight, power), reduction="weighted_mean")
    np.testing.assert_allclose(scaled.loss, usual.loss, rtol=1e-15)
    assert_same_bits((scaled.grad,), (usual.grad,))
    kept = np.arange(70) % 3 > 0
    usual = case(backend, sample_weight=weight, mask=kept, reduction="weighted_mean")
    weight = np.where(kept, np.ldexp(weight, power), 1e300)  # what is masked says nothing of the others
    scaled = case(backend, sample_weight=weight, mask=kept, reduction="weighted_mean")
    np.testing.assert_allclose(scaled.loss, usual.loss, rtol=1e-15)
    assert_same_bits((scaled.grad,), (usual.grad,))


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e307])
def test_weights_near_the_ends_of_float64(backend, dtype, scale):
    x, w = np.array([1e-10, 3e-10], dtype), np.array([1.0, 3.0])
    usual = fl.mse_loss(x, 0 * x, sample_weight=w, reduction="weighted_mean", backend=backend)
    found = fl.mse_loss(x, 0 * x, sample_weight=w * scale, reduction="weighted_mean", backend=backend)
    np.testing.assert_allclose(found.loss, usual.loss, rtol=1e-9)
    np.testing.assert_allclose(found.grad, usual.grad, rtol=1e-6)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_gradients_are_rounded_once_after_weight_and_divisor(name, compiled):
    # The loss's own gradient in float32, times weight and divisor as they are.
    case = build(name, "float32", (70,))
    own = case(compiled, reduction="none").grad.astype(np.float64)
    weight = np.random.default_rng(1).random(70) + 0.01
    for divisor in (3.0, 7e-5, 1e-30, 1e-42, 1e30, 1e42, 1e300):
        plain = case(compiled, normalizer=divisor).grad
        assert units(plain, own / divisor) < 0.51
        weighed = case(compiled, normalizer=divisor, sample_weight=weight * 1e-40 * divisor).grad
        assert units(weighed, own * (weight * 1e-40)) < 0.51


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_float32_weights_are_rounded_once_and_their_products_may_leave_the_range(compiled, size):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(5000) * size).astype(np.float32)
    for weight in (rng.random(5000), rng.random(5000) * 1e25, np.where(np.arange(5000) == 4321, 1e25, 1.0)):
        weight = weight.astype(np.float32)
        for divisor in (5000.0, 3e10, 1.0, 2.0**10):
            for options in ({}, {"mask": np.arange(5000) % 3 > 0}):
                kept = options.get("mask", np.ones(5000, bool))
                found = fl.mse_loss(x, 0 * x, sample_weight=weight, normalizer=divisor, backend=compiled, **options)
                exact_weight = weight.astype(np.float64) * kept
                assert units(found.grad, 2.0 * x.astype(np.float64) * exact_weight / divisor) < 0.51
                losses = np.square(x).astype(np.float64) * exact_weight
                np.testing.assert_allclose(found.loss, losses.sum() / divisor, rtol=1e-13)


def test_what_is_0_keeps_its_sign_under_float32_weights(compiled):
    x, weight = np.float32([0.0, 0.0, 1.0, -1.0]), np.float32([1.0, -1.0, 0.0, 0.0])
    found = fl.mse_loss(x, 0 * x, sample_weight=weight, backend=compiled).grad
    wanted = fl.mse_loss(x, 0 * x, sample_weight=weight.astype(np.float64), backend=compiled).grad
    assert_same_bits((found,), (wanted,))


def test_losses_are_summed_with_weights_in_float64(compiled):
    x = np.full(5000, 3.0, np.float32)
    weight = np.random.default_rng(2).random(5000) * 1e-60
    for options in ({}, {"mask": np.arange(5000) % 3 > 0}):
        kept = options.get("mask", np.ones(5000, bool))
        found = fl.mse_loss(x, 0 * x, sample_weight=weight, reduction="sum", backend=compiled, **options)
        np.testing.assert_allclose(found.loss, 9 * weight[kept].sum(), rtol=1e-14)
    each = fl.mse_loss(x, 0 * x, sample_weight=weight * 1e60, reduction="none", backend=compiled).loss
    assert units(each, 9 * (weight * 1e60)) < 0.51


def test_a_masked_weight_may_be_anything(loss, backend):
    case = build(loss, "float32", (9,))
    kept = np.arange(9) % 2 == 0
    weight = np.where(kept, 0.5, np.nan)
    found = case(backend, sample_weight=weight, mask=kept, reduction="sum")
    wanted = case(backend, sample_weight=np.full(9, 0.5), mask=kept, reduction="sum")
    assert_same_bits((found.loss, found.grad), (wanted.loss, wanted.grad))


def parameters(name):
    """Every parameter at numbers that are no float32, the others at their defaults."""
    for param in LOSSES[name].params:
        if not param.flag:
            yield from ({param.name: v} for v in NUMBERS if param.valid(v))


@needs_longdouble
@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if LOSSES[n].params])
def test_bounds_hold_for_parameters_that_are_no_float32(name, compiled, within):
    facts, rng = LOSSES[name], np.random.default_rng(0)
    x = stratified(np.float32, 12, low=-6, high=6)
    x = np.concatenate([x, rng.permutation(x)])
    for params in parameters(name):
        p, y = inputs(name, x), targets(name, rng.permutation(x) / 2, rng)
        y = np.round(y) if facts.target == "unit" else y  # of soft targets gradients cancel
        p, y = p[DOMAINS[facts.input].valid(p)], y[DOMAINS[facts.input].valid(p)]
        third = [np.exp2(rng.uniform(-22, 20, p.size)).astype(np.float32)] if facts.needs_third else []
        numbers = facts.parse(params)
        named = params | ({facts.third: third[0]} if third else {})
        found = getattr(fl, name)(p, y, reduction="none", backend=compiled, **named)
        wanted, sizes = exact(name, p, y, numbers, *third), term_sizes(name, p, y, numbers, *third)
        if "label_smoothing" in params:  # the gradient has a zero, whose place is rounded
            sizes = sizes[0], np.ones(p.size, np.longdouble)
        within(f"{name} loss float32 {params}", found.loss, wanted[0], facts.loss_ulp, p, y, size=sizes[0])
        within(f"{name} grad float32 {params}", found.grad, wanted[1], facts.grad_ulp, p, y, size=sizes[1])


@pytest.mark.parametrize("rest", [1e-4, 1e-6, 1e-9, 1e-12])
def test_what_a_share_leaves_of_one_keeps_its_digits(backend, rest):
    x, y = np.float32([1, -1]), np.float32([0, 0])
    high, low = 1 - rest, 1 - (1 - rest)
    options = {"reduction": "sum", "backend": backend}
    np.testing.assert_allclose(fl.pinball_loss(x, y, quantile=high, **options).grad, [low, -high], rtol=1e-7)
    np.testing.assert_allclose(fl.expectile_loss(x, y, expectile=high, **options).grad, [2 * low, -2 * high], rtol=1e-7)
    huber = fl.quantile_huber_loss(x, y, quantile=high, **options).grad
    np.testing.assert_allclose(huber, [low, -high], rtol=1e-7)
    plain = fl.sigmoid_focal_loss(x, np.array([0, 0]), gamma=0.0, **options).grad
    focal = fl.sigmoid_focal_loss(x, np.array([0, 0]), alpha=high, gamma=0.0, **options).grad
    np.testing.assert_allclose(focal, plain * low, rtol=5e-7)


@pytest.mark.parametrize("kind", ["int32", "int64", "uint32", "uint64"])
@pytest.mark.parametrize("name", COUNTED)
def test_integer_targets_are_exact_beside_float32(name, compiled, kind):
    if LOSSES[name].needs_third:
        third = {LOSSES[name].third: np.full(40, 2.5, np.float32)}
    else:
        third = {"norm": 3.0} if name == "nmae_loss" else {}
    most = np.iinfo(kind).max if kind.endswith("32") else 2**53 - 1
    large = [2**24 + 1, 2**24 + 2, 2**25 + 3, 2**30 + 7, most, most - 2]
    if kind.startswith("int") and LOSSES[name].target == "real":
        large += [-v for v in large]
    y = np.resize(np.array([1, 5, *large, 7, 16777216], np.dtype(kind)), 40)
    x = np.resize(np.float32([2.0, 16777216.0, 3.5, 0.25]), 40)
    if LOSSES[name].family == "count":
        x = np.log1p(x)
    wide = {key: v.astype(np.float64) if isinstance(v, np.ndarray) else v for key, v in third.items()}
    call, held = getattr(fl, name), y.astype(np.float64) == y.astype(np.float32)
    found = call(x, y, reduction="none", backend=compiled, **third)
    wanted = call(x.astype(np.float64), y.astype(np.float64), reduction="none", backend=compiled, **wide)
    plain = call(x, y.astype(np.float32), reduction="none", backend=compiled, **third)
    for values, exact_values, rounded in zip(found, wanted, plain, strict=True):
        assert_same_bits((values[~held],), (exact_values.astype(np.float32)[~held],))
        assert_same_bits((values[held],), (rounded[held],))  # their neighbours do not matter


def test_integer_targets_are_exact_in_every_kind_of_call(backend):
    x, y = np.float32([16777216, 5, 16777220]), np.array([16777217, 7, 16777217])
    assert fl.mse_loss(x, y, reduction="sum", backend=backend).loss == 1 + 4 + 9
    assert fl.rmse_loss(x, y, backend=backend).loss == np.sqrt(14 / 3)
    np.testing.assert_array_equal(fl.grad_hess(fl.mse_loss, x, y, backend=backend).grad, [-2, -4, 6])
    in_place = x.copy()
    fl.mse_loss(in_place, y, reduction="sum", out=in_place, backend=backend)
    np.testing.assert_array_equal(in_place, [-2, -4, 6])
    total = fl.LossSum("mse_loss", (3,), backend=backend)
    total.update(x, y)
    assert total.total == 14
    half = fl.l1_loss(np.float16([2048, 1]), np.array([16777217, 3]), reduction="none", backend=backend)
    np.testing.assert_array_equal(half.grad, [-1, -1])


@pytest.mark.parametrize("size", [1e-310, 1e-250, 1e-160, 1e-45, 1e-25, 1e-19, 1.0, 1e19, 1e38, 3e38, 1e155, 1e300])
def test_a_root_mean_square_is_right_wherever_it_can_be_held(backend, dtype, size):
    if not 0 < np.dtype(dtype).type(size) < np.inf:
        pytest.skip("not in float32's range")
    residual = np.array([3, -4, 0, 0], np.float64) * size / 4
    x = residual.astype(dtype)
    wide = np.ldexp(x.astype(np.longdouble), 0)
    root = np.sqrt((wide / wide[1]) ** 2 @ np.ones(4) / 4) * -wide[1]
    for weight in (None, np.full(4, 1e250), np.full(4, 1e-250)):
        mode = "mean" if weight is None else "weighted_mean"
        found = fl.rmse_loss(x, 0 * x, sample_weight=weight, reduction=mode, backend=backend)
        np.testing.assert_allclose(found.loss, float(root), rtol=1e-13 if size > 1e-300 else 1e-9)
        wanted = (wide / root / 4).astype(float)
        np.testing.assert_allclose(found.grad, wanted, rtol=1e-6 if dtype == "float32" else 1e-12)


def test_a_root_mean_square_weighs_small_residuals_in_full(backend):
    # The first square alone would not be a float32, its weighted one is most of the sum.
    x = np.float32([1e-22, 1])
    found = fl.rmse_loss(x, 0 * x, sample_weight=[1e50, 1e-10], backend=backend)
    np.testing.assert_allclose(found.loss, np.sqrt(0.5e6), rtol=1e-7)
    x = np.array([1e-170, 1e170])
    found = fl.rmse_loss(x, 0 * x, sample_weight=[1e300, 1e-300], normalizer=1.0, backend=backend)
    np.testing.assert_allclose(found.loss, 1e20, rtol=1e-14)


def test_a_root_of_nothing_and_of_less_than_nothing(backend):
    zeros = np.zeros(2)
    assert_same_bits(fl.rmse_loss(zeros, zeros, backend=backend), (0.0, zeros))
    options = {"sample_weight": np.array([-3.0, 1.0]), "backend": backend}
    with pytest.raises(ValueError, match=r"sample_weight must not make the mean of squares negative, got .* -1\.0"):
        fl.rmse_loss(zeros, zeros + 1, **options)
    found = fl.rmse_loss(zeros, zeros + 1, reduction="weighted_mean", **options)
    assert found.loss == 1.0
    np.testing.assert_array_equal(found.grad, [-1.5, 0.5])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("factor", [1e-30, 1e-8, 0.1, 1e5, 1e30])
def test_factors_of_the_positive_class_are_the_same_as_numbers_and_as_arrays(backend, dtype, factor):
    x, y = np.array([1.5, 2.0, -3.0], dtype), np.array([1, 0, 1])
    number = fl.bce_with_logits(x, y, pos_weight=factor, backend=backend)
    for array in (np.full(3, factor), [factor] * 3):
        assert_same_bits(fl.bce_with_logits(x, y, pos_weight=array, backend=backend), number)
        assert_same_bits(
            fl.grad_hess(fl.bce_with_logits, x, y, pos_weight=array, backend=backend),
            fl.grad_hess(fl.bce_with_logits, x, y, pos_weight=factor, backend=backend),
        )


def test_a_factor_beyond_float32_is_refused_beside_float32(backend):
    x, y = np.float32([1, 2]), np.array([1, 0])
    with pytest.raises(ValueError, match=r"pos_weight must be positive and finite, within float32's range, got 1e\+39"):
        fl.bce_with_logits(x, y, pos_weight=np.array([1.0, 1e39]), backend=backend)
    factors = np.array([1.0, 1e39])
    kept = fl.bce_with_logits(x, y, pos_weight=factors, mask=[True, False], backend=backend)
    assert_same_bits(kept, fl.bce_with_logits(x, y, mask=[True, False], backend=backend))
    wide = fl.bce_with_logits(np.array([-800.0]), np.array([1]), pos_weight=np.array([1e300]), backend=backend)
    assert wide.loss == 800e300


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_parameters_follow_the_range_of_the_predictions_type(name, backend):
    # One that float32 cannot hold is refused beside float32; beside float64 it counts.
    facts = LOSSES[name]
    for param in facts.params:
        for value in (1e-300, 1e300):
            if facts.kind != "elementwise" or param.length or not param.valid(value):
                continue
            call = build(name, "float32", (9,)).with_params(**{param.name: value})
            with pytest.raises(ValueError, match=f"{param.name} must lie within float32's range"):
                call(backend)
            call = build(name, "float64", (9,)).with_params(**{param.name: value})
            assert np.shape(call(backend, reduction="none").loss) == (9,)


@pytest.mark.parametrize("number", [1e-300, 1e-40, 1e40, 1e300])
@pytest.mark.parametrize("name", ["z_loss", "softcap", "temperature"])
def test_options_of_cross_entropy_lie_within_float32s_range(name, number, backend, dtype):
    logits, target = np.array([[1, 2, 3]], dtype), np.array([0])
    says = re.escape(f"{name} must lie within float32's range, got {number!r}")
    for call in (fl.cross_entropy, fl.cross_entropy_stats, functools.partial(fl.grad_hess, fl.cross_entropy)):
        with pytest.raises(ValueError, match=says):
            call(logits, target, backend=backend, **{name: number})


def test_a_parameter_beyond_float32_is_no_fault_of_float64_rows(backend):
    q = np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"delta must lie within float32's range, got 1e\+40"):
        fl.td_loss(q, [0], np.zeros(1), q, [False], delta=1e40, backend=backend)


@pytest.mark.parametrize("norm", ["mean", "range", "std", "iqr"])
@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_norms_of_targets_of_any_size(backend, norm, size):
    y = np.array([1.0, -2.0, 3.5, 0.5])
    usual = fl.nmae_loss(0 * y, y, norm=norm, backend=backend)
    found = fl.nmae_loss(0 * y, y * size, norm=norm, backend=backend)
    np.testing.assert_allclose(found.loss, usual.loss, rtol=1e-12)
    np.testing.assert_allclose(found.grad * size, usual.grad, rtol=1e-12)


@pytest.mark.parametrize("norm", ["mean", "range", "std", "iqr"])
def test_a_norm_that_targets_do_not_have_is_the_targets_fault(backend, norm):
    y = np.array([[1.0, 2.0], [np.inf, 3.0]])
    kept = np.array([[True, True], [False, True]])
    with pytest.raises(ValueError, match=rf"target must be finite where its '{norm}' .* got inf at index \(1, 0\)"):
        fl.nmae_loss(0 * np.ones((2, 2)), y, norm=norm, backend=backend)
    assert np.isfinite(fl.nmae_loss(np.ones((2, 2)), y, norm=norm, mask=kept, backend=backend).loss)
    with pytest.raises(ValueError, match=f"target must have a '{norm}' within float32's range"):
        fl.nmae_loss(np.zeros(2, np.float32), np.float32([1e-40, 4e-40]), norm=norm, backend=backend)
    missing = fl.nmae_loss(np.zeros(2), np.array([np.nan, 1.0]), norm=norm, backend=backend)
    assert np.isnan(missing.loss)
    # Of targets that are all 0 the norm is 0: then everything is NaN, also where a residual is 0.
    nothing = fl.nmae_loss(np.array([1.0, 0.0]), np.zeros(2), norm=norm, backend=backend)
    assert np.isnan([nothing.loss, *nothing.grad]).all()


@pytest.mark.parametrize("smoothing", [1.0, 0.2, 0.05, 1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("name", UNIT)
def test_smoothing_keeps_the_symmetry_of_both_classes(name, backend, dtype, smoothing):
    x = stratified(np.dtype(dtype).type, 8, low=-8, high=7)
    options = {"label_smoothing": smoothing, "reduction": "none", "backend": backend}
    there = getattr(fl, name)(x, np.ones_like(x), **options)
    back = getattr(fl, name)(-x, np.zeros_like(x), **options)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(there.loss, back.loss, rtol=2 * eps)
    np.testing.assert_allclose(there.grad, -back.grad, rtol=4 * eps, atol=eps * smoothing)
    wide = x.astype(np.float64)
    linear = smoothing / 2 * np.maximum(wide, 0) + (1 - smoothing / 2) * np.maximum(-wide, 0)
    wanted = linear + np.log1p(np.exp(-abs(wide)))
    np.testing.assert_allclose(there.loss, wanted, rtol=4 * eps)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_loss_gradient_and_hessian_are_not_numbers_together(name, backend):
    # Whatever a prediction is, if it is not refused: also where a select drops the term that has no value there.
    facts = LOSSES[name]
    values = np.array([-5.0, -1.0, -1e-3, -1e-9, 0.0, 1e-9, 0.5, 1.0, 3.0, np.nan])
    for case in variants(name, "float64", (2,)):
        for y in (0.0, 1.0, 2.0):
            if not DOMAINS[facts.target].valid(np.array(y)):
                continue
            for x in values[DOMAINS[facts.input].valid(values) | np.isnan(values)]:
                params = {key: v[:1] if isinstance(v, np.ndarray) else v for key, v in case.params.items()}
                args = np.array([x]), np.array([y])
                with np.errstate(all="ignore"):
                    found = getattr(fl, name)(*args, reduction="none", backend=backend, **params)
                    hess = fl.grad_hess(getattr(fl, name), *args, backend=backend, **params).hess
                missing = np.isnan([found.loss[0], found.grad[0], hess[0]])
                assert missing.all() == missing.any(), (x, y, params, found, hess)


@pytest.mark.parametrize("count", [0.0, 2.0])
@pytest.mark.parametrize("full", [False, True])
def test_a_negative_rate_is_not_a_number(backend, dtype, count, full):
    x, y = np.array([-5.0, -1e-9, 0.0, 1.0, np.inf], dtype), np.full(5, count, dtype)
    options = {"log_input": False, "full": full, "backend": backend}
    found = fl.poisson_nll_loss(x, y, reduction="none", **options)
    second = fl.grad_hess(fl.poisson_nll_loss, x, y, **options)
    for values in (found.loss, found.grad, second.hess):
        assert np.isnan(values[:2]).all()
        assert not np.isnan(values[2:4]).any()
