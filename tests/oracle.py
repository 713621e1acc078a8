"""What a whole call must return, in float64 and without any of the package's machinery but the textbook."""

from __future__ import annotations

import math

import numpy as np

from fastloss import reference


def _spread(values, shape):
    """One value per sample, spread over the sample's entries."""
    values = np.asarray(values)
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)


def entries(case, kept):
    """Loss, gradient and weight in a mean of each entry, zero where not kept, and what comes last in a result."""
    flat = case.each(lambda a: a.reshape((-1, *a.shape[len(case.shape) :])))
    kept, x = kept.reshape(-1).copy(), flat.args[0]
    if case.facts.target == "class":
        kept &= flat.args[1] != case.params.get("ignore_index", -100)
    loss, grad, counted, last = np.zeros(len(x)), np.zeros(x.shape), np.zeros(len(x)), np.zeros(len(x))
    counted[kept] = 1.0
    chosen = flat.rows(kept)
    found = getattr(reference, case.loss)(*chosen.args, **chosen.params)
    loss[kept], grad[kept] = found[:2]
    if case.facts.class_weighted_mean:
        counted[kept] = found[2]
    if case.loss == "td_loss":
        last[kept] = found[2]
    if len(found) == 4:  # the gradient by the third array, scaled like the other one
        last[kept] = found[3]
    return loss, grad, counted, last


def expected(case, sample_weight=None, mask=None, reduction="mean", normalizer=None):
    """Loss, gradient and what else there is (TD errors, the gradient by a third array) of a call."""
    shape = case.shape
    kept = np.ones(shape, bool) if mask is None else _spread(mask, shape)
    weight = np.ones(shape) if sample_weight is None else _spread(sample_weight, shape)
    weight = np.where(kept, weight, 0.0).reshape(-1)
    loss, grad, counted, last = entries(case, kept)
    loss = loss * weight
    grad = grad * weight.reshape((-1,) + (1,) * (grad.ndim - 1))
    third = case.facts.needs_third
    last = last * weight if third else last
    grad, last = grad.reshape(case.args[0].shape), last.reshape(shape)
    if reduction == "none":
        return loss.reshape(shape), grad, last
    total = math.fsum(loss)
    if reduction == "sum":
        return total, grad, last
    divisor = math.fsum(counted * weight) if reduction == "weighted_mean" else math.fsum(counted)
    divisor = divisor if normalizer is None else normalizer
    if divisor == 0:
        return math.nan, np.zeros_like(grad), 0 * last if third else last
    return total / divisor, grad / divisor, last / divisor if third else last


def assert_close(result, wanted, dtype, what="") -> None:
    """Equal up to rounding; infinities and NaN in the same places."""
    eps = float(np.finfo(dtype).eps)
    for name, actual, right in zip(("loss", "grad", "last"), result, wanted, strict=False):
        if actual is None:
            continue
        right = np.asarray(right)
        size = np.max(np.abs(right), initial=0.0, where=np.isfinite(right))
        np.testing.assert_allclose(
            np.asarray(actual, np.float64), right, rtol=16 * eps, atol=8 * eps * size, err_msg=f"{name} {what}"
        )
