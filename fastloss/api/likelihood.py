"""Negative log-likelihoods of counts, amounts and normal variables."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._results import GaussianLossGrad, LossGrad
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_POISSON_NLL_LOSS = LOSSES["poisson_nll_loss"]
_GAUSSIAN_NLL_LOSS = LOSSES["gaussian_nll_loss"]
_GAMMA_NLL_LOSS = LOSSES["gamma_nll_loss"]
_TWEEDIE_LOSS = LOSSES["tweedie_loss"]


@documented
def poisson_nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Negative log-likelihood of a Poisson count.

    Parameters
    ----------
    {input}
    target : array_like, shape of ``input``
        Counts or amounts, non-negative: ``input``'s dtype, bool or any integer type.
    log_input : bool, default True
        Whether ``input`` is the logarithm of the rate, or the rate itself.
    full : bool, default False
        Adds Stirling's approximation of log(target!) for targets above 1.
    eps : float, default 1e-8
        Added to a rate before its logarithm is taken; positive.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With x = input and y = target::

        log_input:      loss = exp(x) - y x          grad = exp(x) - y          hess = exp(x)
        not log_input:  loss = x - y log(x + eps)    grad = 1 - y / (x + eps)   hess = y / (x + eps)^2
        full:           loss + y log(y) - y + log(2 pi y) / 2 where y > 1

    A negative rate gives NaN: loss, gradient and Hessian, whatever the target. The convention is that of
    ``torch.nn.functional.poisson_nll_loss``. Where terms cancel, errors are relative to the terms.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.poisson_nll_loss(np.array([0.0, 1.0]), np.array([1, 2]), reduction="none").grad.round(6)
    array([0.      , 0.718282])
    """
    params = _POISSON_NLL_LOSS.check(log_input, full, eps)
    return _run.elementwise(
        _POISSON_NLL_LOSS,
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
def gaussian_nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    var: ArrayLike,
    *,
    full: bool = False,
    eps: float = 1e-6,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> GaussianLossGrad:
    """Negative log-likelihood of a normal variable with predicted mean and variance.

    Parameters
    ----------
    {input}
    {target}
    var : array_like, shape and dtype of ``input``
        Predicted variances, non-negative. The shape may be that of the last axis: then one value for each column.
    full : bool, default False
        Adds the constant log(2 pi) / 2.
    eps : float, default 1e-6
        Least variance; positive.
    {common}

    Returns
    -------
    GaussianLossGrad
        ``loss``, a float (an array of ``input``'s shape and dtype for ``reduction="none"``), and its derivatives
        ``grad`` with respect to ``input`` and ``grad_var`` with respect to each element's variance, both of
        ``input``'s shape.

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and v = max(var, eps)::

        loss     = (log(v) + r^2 / v) / 2
        grad     = r / v
        hess     = 1 / v
        grad_var = (1 / v - r^2 / v^2) / 2, also where var is below eps

    The convention is that of ``torch.nn.functional.gaussian_nll_loss``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.gaussian_nll_loss(np.array([1.0, 3.0]), np.array([0.0, 3.0]), np.array([1.0, 2.0]), reduction="sum")
    GaussianLossGrad(loss=0.8465735902799727, grad=array([1., 0.]), grad_var=array([0.  , 0.25]))
    """
    params = _GAUSSIAN_NLL_LOSS.check(full, eps)
    found = _run.elementwise(
        _GAUSSIAN_NLL_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads,
        backend, third=var, want_third=True,
    )  # fmt: skip
    return GaussianLossGrad(*found)


@documented
def gamma_nll_loss(
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
    """Negative log-likelihood of a gamma variable whose log-mean is predicted.

    Parameters
    ----------
    {input}
    target : array_like, shape of ``input``
        Amounts, positive: ``input``'s dtype, bool or any integer type.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With x = input and y = target, without terms that do not depend on x::

        loss = x + y exp(-x)
        grad = 1 - y exp(-x)
        hess = y exp(-x)

    The convention is that of scikit-learn's ``HalfGammaLoss``. Where terms cancel, errors are relative to the terms.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.gamma_nll_loss(np.array([0.0, 0.0]), np.array([1.0, 3.0]), reduction="none")
    LossGrad(loss=array([1., 3.]), grad=array([ 0., -2.]))
    """
    params = _GAMMA_NLL_LOSS.check()
    return _run.elementwise(
        _GAMMA_NLL_LOSS,
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
def tweedie_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    power: float = 1.5,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Tweedie loss of a predicted log-mean: amounts that are often 0.

    Parameters
    ----------
    {input}
    target : array_like, shape of ``input``
        Counts or amounts, non-negative: ``input``'s dtype, bool or any integer type.
    power : float, default 1.5
        Exponent of the variance in the mean, above 1 and below 2. The ends are :func:`poisson_nll_loss` and
        :func:`gamma_nll_loss`.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With x = input, y = target and p = power, without terms that do not depend on x::

        loss = exp((2 - p) x) / (2 - p) - y exp((1 - p) x) / (1 - p)
        grad = exp((2 - p) x) - y exp((1 - p) x)
        hess = (2 - p) exp((2 - p) x) - (1 - p) y exp((1 - p) x)

    The convention is that of XGBoost's ``reg:tweedie`` and scikit-learn's ``HalfTweedieLoss``.

    References
    ----------
    Jorgensen, B. (1987). Exponential dispersion models. Journal of the Royal Statistical Society B 49(2).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.tweedie_loss(np.array([0.0, 0.0]), np.array([1.0, 3.0]), reduction="none")
    LossGrad(loss=array([4., 8.]), grad=array([ 0., -2.]))
    """
    params = _TWEEDIE_LOSS.check(power)
    return _run.elementwise(
        _TWEEDIE_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )
