"""Losses of a score times the sign of its class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_HINGE_LOSS = LOSSES["hinge_loss"]
_SQUARED_HINGE_LOSS = LOSSES["squared_hinge_loss"]
_MODIFIED_HUBER_LOSS = LOSSES["modified_huber_loss"]
_EXPONENTIAL_LOSS = LOSSES["exponential_loss"]
_SOFT_MARGIN_LOSS = LOSSES["soft_margin_loss"]


@documented
def hinge_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Hinge loss of a score.

    Parameters
    ----------
    input : array_like of float, shape (...)
        Scores: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    {signs}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With t = 1 or -1 and m = t input::

        loss = max(0, 1 - m)
        grad = -t if m < 1, else 0
        hess = 1 if m < 1, else 0: what boosting uses in place of 0

    At the kink the gradient is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.hinge_loss(np.array([0.5, 2.0]), np.array([1, -1]), reduction="sum")
    LossGrad(loss=3.5, grad=array([-1.,  1.]))
    """
    params = _HINGE_LOSS.check()
    return _run.elementwise(
        _HINGE_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def squared_hinge_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Square of the hinge loss.

    Parameters
    ----------
    input : array_like of float, shape (...)
        Scores: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    {signs}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With t = 1 or -1 and m = t input::

        loss = max(0, 1 - m)^2
        grad = -2 t max(0, 1 - m)
        hess = 2 if m < 1, else 0

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.squared_hinge_loss(np.array([0.5, 2.0]), np.array([1, -1]), reduction="sum")
    LossGrad(loss=9.25, grad=array([-1.,  6.]))
    """
    params = _SQUARED_HINGE_LOSS.check()
    return _run.elementwise(
        _SQUARED_HINGE_LOSS,
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
def modified_huber_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Squared hinge loss that turns linear at a margin of -1.

    Parameters
    ----------
    input : array_like of float, shape (...)
        Scores: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    {signs}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With t = 1 or -1 and m = t input::

        loss = max(0, 1 - m)^2 if m >= -1, else -4 m
        grad = -2 t max(0, 1 - m) if m >= -1, else -4 t
        hess = 2 if -1 <= m < 1, else 0

    The convention is that of ``loss="modified_huber"`` in scikit-learn.

    References
    ----------
    Zhang, T. (2004). Solving large scale linear prediction problems using stochastic gradient descent. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.modified_huber_loss(np.array([0.5, 2.0]), np.array([1, -1]), reduction="sum")
    LossGrad(loss=8.25, grad=array([-1.,  4.]))
    """
    params = _MODIFIED_HUBER_LOSS.check()
    return _run.elementwise(
        _MODIFIED_HUBER_LOSS,
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
def exponential_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Exponential loss of a score, that of AdaBoost.

    Parameters
    ----------
    input : array_like of float, shape (...)
        Scores: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    {signs}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With t = 1 or -1 and m = t input::

        loss = exp(-m)
        grad = -t exp(-m)
        hess = exp(-m)

    References
    ----------
    Friedman, J., Hastie, T., Tibshirani, R. (2000). Additive logistic regression. Annals of Statistics 28(2).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.exponential_loss(np.array([0.0, 0.0]), np.array([1, -1]), reduction="sum")
    LossGrad(loss=2.0, grad=array([-1.,  1.]))
    """
    params = _EXPONENTIAL_LOSS.check()
    return _run.elementwise(
        _EXPONENTIAL_LOSS,
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
def soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Logistic loss of a score.

    Parameters
    ----------
    input : array_like of float, shape (...)
        Scores: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    {signs}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With t = 1 or -1 and m = t input::

        loss = log(1 + exp(-m))
        grad = -t sigmoid(-m)
        hess = sigmoid(m) sigmoid(-m)

    The convention is that of ``torch.nn.functional.soft_margin_loss``; with targets 0 and 1 it is
    :func:`binary_cross_entropy_with_logits`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.soft_margin_loss(np.array([0.0, 0.0]), np.array([1, -1]), reduction="sum").grad
    array([-0.5,  0.5])
    """
    params = _SOFT_MARGIN_LOSS.check()
    return _run.elementwise(
        _SOFT_MARGIN_LOSS,
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
