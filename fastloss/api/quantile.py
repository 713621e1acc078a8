"""Losses of regression that weigh the two sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_PINBALL_LOSS = LOSSES["pinball_loss"]
_EXPECTILE_LOSS = LOSSES["expectile_loss"]
_QUANTILE_HUBER_LOSS = LOSSES["quantile_huber_loss"]


@documented
def pinball_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    quantile: float = 0.5,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Pinball loss: its minimum is a quantile.

    Parameters
    ----------
    {input}
    {target}
    quantile : float, default 0.5
        Quantile to estimate, above 0 and below 1.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With u = target - input and q = quantile::

        loss = q u   if u >= 0, else (q - 1) u
        grad = -q    if u >= 0, else 1 - q
        hess = 1, the value that boosting uses in place of 0

    The convention at the tie is that of scikit-learn; LightGBM gives 1 - q there.

    References
    ----------
    Koenker, R., Bassett, G. (1978). Regression quantiles. Econometrica 46(1).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.pinball_loss(np.array([1.0, 3.0]), np.array([2.0, 2.0]), quantile=0.75, reduction="sum")
    LossGrad(loss=1.0, grad=array([-0.75,  0.25]))
    """
    params = _PINBALL_LOSS.check(quantile)
    return _run.elementwise(
        _PINBALL_LOSS, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
    )


@documented
def expectile_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    expectile: float = 0.5,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Squared error weighted by side: its minimum is an expectile.

    Parameters
    ----------
    {input}
    {target}
    expectile : float, default 0.5
        Expectile to estimate, above 0 and below 1.
    {common}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    With r = input - target and w = 1 - expectile if r > 0, else expectile::

        loss = w r^2
        grad = 2 w r
        hess = 2 w

    References
    ----------
    Newey, W. K., Powell, J. L. (1987). Asymmetric least squares estimation and testing. Econometrica 55(4).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.expectile_loss(np.array([1.0, 3.0]), np.array([2.0, 2.0]), expectile=0.75, reduction="sum")
    LossGrad(loss=1.0, grad=array([-1.5,  0.5]))
    """
    params = _EXPECTILE_LOSS.check(expectile)
    return _run.elementwise(
        _EXPECTILE_LOSS,
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
def quantile_huber_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    quantile: float = 0.5,
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
    """Huber loss weighted by side, as in distributional reinforcement learning.

    Parameters
    ----------
    {input}
    {target}
    quantile : float, default 0.5
        Quantile to estimate, above 0 and below 1.
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
    With u = target - input and w = quantile if u >= 0, else 1 - quantile::

        loss = w huber(u, delta)
        grad = -w clip(u, -delta, delta)
        hess = w if abs(u) <= delta, else 0

    Per element; not divided by ``delta``, as in rlax.

    References
    ----------
    Dabney, W. et al. (2018). Distributional reinforcement learning with quantile regression. AAAI.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.quantile_huber_loss(np.array([1.0, 5.0]), np.array([2.0, 2.0]), quantile=0.75, reduction="sum")
    LossGrad(loss=1.0, grad=array([-0.75,  0.25]))
    """
    params = _QUANTILE_HUBER_LOSS.check(quantile, delta)
    return _run.elementwise(
        _QUANTILE_HUBER_LOSS,
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
