"""Losses of overlap between predictions and labels, for segmentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _overlap
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import flag, non_negative

_SMOOTH, _ALPHA, _BETA = non_negative("smooth", 1.0), non_negative("alpha", 0.5), non_negative("beta", 0.5)
_SQUARED, _FROM_LOGITS = flag("squared", False), flag("from_logits", True)


@documented
def dice_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    smooth: float = 1.0,
    squared: bool = False,
    from_logits: bool = True,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Dice loss: one minus the share of overlap, per sample and class.

    Parameters
    ----------
    input : array_like of float, shape (N, C, ...)
        Logits (or probabilities): samples first, classes second, what is summed over (pixels, frames) after that.
        Without further axes every element is a sum of its own.
    target : array_like, shape of ``input``
        Labels, or shares in [0, 1]: ``input``'s dtype, bool or any integer type.
    smooth : float, default 1.0
        Added to numerator and denominator: where nothing is there and nothing is predicted, the loss is 0.
    squared : bool, default False
        Squares in the denominator.
    from_logits : bool, default True
        False takes ``input`` as probabilities in [0, 1].
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With p = sigmoid(input), y = target and sums over a sample's class::

        loss = 1 - (2 sum of p y + smooth) / (sum of p + sum of y + smooth)
        loss = 1 - (2 sum of p y + smooth) / (sum of p^2 + sum of y^2 + smooth)    if squared

    Sums run over all axes but the first two; the loss has one value per sample and class, of shape (N, C), which is
    what ``sample_weight``, ``mask`` and ``reduction`` see. Computed in float64.

    References
    ----------
    Milletari, F., Navab, N., Ahmadi, S.-A. (2016). V-Net. 3DV.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> x, y = np.array([[[1.0, 0.0, 0.5]]]), np.array([[[1, 0, 1]]])
    >>> round(fl.dice_loss(x, y, smooth=0.0, from_logits=False).loss, 12)
    0.142857142857
    """
    (number,), (squares,) = _SMOOTH(smooth), _SQUARED(squared)
    (logits,) = _FROM_LOGITS(from_logits)
    return _overlap.overlap(
        _overlap.dice(number, bool(squares)), input, target, bool(logits), sample_weight, mask, reduction, normalizer,
        grad, out, n_threads, backend,
    )  # fmt: skip


@documented
def tversky_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1.0,
    from_logits: bool = True,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Tversky loss: overlap with different prices of false positives and false negatives.

    Parameters
    ----------
    input : array_like of float, shape (N, C, ...)
        Logits (or probabilities): samples first, classes second, what is summed over (pixels, frames) after that.
        Without further axes every element is a sum of its own.
    target : array_like, shape of ``input``
        Labels, or shares in [0, 1]: ``input``'s dtype, bool or any integer type.
    alpha : float, default 0.5
        Price of false positives, non-negative.
    beta : float, default 0.5
        Price of false negatives, non-negative.
    smooth : float, default 1.0
        Added to numerator and denominator: where nothing is there and nothing is predicted, the loss is 0.
    from_logits : bool, default True
        False takes ``input`` as probabilities in [0, 1].
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With p = sigmoid(input), y = target, TP = sum of p y, FP = sum of p (1 - y), FN = sum of (1 - p) y::

        loss = 1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth)

    With both prices 0.5 it is the Dice loss with twice the ``smooth``.

    Sums run over all axes but the first two; the loss has one value per sample and class, of shape (N, C), which is
    what ``sample_weight``, ``mask`` and ``reduction`` see. Computed in float64.

    References
    ----------
    Salehi, S. S. M., Erdogmus, D., Gholipour, A. (2017). Tversky loss function for image segmentation. MLMI.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> x, y = np.array([[[1.0, 0.0, 0.5]]]), np.array([[[1, 0, 1]]])
    >>> round(fl.tversky_loss(x, y, beta=1.0, smooth=0.0, from_logits=False).loss, 12)
    0.25
    """
    (price,), (other,) = _ALPHA(alpha), _BETA(beta)
    (number,), (logits,) = _SMOOTH(smooth), _FROM_LOGITS(from_logits)
    return _overlap.overlap(
        _overlap.tversky(price, other, number), input, target, bool(logits), sample_weight, mask, reduction, normalizer,
        grad, out, n_threads, backend,
    )  # fmt: skip
