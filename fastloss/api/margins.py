"""Row-wise losses of classification without a softmax: margins between scores, and log-probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._results import LossGrad
from fastloss._types import Reduction
from fastloss.registry import LOSSES

_MULTI_MARGIN = LOSSES["multi_margin_loss"]
_CRAMMER_SINGER = LOSSES["crammer_singer_loss"]
_NLL = LOSSES["nll_loss"]


def multi_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    p: float = 1,
    margin: float = 1.0,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Multi-class hinge loss: every rival that comes within a margin of the target costs (Weston and Watkins).

    Parameters
    ----------
    input : array_like of float, shape (..., C)
        Scores, classes on the last axis: float16, bfloat16, float32 or float64, any strides. A class whose score is
        -inf is no rival and costs nothing.
    target : array_like of int, shape (...)
        Classes in [0, C), in any integer type.
    p : {1, 2}, default 1
        Power of a violation.
    margin : float, default 1.0
        By how much the target's score should exceed every other one; finite.
    weight : array_like of float, shape (C,), optional
        Weight of each class, non-negative: the factor of the rows whose target it is. It does not enter the divisor
        of a mean, as in PyTorch.
    ignore_index : int, default -100
        A row with this target counts as masked.
    sample_weight : array_like of float or int, optional
        Factor of each row's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a row. A masked row contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept rows, ``"weighted_mean"`` by the sum of their sample weights,
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
        For a wrong shape, parameter or option.
    IndexError
        For a target that is no class and not ``ignore_index``; the message names the first one.

    Notes
    -----
    For a row with scores x, target y and class weights w::

        v_k    = max(0, (x_k - x_y) + margin)            for k != y
        loss   = w_y / C sum of v_k ** p
        grad_k = w_y / C p v_k ** (p - 1) where v_k > 0, else 0
        grad_y = -(sum of grad_k)

    At the kink, v_k = 0 reached exactly, the gradient is 0. NaN reaches the loss, its own entry and the target's;
    a target at +inf costs nothing, and equal infinities of target and rival give NaN. A row of class weight 0 costs
    nothing. The convention is that of ``torch.nn.functional.multi_margin_loss``. There is no Hessian: with p = 1 it
    is 0 almost everywhere, and :func:`grad_hess` takes elementwise losses.

    References
    ----------
    Weston, J., Watkins, C. (1999). Support vector machines for multi-class pattern recognition. ESANN.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.multi_margin_loss(np.array([[2.0, 1.5, 0.0, 4.0]]), np.array([0]))
    >>> loss, grad.tolist()
    (0.875, [[-0.5, 0.25, 0.0, 0.25]])
    """
    return _run.rows(
        _MULTI_MARGIN, input, target, _MULTI_MARGIN.check(p, margin), weight, ignore_index,
        sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend,
    )  # fmt: skip


def crammer_singer_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    margin: float = 1.0,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Multi-class hinge loss against the best rival alone (Crammer and Singer).

    Parameters
    ----------
    input : array_like of float, shape (..., C)
        Scores, classes on the last axis: float16, bfloat16, float32 or float64, any strides. A class whose score is
        -inf is no rival and costs nothing.
    target : array_like of int, shape (...)
        Classes in [0, C), in any integer type.
    margin : float, default 1.0
        By how much the target's score should exceed the best other one; finite.
    weight : array_like of float, shape (C,), optional
        Weight of each class, non-negative: the factor of the rows whose target it is. It does not enter the divisor
        of a mean, as in PyTorch.
    ignore_index : int, default -100
        A row with this target counts as masked.
    sample_weight : array_like of float or int, optional
        Factor of each row's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a row. A masked row contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept rows, ``"weighted_mean"`` by the sum of their sample weights,
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
        For a wrong shape, parameter or option.
    IndexError
        For a target that is no class and not ``ignore_index``; the message names the first one.

    Notes
    -----
    For a row with scores x, target y and class weights w::

        k    = the rival with the highest score, of equal ones the lowest index
        v    = max(0, (x_k - x_y) + margin)
        loss = w_y v
        grad = w_y at k and -w_y at y where v > 0, else 0

    This is a subgradient: at a tie all of it goes to one rival, and at the kink it is 0. NaN among the rivals counts
    as the best of them; a target at +inf costs nothing, and equal infinities of target and rival give NaN. A row of
    class weight 0 costs nothing. There is no Hessian: it is 0 almost everywhere.

    References
    ----------
    Crammer, K., Singer, Y. (2001). On the algorithmic implementation of multiclass kernel-based vector machines.
    Journal of Machine Learning Research 2.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.crammer_singer_loss(np.array([[2.0, 1.5, 0.0, 4.0]]), np.array([0]))
    >>> loss, grad.tolist()
    (3.0, [[-1.0, 0.0, 0.0, 1.0]])
    """
    return _run.rows(
        _CRAMMER_SINGER, input, target, _CRAMMER_SINGER.check(margin), weight, ignore_index,
        sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend,
    )  # fmt: skip


def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Negative log-likelihood of class indices, from log-probabilities.

    Parameters
    ----------
    input : array_like of float, shape (..., C)
        Log-probabilities, classes on the last axis: float16, bfloat16, float32 or float64, any strides. They are
        taken as they are: for logits, :func:`cross_entropy` is the loss.
    target : array_like of int, shape (...)
        Classes in [0, C), in any integer type.
    weight : array_like of float, shape (C,), optional
        Weight of each class, non-negative. Under ``reduction="mean"`` the divisor is then the sum of the kept
        rows' class weights, as in PyTorch.
    ignore_index : int, default -100
        A row with this target counts as masked.
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
        For a wrong shape, parameter or option.
    IndexError
        For a target that is no class and not ``ignore_index``; the message names the first one.

    Notes
    -----
    For a row with log-probabilities x, target y and class weights w::

        loss   = -w_y x_y
        grad_k = -w_y at k = y, else 0

    Only the target's entry is looked at: NaN there reaches the loss and that entry's gradient, elsewhere nothing. A
    target of probability 0, -inf, costs inf, or nothing if its class weight is 0. The convention is that of
    ``torch.nn.functional.nll_loss``. There is no Hessian: it is 0.

    References
    ----------
    Bishop, C. M. (2006). Pattern Recognition and Machine Learning, section 4.3. Springer.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.nll_loss(np.log([[0.5, 0.25, 0.25]]), np.array([1]))
    >>> round(loss, 12), grad.tolist()
    (1.38629436112, [[0.0, -1.0, 0.0]])
    """
    return _run.rows(
        _NLL, input, target, _NLL.check(), weight, ignore_index,
        sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend,
    )  # fmt: skip
