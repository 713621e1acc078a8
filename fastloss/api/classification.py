"""Losses of classification."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run, _soft
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.registry import LOSSES

_BINARY_CROSS_ENTROPY_WITH_LOGITS = LOSSES["binary_cross_entropy_with_logits"]
_CROSS_ENTROPY = LOSSES["cross_entropy"]


def binary_cross_entropy_with_logits(
    input: ArrayLike,
    target: ArrayLike,
    *,
    pos_weight: float | ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Binary cross-entropy from logits, in the log-sigmoid form that keeps all digits.

    Parameters
    ----------
    input : array_like of float, shape (...)
        Logits: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.
    target : array_like, shape of ``input``
        Probabilities of the positive class, in [0, 1]: ``input``'s dtype, bool or any integer type.
    pos_weight : float or array_like, optional
        Factor of the positive class's term; positive. Multi-label: one value for each label on the last axis, of any
        real dtype.
    label_smoothing : float, default 0.0
        Moves every target towards 1/2: ``y (1 - label_smoothing) + label_smoothing / 2``.
    ignore_index : int, optional
        An element with this target, which must be of an integer type, counts as masked.
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
        For a wrong shape, parameter or option, or a target outside [0, 1]; the message names the argument and the
        first bad index.

    Notes
    -----
    With softplus(z) = log(1 + exp(z)), sigmoid s, P = ``pos_weight``, and y smoothed::

        loss = P y softplus(-z) + (1 - y) softplus(z)
        grad = (1 - y) s(z) - P y s(-z)
        hess = (1 + (P - 1) y) s(z) s(-z)

    For y in {0, 1} loss and gradient keep full relative accuracy at every z; infinite logits give the limits
    (a right answer costs 0). The convention is that of
    ``torch.nn.functional.binary_cross_entropy_with_logits``.

    References
    ----------
    Maechler, M. (2012). Accurately computing log(1 - exp(-abs(a))). Vignette of the R package Rmpfr.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.binary_cross_entropy_with_logits(np.array([20.0, -1.0]), np.array([1, 0]))
    >>> f"{grad[0]:.8e}"  # sigmoid(20) - 1 has lost half its digits
    '-1.03057681e-09'
    """
    third = None
    if ignore_index is not None:
        mask = _run.ignoring(target, ignore_index, mask)
    if pos_weight is None:
        pos_weight = 1.0
    elif np.ndim(pos_weight):
        third, pos_weight = _run.per_label("pos_weight", pos_weight, input, mask, backend), 1.0
    params = _BINARY_CROSS_ENTROPY_WITH_LOGITS.check(pos_weight, label_smoothing)
    return _run.elementwise(
        _BINARY_CROSS_ENTROPY_WITH_LOGITS,
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
        third,
    )


bce_with_logits = binary_cross_entropy_with_logits


def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    class_mask: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Cross-entropy of softmax probabilities from logits, with class indices or soft targets.

    Parameters
    ----------
    input : array_like of float, shape (..., C)
        Logits, classes on the last axis: float16, bfloat16, float32 or float64, any strides. -inf is a class of
        probability 0.
    target : array_like of int, shape (...), or of float, shape (..., C)
        Classes in [0, C), in any integer type; or a distribution over the classes for each row, in ``input``'s dtype,
        whose values lie in [0, 1].
    weight : array_like of float, shape (C,), optional
        Weight of each class, non-negative. Under ``reduction="mean"`` the divisor is then the sum of the kept
        rows' class weights, as in PyTorch.
    ignore_index : int, default -100
        A row with this target counts as masked.
    label_smoothing : float, default 0.0
        Share of the target's probability that is spread evenly over all classes.
    z_loss : float, default 0.0
        Factor of the squared log-sum-exp that is added to each row's loss; non-negative.
    softcap : float, optional
        Logits become ``softcap tanh(input / softcap)``; positive.
    temperature : float, default 1.0
        Divides the logits, after the cap; positive.
    class_mask : array_like of bool, shape (C,) or (..., C), optional
        True where a class takes part (padding of a vocabulary, illegal actions). Other classes have probability 0
        and gradient 0, whatever their logits, and get no share of the smoothing. As a target they cost inf; the
        gradient is then that of the log-sum-exp alone. A row without a class that takes part has gradient 0 and loss
        NaN: leave it out with ``mask``.
    sample_weight : array_like of float or int, optional
        Factor of each row's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a row. A masked row contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept rows, ``"weighted_mean"`` by the sum of their weights,
        ``"none"`` returns each row's loss and its own gradient. A mean over nothing is NaN, its gradient 0.
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
        ``loss``, a float (an array of ``target``'s shape for ``reduction="none"``), and ``grad``, the derivative of
        that loss with respect to ``input``.

    Raises
    ------
    TypeError
        For a wrong dtype or type.
    ValueError
        For a wrong shape, parameter or option, or a probability outside [0, 1].
    IndexError
        For a target that is no class and not ``ignore_index``; the message names the first one.

    Notes
    -----
    For a row with logits z, target y, class weights w, smoothing eps, p = softmax(z) and
    lse = log(sum of exp(z_k))::

        loss   = (1 - eps) w_y (lse - z_y) + eps / C sum of w_k (lse - z_k)
        grad_k = (1 - eps) w_y (p_k - [k = y]) + eps / C (p_k sum of w - w_k)

    and for soft targets q, with v_k = w_k ((1 - eps) q_k + eps / C)::

        loss   = sum of v_k (lse - z_k)
        grad_k = p_k sum of v - v_k

    ``z_loss`` adds z_loss lse^2 to the loss and 2 z_loss lse p_k to the gradient: inf at a logit of +inf, and nothing
    at the others. A mean over soft targets divides by the number of rows, as in PyTorch.

    Computed without cancellation as (max - z_y) + log1p(sum without one maximum), so confident rows and logits
    with a large common offset keep their digits. One logit of +inf gives the limits; two of them, or nothing
    but -inf, give NaN. The convention is that of ``torch.nn.functional.cross_entropy``.

    References
    ----------
    Blanchard, P., Higham, D. J., Higham, N. J. (2021). Accurately computing the log-sum-exp and softmax
    functions. IMA Journal of Numerical Analysis 41(4).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.cross_entropy(np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), np.array([0, 2]))
    >>> round(loss, 12)
    0.753109126556
    """
    params = _CROSS_ENTROPY.check(label_smoothing)
    usual = type(z_loss) is type(temperature) is float and z_loss == 0.0 and temperature == 1.0
    if not usual or softcap is not None or class_mask is not None or _soft.is_soft(target):
        how = _soft.how(label_smoothing, z_loss, softcap, temperature)
        return _soft.run(
            input, target, how, weight, ignore_index, class_mask, None, sample_weight, mask, reduction, normalizer,
            grad, out, n_threads, backend,
        )[0]  # fmt: skip
    return _run.rows(
        _CROSS_ENTROPY, input, target, params, weight, ignore_index, sample_weight, mask, reduction, normalizer, grad,
        out, n_threads, backend,
    )  # fmt: skip
