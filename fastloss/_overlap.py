"""Losses of overlap: sums per sample and class first, then the gradient, all in float64.

Probabilities and their slopes come from the kernels; the sums are NumPy's, whose order depends on the shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastloss import _run, _validate
from fastloss._results import LossGrad
from fastloss.registry import LOSSES

# Predictions and targets of groups, as rows, to losses and (a, b, c): the gradient is a target + b + c prediction.
Terms = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def tversky(alpha: float, beta: float, smooth: float) -> Terms:
    """1 - n / d, written without the difference."""

    def terms(p, y):
        right, extra, missed = (p * y).sum(1), (p * (1 - y)).sum(1), ((1 - p) * y).sum(1)
        wrong = alpha * extra + beta * missed
        n, d = right + smooth, right + wrong + smooth
        return wrong / d, (1 - alpha - beta) * n / d / d - 1 / d, alpha * n / d / d, 0 * d

    return terms


def dice(smooth: float, squared: bool) -> Terms:
    """1 - n / d, written without the difference."""

    def terms(p, y):
        wrong = ((p - y) ** 2 if squared else p * (1 - y) + (1 - p) * y).sum(1)
        n = 2 * (p * y).sum(1) + smooth
        d = n + wrong
        slope = n / d / d
        return wrong / d, -2 / d, 0 * d if squared else slope, 2 * slope if squared else 0 * d

    return terms


@np.errstate(all="ignore")
def overlap(
    terms: Terms, input, target, from_logits, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
) -> LossGrad:
    """A loss of overlap; groups are the first two axes."""
    _validate.reduction(reduction, normalizer)
    x = _validate.floats("input", input)
    if x.ndim < 2:
        raise ValueError(f"input must have samples and classes on its first two axes, got shape {x.shape}")
    y, shape = _validate.element_target(target, x), x.shape[:2]
    groups, length = math.prod(shape), math.prod(x.shape[2:])
    weight, kept = _validate.sample_weight(sample_weight, shape), _validate.mask(mask, shape)
    readers = {"input": input, "target": target, "sample_weight": sample_weight, "mask": mask}
    buffers = _run.Buffers(x, shape, reduction, grad, out, readers)
    weight, divisor = _run.weighing(
        reduction, normalizer, weight, lambda w: _run._kept_weight(reduction, w, kept, groups)
    )
    used = np.ones(groups, bool) if mask is None else _run.spread(mask, shape).reshape(-1)
    _validate.check_unit("target", y, np.repeat(used, length), x.shape)
    p, labels = x.astype(np.float64).reshape(groups, length), y.astype(np.float64).reshape(groups, length)
    slope: np.ndarray | float = 1.0
    if from_logits:
        facts = LOSSES["soft_margin_loss"]
        p, slope = _run.grad_hess(facts, p, np.full_like(p, -1.0), (), None, None, n_threads, backend)
    else:
        _validate.check_unit("input", np.where(np.isnan(p), 0.0, p), np.repeat(used, length), x.shape)
    loss, a, b, c = terms(p, labels)
    factor = np.ones(groups) if weight is None else np.repeat(weight, groups // max(1, weight.size)).astype(np.float64)
    # Nothing predicted, nothing there, nothing added: no error. Masks select.
    empty = (p == 0).all(1) & (labels == 0).all(1) & np.isnan(loss)
    used &= ~empty
    loss = np.where(used, loss * factor, 0.0)
    if buffers.losses is not None:
        buffers.losses[...] = loss.reshape(shape)
    if buffers.grad is not None:
        rise = (a[:, None] * labels + b[:, None] + c[:, None] * p) * slope * (factor * _run._scale(divisor))[:, None]
        buffers.grad[...] = np.where(used[:, None], rise, 0.0).reshape(x.shape)
    return LossGrad(*buffers.finish(loss, divisor, reduction))
