"""Losses of regression that forgive outliers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_HUBER_LOSS = LOSSES["huber_loss"]
_SMOOTH_L1_LOSS = LOSSES["smooth_l1_loss"]
_ASYMMETRIC_HUBER_LOSS = LOSSES["asymmetric_huber_loss"]
_LOG_COSH_LOSS = LOSSES["log_cosh_loss"]
_CAUCHY_LOSS = LOSSES["cauchy_loss"]


@documented
def huber_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    delta: float = 1.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Huber loss: quadratic for small residuals, linear for large ones.

    Parameters
    ----------
    {input}
    {target}
    delta : float, default 1.0
        Residual at which the loss turns linear; positive and finite.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and a = abs(r)::

        loss = r^2 / 2                if a <= delta, else delta (a - delta / 2)
        grad = clip(r, -delta, delta)
        hess = 1                      if a <= delta, else 0

    The convention is that of ``torch.nn.functional.huber_loss``.

    References
    ----------
    Huber, P. J. (1964). Robust estimation of a location parameter. Annals of Mathematical Statistics 35(1).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.huber_loss(np.array([0.5, 3.0]), np.array([0.0, 0.0]))
    LossGrad(loss=1.3125, grad=array([0.25, 0.5 ]))
    """
    params = _HUBER_LOSS.check(delta)
    return _run.elementwise(
        _HUBER_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def smooth_l1_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    beta: float = 1.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Smooth L1 loss: the Huber loss divided by its threshold.

    Parameters
    ----------
    {input}
    {target}
    beta : float, default 1.0
        Residual at which the loss turns linear; non-negative and finite. 0 gives the absolute error.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and a = abs(r)::

        loss = r^2 / (2 beta)         if a < beta, else a - beta / 2
        grad = clip(r / beta, -1, 1)  (0 at r = 0 where beta = 0)
        hess = 1 / beta               if a < beta, else 0 (1 throughout where beta = 0)

    The convention is that of ``torch.nn.functional.smooth_l1_loss``.

    References
    ----------
    Girshick, R. (2015). Fast R-CNN. ICCV.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.smooth_l1_loss(np.array([0.5, 3.0]), np.array([0.0, 0.0]), beta=2.0)
    LossGrad(loss=1.03125, grad=array([0.125, 0.5  ]))
    """
    params = _SMOOTH_L1_LOSS.check(beta)
    return _run.elementwise(
        _SMOOTH_L1_LOSS,
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
def asymmetric_huber_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    delta: float = 1.0,
    alpha: float = 1.0,
    continuous: bool = True,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Huber loss with another slope for predictions that are too low.

    Parameters
    ----------
    {input}
    {target}
    delta : float, default 1.0
        Residual at which the loss turns linear; positive and finite.
    alpha : float, default 1.0
        Factor of the slope below -delta; positive and finite.
    continuous : bool, default True
        False takes alpha times Huber's line below -delta, which jumps there unless alpha is 1.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and a = abs(r)::

        loss = r^2 / 2                              if a <= delta
               delta (a - delta / 2)                if r > delta
               delta^2 / 2 + alpha delta (a - delta)  if r < -delta and continuous
               alpha delta (a - delta / 2)            if r < -delta and not continuous
        grad = r, delta, -alpha delta
        hess = 1, 0, 0

    Both forms have the same gradient; at ``-delta`` itself it is that of the parabola.

    References
    ----------
    Huber, P. J. (1964). Robust estimation of a location parameter. Annals of Mathematical Statistics 35(1).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.asymmetric_huber_loss(np.array([3.0, -3.0]), np.zeros(2), alpha=2.0, reduction="none")
    LossGrad(loss=array([2.5, 4.5]), grad=array([ 1., -2.]))
    """
    params = _ASYMMETRIC_HUBER_LOSS.check(delta, alpha, continuous)
    return _run.elementwise(
        _ASYMMETRIC_HUBER_LOSS,
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
def log_cosh_loss(
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
    """Logarithm of the hyperbolic cosine of the residual: smooth between a parabola and a line.

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

        loss = log(cosh(r))
        grad = tanh(r)
        hess = 1 - tanh(r)^2

    Small residuals keep their digits, and large ones do not overflow: 1000 costs 1000 - log(2).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.log_cosh_loss(np.array([0.0, 1000.0]), np.zeros(2), reduction="none").loss.round(3)
    array([  0.   , 999.307])
    """
    params = _LOG_COSH_LOSS.check()
    return _run.elementwise(
        _LOG_COSH_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def cauchy_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    scale: float = 1.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Cauchy (Lorentzian) loss: logarithmic for outliers.

    Parameters
    ----------
    {input}
    {target}
    scale : float, default 1.0
        Residual at which the loss leaves the parabola; positive and finite.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and s = r / scale::

        loss = scale^2 / 2 log(1 + s^2)
        grad = r / (1 + s^2)
        hess = (1 - s^2) / (1 + s^2)^2, negative for outliers

    The convention is that of ``loss="cauchy"`` in ``scipy.optimize.least_squares``.

    References
    ----------
    Black, M. J., Anandan, P. (1996). The robust estimation of multiple motions. CVIU 63(1).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.cauchy_loss(np.array([1.0, 3.0]), np.zeros(2), reduction="sum").grad
    array([0.5, 0.3])
    """
    params = _CAUCHY_LOSS.check(scale)
    return _run.elementwise(
        _CAUCHY_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )
