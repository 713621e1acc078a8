"""Losses of two classes and of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_BINARY_CROSS_ENTROPY = LOSSES["binary_cross_entropy"]
_SIGMOID_FOCAL_LOSS = LOSSES["sigmoid_focal_loss"]
_BINARY_POLY_LOSS = LOSSES["binary_poly_loss"]


@documented
def binary_cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    *,
    eps: float = 1e-7,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Binary cross-entropy of probabilities, clipped.

    Parameters
    ----------
    input : array_like of float, shape (...)
        Probabilities of the positive class, in [0, 1]: float16, bfloat16, float32 or float64, any strides.
    target : array_like, shape of ``input``
        Probabilities of the positive class, in [0, 1]: ``input``'s dtype, bool or any integer type.
    eps : float, default 1e-7
        Probabilities are clipped to [eps, 1 - eps]; above 0 and below 0.5.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With p = clip(input, eps, 1 - eps) and y = target::

        loss = -(y log(p) + (1 - y) log(1 - p))
        grad = (1 - y) / (1 - p) - y / p        (0 where input is clipped)
        hess = (1 - y) / (1 - p)^2 + y / p^2    (0 where input is clipped)

    The clip is that of Keras; PyTorch limits the logarithms to -100 instead. Where logits are at hand,
    :func:`binary_cross_entropy_with_logits` loses nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> p, y = np.array([0.9, 0.2, 0.7, 0.8, 0.3]), np.array([1, 0, 1, 1, 0])
    >>> round(fl.binary_cross_entropy(p, y).loss, 8)
    0.2529995
    """
    params = _BINARY_CROSS_ENTROPY.check(eps)
    return _run.elementwise(
        _BINARY_CROSS_ENTROPY,
        input,
        target,
        params,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
    )


@documented
def sigmoid_focal_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    alpha: float | None = None,
    gamma: float = 2.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Focal loss of a logit: binary cross-entropy that forgets what is easy.

    Parameters
    ----------
    {logits}
    {labels}
    alpha : float, optional
        Weight of the positive class, above 0 and below 1; the negative class gets 1 - alpha. By default both get 1.
    gamma : float, default 2.0
        Exponent, between 0 and 1000; 0 gives the binary cross-entropy.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With s = input for label 1 and -input for label 0, p = sigmoid(s), q = sigmoid(-s)::

        loss    = -alpha_t q^gamma log(p)
        dloss/ds = -alpha_t q^gamma (gamma p softplus(-s) + q)
        d2loss/ds2 = alpha_t q^gamma (gamma p softplus(-s) (gamma p - q) + p q (2 gamma + 1))

    Both tails keep their relative accuracy: no power of 1 - p is formed. The power makes ``gamma`` times as much of the
    error of log(q), which is that of a rounding: hence the bound that grows with ``gamma``. The Hessian may be negative
    (see ``floor`` of :func:`grad_hess`). The convention is that of ``torchvision.ops.sigmoid_focal_loss``.

    References
    ----------
    Lin, T.-Y. et al. (2017). Focal loss for dense object detection. ICCV.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.sigmoid_focal_loss(np.array([0.0, 0.0]), np.array([1, 0]), reduction="sum")
    >>> round(loss, 6)
    0.346574
    """
    params = _SIGMOID_FOCAL_LOSS.check(alpha, gamma)
    return _run.elementwise(
        _SIGMOID_FOCAL_LOSS,
        input,
        target,
        params,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
    )


@documented
def binary_poly_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    epsilon: float | ArrayLike = 1.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """PolyLoss of a logit: binary cross-entropy with its first polynomial coefficients moved.

    Parameters
    ----------
    {logits}
    {labels}
    epsilon : float or up to 6 of them, default 1.0
        Coefficients of (1 - p)^i / i, i = 1, 2, ...: a number is Poly-1, n of them Poly-n.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With s = input for label 1 and -input for label 0, p = sigmoid(s), q = 1 - p::

        loss     = -log(p) + sum of epsilon_i q^i / i
        dloss/ds = -q - p sum of epsilon_i q^i

    References
    ----------
    Leng, Z. et al. (2022). PolyLoss: a polynomial expansion perspective of classification loss functions. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.binary_poly_loss(np.array([0.0]), np.array([1]), epsilon=[1.0, 2.0]).grad
    array([-1.])
    """
    params = _BINARY_POLY_LOSS.check(epsilon)
    return _run.elementwise(
        _BINARY_POLY_LOSS,
        input,
        target,
        params,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
    )
