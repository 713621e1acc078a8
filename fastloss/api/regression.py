"""Losses of regression: squares and absolute values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._norms import target_norm
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_MSE_LOSS = LOSSES["mse_loss"]
_HALF_SQUARED_ERROR = LOSSES["half_squared_error"]
_L1_LOSS = LOSSES["l1_loss"]
_NMAE_LOSS = LOSSES["nmae_loss"]
_MAPE_LOSS = LOSSES["mape_loss"]
_MSLE_LOSS = LOSSES["msle_loss"]


@documented
def mse_loss(
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
    """Squared error.

    Parameters
    ----------
    {input}
    {target}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target::

        loss = r^2
        grad = 2 r
        hess = 2

    The convention (no factor 1/2) is that of ``torch.nn.functional.mse_loss``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.mse_loss(np.array([2.5, 3.0, 1.5, 4.0]), np.array([2.3, 3.2, 1.8, 3.7]))
    >>> round(loss, 12)
    0.065
    """
    params = _MSE_LOSS.check()
    return _run.elementwise(
        _MSE_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def half_squared_error(
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
    """Half the squared error, whose gradient is the residual.

    Parameters
    ----------
    {input}
    {target}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target::

        loss = r^2 / 2
        grad = r
        hess = 1

    The convention is that of scikit-learn's ``HalfSquaredError``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.half_squared_error(np.array([0.5, 3.0]), np.array([0.0, 0.0]), reduction="sum")
    LossGrad(loss=4.625, grad=array([0.5, 3. ]))
    """
    params = _HALF_SQUARED_ERROR.check()
    return _run.elementwise(
        _HALF_SQUARED_ERROR,
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
def l1_loss(
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
    """Absolute error.

    Parameters
    ----------
    {input}
    {target}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target::

        loss = abs(r)
        grad = sign(r), 0 at r = 0
        hess = 1, the value that boosting uses in place of 0

    The convention at the kink is that of ``torch.nn.functional.l1_loss``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.l1_loss(np.array([0.5, 3.0, -1.0]), np.array([0.5, 1.0, 0.0]), reduction="sum")
    LossGrad(loss=3.0, grad=array([ 0.,  1., -1.]))
    """
    params = _L1_LOSS.check()
    return _run.elementwise(
        _L1_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def rmse_loss(
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
    """Root of the mean squared error.

    Parameters
    ----------
    {input}
    {target}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and the mean over n kept elements::

        loss = sqrt(mean of r^2)
        grad = r / (n loss), 0 where the loss is 0

    Weights multiply the squares. ``reduction`` is ``"mean"`` or ``"weighted_mean"``: the loss belongs to all elements
    together, so it has no per-element form and no per-element Hessian. The gradient takes a second pass.

    Squares are taken in float64, of residuals far from 1 after division by a power of two, so the loss is right
    wherever it can be held. A mean of squares that weights make negative is an error; NaN in input or target makes
    loss and gradient NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.rmse_loss(np.array([3.0, 4.0]), np.array([0.0, 0.0])).grad.round(6)
    array([0.424264, 0.565685])
    """
    return _run.root_mean_square(
        input, target, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def nmae_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    norm: str | float = "mean",
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Absolute error, normalized by the size of the targets.

    Parameters
    ----------
    {input}
    {target}
    norm : {"mean", "range", "std", "iqr"} or float, default "mean"
        What the error is divided by: the mean of abs(target), the targets' range, their standard deviation (of the
        population) or their interquartile range, all over the kept elements and without weights; or a number.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target::

        loss = abs(r) / norm
        grad = sign(r) / norm, 0 at r = 0
        hess = 1 / norm, the value that boosting uses in place of 0

    The norm depends on targets alone, so it carries no gradient. With ``"mean"`` the mean loss is
    ``sum(abs(r)) / sum(abs(target))``; a norm of 0 makes loss and gradient NaN, also where r is 0. A norm that
    comes from the data asks for finite targets.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.nmae_loss(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    LossGrad(loss=0.5, grad=array([-0.25,  0.25]))
    """
    params = _NMAE_LOSS.check(target_norm(norm, input, target, mask))
    return _run.elementwise(
        _NMAE_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def mape_loss(
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
    """Absolute error in percent of the target.

    Parameters
    ----------
    {input}
    {target}
    eps : float, default 1e-7
        Least size of a target; positive and finite.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and s = max(abs(target), eps)::

        loss = 100 abs(r) / s
        grad = 100 sign(r) / s, 0 at r = 0
        hess = 100 / s, the value that boosting uses in place of 0

    Percent and ``eps`` are those of Keras; scikit-learn's metric has neither the factor 100 nor an ``eps`` that
    matters.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.mape_loss(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
    LossGrad(loss=37.5, grad=array([-25. , -12.5]))
    """
    params = _MAPE_LOSS.check(eps)
    return _run.elementwise(
        _MAPE_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def msle_loss(
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
    """Squared difference of logarithms.

    Parameters
    ----------
    {input}
    {target}
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With d = log(1 + input) - log(1 + target)::

        loss = d^2
        grad = 2 d / (1 + input)
        hess = 2 (1 - d) / (1 + input)^2, which may be negative

    Predictions and targets must be above -1 (scikit-learn's convention; Keras clips them, XGBoost has a factor 1/2).
    The difference is computed as the logarithm of the ratio, so close values keep their digits.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.msle_loss(np.array([1.0]), np.array([0.0]))
    >>> round(loss, 6)
    0.480453
    """
    params = _MSLE_LOSS.check()
    return _run.elementwise(
        _MSLE_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )
