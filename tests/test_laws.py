"""Laws that hold between calls, on inputs that hypothesis makes up."""

from itertools import pairwise

import numpy as np
import pytest
from cases import ELEMENTWISE, LOSS_NAMES, ROWS, UNIT, assert_same_bits, build, param_sets
from hypothesis import given, settings
from hypothesis import strategies as st

import fastloss as fl
from fastloss.registry import LOSSES

ANY = st.floats(width=32)
FINITE = st.floats(-60, 60, width=32)
SIZES = st.integers(1, 90)
SHIFTS = st.integers(-(2**16), 2**16)
SEEDS = st.integers(0, 2**31)
# A relative tolerance for what is computed by two different ways in float64.
CLOSE = {"rtol": 1e-13, "atol": 1e-14}
# What is the same code for every loss needs fewer examples of each.
FEW = settings(max_examples=12)
# The norm of nmae_loss comes from all targets of a call.
POINTWISE = [name for name in LOSS_NAMES if name != "nmae_loss"]


def floats(elements):
    return st.lists(elements, min_size=1, max_size=90).map(lambda values: np.array(values, np.float32))


@pytest.mark.parametrize("name", UNIT)
@given(x=floats(ANY), seed=SEEDS)
def test_mirror(name, compiled, x, seed):
    # L(z, y) = L(-z, 1 - y), bit by bit, wherever 1 - y is exact.
    y = np.random.default_rng(seed).choice([0, 0.25, 0.5, 1], x.size).astype(np.float32)
    call = getattr(fl, name)
    there, back = (call(*a, reduction="none", backend=compiled) for a in ((x, y), (-x, 1 - y)))
    assert_same_bits((there.loss, there.grad + 0), (back.loss, 0 - back.grad))


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if LOSSES[n].family == "distance" and n in POINTWISE])
@given(x=floats(ANY), seed=SEEDS)
def test_distances_are_symmetric(name, compiled, x, seed):
    y = np.random.default_rng(seed).permutation(x)
    call = getattr(fl, name)
    with np.errstate(all="ignore"):
        there, back = (call(*a, reduction="none", backend=compiled) for a in ((x, y), (y, x)))
        assert_same_bits((there.loss, there.grad + 0), (back.loss, 0 - back.grad))
        signed = call(-x, -y, reduction="none", backend=compiled)
        assert_same_bits((there.loss, there.grad + 0), (signed.loss, 0 - signed.grad))


@given(width=st.sampled_from([2, 3, 17, 32, 33, 70]), rows=st.integers(1, 20), seed=SEEDS, shift=SHIFTS)
def test_cross_entropy_does_not_see_a_common_shift(compiled, dtype, width, rows, seed, shift):
    # Multiples of 1/16, so that every shifted logit is exact: nothing but rounding inside may differ.
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(-400, 400, (rows, width)) / 16).astype(dtype), rng.integers(0, width, rows)
    shifted = (x + shift).astype(dtype)
    for smoothing in (0.0, 0.25):
        options = {"label_smoothing": smoothing, "reduction": "none", "backend": compiled}
        here, there = fl.cross_entropy(x, y, **options), fl.cross_entropy(shifted, y, **options)
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(here.loss, there.loss, rtol=8 * eps)
        # With smoothing the gradient is a difference of probabilities.
        np.testing.assert_allclose(here.grad, there.grad, rtol=8 * eps, atol=eps if smoothing else 1e-44)


@given(x=st.lists(FINITE, min_size=1, max_size=60), seed=SEEDS, smoothing=st.sampled_from([0.0, 0.125, 1.0]))
def test_two_classes_are_a_binary_loss(backend, x, seed, smoothing):
    x = np.array(x, np.float64)
    y = np.random.default_rng(seed).integers(0, 2, x.size)
    options = {"reduction": "none", "label_smoothing": smoothing, "backend": backend}
    binary = fl.binary_cross_entropy_with_logits(x, y, **options)
    rows = fl.cross_entropy(np.stack([np.zeros_like(x), x], axis=1), y, **options)
    np.testing.assert_allclose(binary.loss, rows.loss, **CLOSE)
    np.testing.assert_allclose(binary.grad, rows.grad[:, 1], **CLOSE)
    np.testing.assert_allclose(rows.grad[:, 0], -rows.grad[:, 1], **CLOSE)


@pytest.mark.parametrize("name", POINTWISE)
@FEW
@given(size=SIZES, seed=SEEDS, share=st.floats(0, 1))
def test_a_mask_is_a_subset(name, backend, size, seed, share):
    case = build(name, "float64", (size,), seed=seed)
    kept = np.random.default_rng(seed).random(size) < share
    for reduction in ("mean", "sum", "none"):
        masked, subset = case(backend, mask=kept, reduction=reduction), case.rows(kept)(backend, reduction=reduction)
        np.testing.assert_allclose(masked.loss[kept] if reduction == "none" else masked.loss, subset.loss, **CLOSE)
        np.testing.assert_array_equal(masked.grad[kept], subset.grad)
        assert not masked.grad[~kept].any()


@pytest.mark.parametrize("name", POINTWISE)
@FEW
@given(size=SIZES, seed=SEEDS)
def test_an_integer_weight_is_a_repetition(name, backend, size, seed):
    case = build(name, "float64", (size,), seed=seed)
    times = np.random.default_rng(seed).integers(0, 4, size)
    times[0] += 1  # not all of them zero
    repeated = case.rows(np.repeat(np.arange(size), times))
    for weighted, plain in (("weighted_mean", "mean"), ("sum", "sum")):
        a, b = case(backend, sample_weight=times, reduction=weighted), repeated(backend, reduction=plain)
        np.testing.assert_allclose(a.loss, b.loss, **CLOSE)
        first = np.cumsum(times) - times
        some = times > 0
        scale = times[some].reshape((-1,) + (1,) * (a.grad.ndim - 1))
        np.testing.assert_allclose(a.grad[some], b.grad[first[some]] * scale, **CLOSE)


@pytest.mark.parametrize("name", POINTWISE)
@FEW
@given(size=SIZES, seed=SEEDS, cuts=st.lists(st.integers(0, 90), max_size=5))
def test_chunks_add_up_with_a_normalizer(name, backend, size, seed, cuts):
    case = build(name, "float64", (size,), seed=seed)
    edges = sorted({0, size, *(c for c in cuts if c < size)})
    parts = [case.rows(slice(a, b))(backend, normalizer=size) for a, b in pairwise(edges)]
    whole = case(backend)
    np.testing.assert_allclose(sum(part.loss for part in parts), whole.loss, **CLOSE)
    # The very gradients of the single call: nothing is rescaled.
    np.testing.assert_array_equal(np.concatenate([part.grad for part in parts]), whole.grad)


@given(x=floats(FINITE), seed=SEEDS, beta=st.sampled_from([0.125, 0.5, 1.0, 2.0, 3.7]))
def test_smooth_l1_is_huber_over_beta(backend, x, seed, beta):
    x = x.astype(np.float64)
    y = np.random.default_rng(seed).permutation(x) / 2
    smooth = fl.smooth_l1_loss(x, y, beta=beta, reduction="none", backend=backend)
    huber = fl.huber_loss(x, y, delta=beta, reduction="none", backend=backend)
    np.testing.assert_allclose(smooth.loss, huber.loss / beta, **CLOSE)
    np.testing.assert_allclose(smooth.grad, huber.grad / beta, **CLOSE)


@given(x=floats(FINITE), seed=SEEDS)
def test_limits_of_huber(backend, x, seed):
    x = x.astype(np.float64)
    y = np.random.default_rng(seed).permutation(x)
    wide = fl.huber_loss(x, y, delta=1e6, reduction="none", backend=backend)
    mse = fl.mse_loss(x, y, reduction="none", backend=backend)
    np.testing.assert_allclose(2 * wide.loss, mse.loss, **CLOSE)
    np.testing.assert_allclose(2 * wide.grad, mse.grad, **CLOSE)
    sharp = fl.smooth_l1_loss(x, y, beta=0.0, reduction="none", backend=backend)
    assert_same_bits(sharp, fl.l1_loss(x, y, reduction="none", backend=backend))


@pytest.mark.parametrize("name", ROWS)
@given(width=st.integers(2, 50), rows=st.integers(1, 12), seed=SEEDS)
def test_the_order_of_classes_is_a_name_only(name, backend, width, rows, seed):
    rng = np.random.default_rng(seed)
    case = build(name, "float64", (rows,), width, seed=seed)
    x, y = case.args
    weight, order = rng.random(width) + 0.1, rng.permutation(width)
    renamed = np.argsort(order)[y]
    for options in ({}, {"weight": weight}, {"weight": weight, **param_sets(name)[-1]}):
        changed = options | ({"weight": weight[order]} if "weight" in options else {})
        a = case.with_params(**options)(backend, reduction="none")
        b = case.with_args(x[:, order], renamed).with_params(**changed)(backend, reduction="none")
        np.testing.assert_allclose(a.loss, b.loss, **CLOSE)
        np.testing.assert_allclose(a.grad[:, order], b.grad, **CLOSE)


@pytest.mark.parametrize("name", POINTWISE)
@FEW
@given(size=SIZES, seed=SEEDS)
def test_the_order_of_entries_moves_gradients_along(name, compiled, dtype, size, seed):
    case = build(name, dtype, (size,), seed=seed)
    order = np.random.default_rng(seed).permutation(size)
    for reduction in ("none", "mean"):
        a, b = case(compiled, reduction=reduction), case.rows(order)(compiled, reduction=reduction)
        assert_same_bits((a.grad[order],), (b.grad,))


@pytest.mark.parametrize("name", [name for name in ROWS if LOSSES[name].family in ("softmax", "margin")])
@given(width=st.integers(2, 50), rows=st.integers(1, 12), seed=SEEDS)
def test_gradients_of_losses_that_see_no_shift_sum_to_nothing(name, backend, width, rows, seed):
    case = build(name, "float64", (rows,), width, seed=seed, **param_sets(name)[-1])
    result = case(backend, reduction="none")
    np.testing.assert_allclose(result.grad.sum(axis=1), 0, atol=1e-13)
    assert np.all(result.loss > 0 if LOSSES[name].family == "softmax" else result.loss >= 0)


@given(seed=SEEDS, rows=st.integers(1, 40), width=st.integers(1, 9))
def test_double_q_with_its_own_values_is_plain_q(backend, seed, rows, width):
    case = build("td_loss", "float64", (rows,), width, seed=seed)
    assert_same_bits(case.with_params(next_q_online=case.args[3])(backend), case(backend))
    legal = np.ones((rows, width), bool)
    assert_same_bits(case.with_params(next_action_mask=legal)(backend), case(backend))


@given(seed=SEEDS, rows=st.integers(1, 40), width=st.integers(1, 9))
def test_td_loss_is_a_distance_to_the_target(compiled, seed, rows, width):
    case = build("td_loss", "float64", (rows,), width, seed=seed)
    q, actions = case.args[:2]
    result = case(compiled, reduction="none")
    chosen = np.take_along_axis(q, actions[:, None], axis=1)[:, 0]
    direct = fl.huber_loss(-result.td_error, np.zeros(rows), reduction="none", backend=compiled)
    # The TD error is rounded; the loss knows what that took off.
    np.testing.assert_allclose(result.loss, direct.loss, rtol=1e-15)
    np.testing.assert_array_equal(np.take_along_axis(result.grad, actions[:, None], axis=1)[:, 0], direct.grad)
    target = chosen + result.td_error
    direct = fl.huber_loss(chosen, target, backend=compiled)
    np.testing.assert_allclose(direct.loss, case(compiled).loss, rtol=1e-10, atol=1e-14)
