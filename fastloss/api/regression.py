"""Losses of regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._run import LossGrad
from fastloss._types import Reduction
from fastloss.registry import LOSSES

_HUBER_LOSS = LOSSES["huber_loss"]
_SMOOTH_L1_LOSS = LOSSES["smooth_l1_loss"]
_MSE_LOSS = LOSSES["mse_loss"]
_L1_LOSS = LOSSES["l1_loss"]


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
    input : array_like of float, shape (...)
        Predictions: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    target : array_like, shape of ``input``
        Targets: ``input``'s dtype, bool or any integer type.
    delta : float, default 1.0
        Residual at which the loss turns linear; positive and finite.
    sample_weight : array_like of float or int, optional
        Factor of each element's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a element. A masked element contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept elements, ``"weighted_mean"`` by the sum of their weights,
        ``"none"`` returns each element's loss and its own gradient. A mean over nothing is NaN, its gradient 0.
    normalizer : float, optional
        Replaces the divisor of a mean (gradient accumulation over micro-batches).
    grad : bool, default True
        False computes no gradient.
    out : ndarray, optional
        Receives the gradient; shape and dtype of ``input``. It may be ``input`` itself. After an exception its
        content is undefined, except that ``input`` is never lost to bad indices or targets.
    n_threads : int, optional
        Threads to use; by default as many as pay, up to :func:`get_num_threads`. No result depends on it.
    backend : {"cython", "numba", "numpy"}, optional
        By default the best that is available, or what :func:`use_backend` says.

    Returns
    -------
    LossGrad
        ``loss``, a float (an array of ``input``'s shape and dtype for ``reduction="none"``), and ``grad``, the
        derivative of that loss with respect to ``input``.

    Raises
    ------
    TypeError
        For a wrong dtype or type.
    ValueError
        For a wrong shape, parameter or option; the message names the argument.

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
    input : array_like of float, shape (...)
        Predictions: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    target : array_like, shape of ``input``
        Targets: ``input``'s dtype, bool or any integer type.
    beta : float, default 1.0
        Residual at which the loss turns linear; non-negative and finite. 0 gives the absolute error.
    sample_weight : array_like of float or int, optional
        Factor of each element's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a element. A masked element contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept elements, ``"weighted_mean"`` by the sum of their weights,
        ``"none"`` returns each element's loss and its own gradient. A mean over nothing is NaN, its gradient 0.
    normalizer : float, optional
        Replaces the divisor of a mean (gradient accumulation over micro-batches).
    grad : bool, default True
        False computes no gradient.
    out : ndarray, optional
        Receives the gradient; shape and dtype of ``input``. It may be ``input`` itself. After an exception its
        content is undefined, except that ``input`` is never lost to bad indices or targets.
    n_threads : int, optional
        Threads to use; by default as many as pay, up to :func:`get_num_threads`. No result depends on it.
    backend : {"cython", "numba", "numpy"}, optional
        By default the best that is available, or what :func:`use_backend` says.

    Returns
    -------
    LossGrad
        ``loss``, a float (an array of ``input``'s shape and dtype for ``reduction="none"``), and ``grad``, the
        derivative of that loss with respect to ``input``.

    Raises
    ------
    TypeError
        For a wrong dtype or type.
    ValueError
        For a wrong shape, parameter or option; the message names the argument.

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
    input : array_like of float, shape (...)
        Predictions: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    target : array_like, shape of ``input``
        Targets: ``input``'s dtype, bool or any integer type.
    sample_weight : array_like of float or int, optional
        Factor of each element's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a element. A masked element contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept elements, ``"weighted_mean"`` by the sum of their weights,
        ``"none"`` returns each element's loss and its own gradient. A mean over nothing is NaN, its gradient 0.
    normalizer : float, optional
        Replaces the divisor of a mean (gradient accumulation over micro-batches).
    grad : bool, default True
        False computes no gradient.
    out : ndarray, optional
        Receives the gradient; shape and dtype of ``input``. It may be ``input`` itself. After an exception its
        content is undefined, except that ``input`` is never lost to bad indices or targets.
    n_threads : int, optional
        Threads to use; by default as many as pay, up to :func:`get_num_threads`. No result depends on it.
    backend : {"cython", "numba", "numpy"}, optional
        By default the best that is available, or what :func:`use_backend` says.

    Returns
    -------
    LossGrad
        ``loss``, a float (an array of ``input``'s shape and dtype for ``reduction="none"``), and ``grad``, the
        derivative of that loss with respect to ``input``.

    Raises
    ------
    TypeError
        For a wrong dtype or type.
    ValueError
        For a wrong shape, parameter or option; the message names the argument.

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
    input : array_like of float, shape (...)
        Predictions: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    target : array_like, shape of ``input``
        Targets: ``input``'s dtype, bool or any integer type.
    sample_weight : array_like of float or int, optional
        Factor of each element's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a element. A masked element contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept elements, ``"weighted_mean"`` by the sum of their weights,
        ``"none"`` returns each element's loss and its own gradient. A mean over nothing is NaN, its gradient 0.
    normalizer : float, optional
        Replaces the divisor of a mean (gradient accumulation over micro-batches).
    grad : bool, default True
        False computes no gradient.
    out : ndarray, optional
        Receives the gradient; shape and dtype of ``input``. It may be ``input`` itself. After an exception its
        content is undefined, except that ``input`` is never lost to bad indices or targets.
    n_threads : int, optional
        Threads to use; by default as many as pay, up to :func:`get_num_threads`. No result depends on it.
    backend : {"cython", "numba", "numpy"}, optional
        By default the best that is available, or what :func:`use_backend` says.

    Returns
    -------
    LossGrad
        ``loss``, a float (an array of ``input``'s shape and dtype for ``reduction="none"``), and ``grad``, the
        derivative of that loss with respect to ``input``.

    Raises
    ------
    TypeError
        For a wrong dtype or type.
    ValueError
        For a wrong shape, parameter or option; the message names the argument.

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
