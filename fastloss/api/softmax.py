"""Losses of softmax probabilities beside plain cross-entropy."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _soft
from fastloss._how import FOCAL, JENSEN_SHANNON, KINDS, POLY, How
from fastloss._results import LossGrad
from fastloss._soft import INDICES, SHARES
from fastloss._types import Reduction
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_FOCAL = LOSSES["softmax_focal_loss"]
_POLY = LOSSES["poly_loss"]
_DIVERGENCE = LOSSES["kl_div"]
Kind = Literal["logits", "log_probs", "probs"]


class CrossEntropyStats(NamedTuple):
    """Loss and gradient of cross-entropy, and per row: log-sum-exp, arg-max, whether it is right, entropy."""

    loss: float | np.ndarray
    grad: np.ndarray | None
    lse: np.ndarray
    argmax: np.ndarray
    correct: np.ndarray
    entropy: np.ndarray


@documented
def softmax_focal_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
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
    """Focal loss of softmax probabilities: cross-entropy that weighs down what is already right.

    Parameters
    ----------
    {classes}
    {index}
    gamma : float, default 2.0
        Focusing exponent, between 0 and 1000; 0 is cross-entropy.
    label_smoothing : float, default 0.0
        Share of the target's probability that is spread evenly over all classes, in the cross-entropy.
    weight : array_like of float, shape (C,), optional
        Weight of each class, non-negative (the alpha of the paper). The mean still divides by the number of rows.
    ignore_index : int, default -100
        A row with this target counts as masked.
    {rows}

    Returns
    -------
    {row_returns}

    Raises
    ------
    {row_raises}

    Notes
    -----
    With p = softmax(input) and q = 1 - p_y, computed without cancellation::

        loss   = -w_y q^gamma log p_y
        grad_k = w_y q^(gamma - 1) (q - gamma p_y log p_y) (p_k - [k = y])

    At p_y = 1 loss and gradient are 0, also for gamma < 1. The power makes ``gamma`` times as much of q's relative
    error: hence the bound that grows with ``gamma``. With label smoothing s it is (1 - s) of that and, as in
    cross-entropy, -(s / C) sum of w_k log p_k, which nothing modulates.

    References
    ----------
    Lin, T.-Y., Goyal, P., Girshick, R., He, K., Dollar, P. (2017). Focal loss for dense object detection. ICCV.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.softmax_focal_loss(np.array([[2.0, 1.0, 0.0]]), np.array([0]))
    >>> round(loss, 12)
    0.045677798968
    """
    return _soft.run(
        input,
        target,
        focal(gamma, label_smoothing),
        weight,
        ignore_index,
        None,
        None,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
        takes=INDICES,
        by_count=True,
    )[0]


@documented
def poly_loss(
    input: ArrayLike,
    target: ArrayLike,
    *,
    epsilon: float | tuple[float, ...] = 1.0,
    label_smoothing: float = 0.0,
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
    """PolyLoss: cross-entropy plus a polynomial of the target's missing probability.

    Parameters
    ----------
    {classes}
    {index}
    epsilon : float or sequence of up to six, default 1.0
        Coefficients; a number is Poly-1, n of them Poly-n.
    label_smoothing : float, default 0.0
        Share of the target's probability that is spread evenly over all classes, in the cross-entropy.
    weight : array_like of float, shape (C,), optional
        Weight of each class, non-negative. The mean still divides by the number of rows.
    ignore_index : int, default -100
        A row with this target counts as masked.
    {rows}

    Returns
    -------
    {row_returns}

    Raises
    ------
    {row_raises}

    Notes
    -----
    With p = softmax(input) and q = 1 - p_y::

        loss   = w_y (-log p_y + sum of epsilon_i q^i / i)
        grad_k = w_y (1 + p_y sum of epsilon_i q^(i - 1)) (p_k - [k = y])

    References
    ----------
    Leng, Z., Tan, M., Liu, C., et al. (2022). PolyLoss: a polynomial expansion perspective of classification loss
    functions. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.poly_loss(np.array([[2.0, 1.0, 0.0]]), np.array([0]))
    >>> round(loss, 12)
    0.74236500867
    """
    return _soft.run(
        input,
        target,
        poly(epsilon, label_smoothing),
        weight,
        ignore_index,
        None,
        None,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
        takes=INDICES,
        by_count=True,
    )[0]


@documented
def kl_div(
    input: ArrayLike,
    target: ArrayLike,
    *,
    input_kind: Kind = "logits",
    target_kind: Kind = "probs",
    temperature: float = 1.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Kullback-Leibler divergence of a prediction from a target distribution, for distillation.

    Parameters
    ----------
    input : array_like of float, shape (..., C)
        Prediction: float16, bfloat16, float32 or float64, any strides. Probabilities lie in [0, 1]; NaN
        propagates.
    target : array_like of float, shape (..., C)
        Distribution to be met, of the same dtype.
    input_kind, target_kind : {"logits", "log_probs", "probs"}
        What the arrays hold.
    temperature : float, default 1.0
        Divides logits; other kinds are taken as they are. The loss is not multiplied by its square.
    {rows}

    Returns
    -------
    {row_returns}

    Raises
    ------
    {row_raises}

    Notes
    -----
    With q the target and p the prediction, one loss per row, and 0 log 0 = 0::

        loss   = sum of q_k (log q_k - log p_k)
        grad_k = (p_k sum of q - q_k) / temperature   wrt logits
                 -q_k                                  wrt log-probabilities
                 -q_k / p_k                            wrt probabilities

    A mean divides by the number of rows (PyTorch's ``"batchmean"``).

    References
    ----------
    Kullback, S., Leibler, R. A. (1951). On information and sufficiency. Annals of Mathematical Statistics 22(1).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.kl_div(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    >>> round(loss, 12)
    0.120114506958
    """
    return _soft.run(
        input,
        target,
        kullback_leibler(input_kind, target_kind, temperature),
        None,
        -100,
        None,
        None,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
        takes=SHARES,
    )[0]


@documented
def js_div(
    input: ArrayLike,
    target: ArrayLike,
    *,
    input_kind: Kind = "logits",
    target_kind: Kind = "probs",
    temperature: float = 1.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Jensen-Shannon divergence of a prediction and a target distribution.

    Parameters
    ----------
    input : array_like of float, shape (..., C)
        Prediction: float16, bfloat16, float32 or float64, any strides. Probabilities lie in [0, 1]; NaN
        propagates.
    target : array_like of float, shape (..., C)
        The other distribution, of the same dtype.
    input_kind, target_kind : {"logits", "log_probs", "probs"}
        What the arrays hold.
    temperature : float, default 1.0
        Divides logits; other kinds are taken as they are.
    {rows}

    Returns
    -------
    {row_returns}

    Raises
    ------
    {row_raises}

    Notes
    -----
    With p the prediction, q the target, m = (p + q) / 2 and u_k = log(p_k / m_k), one loss per row::

        loss   = (sum of p_k log(p_k / m_k) + sum of q_k log(q_k / m_k)) / 2
        grad_k = p_k (u_k - sum of p u) / (2 temperature)   wrt logits
                 p_k u_k / 2                                 wrt log-probabilities
                 u_k / 2                                     wrt probabilities

    At p_k = 0 the last is -inf, but log(2) / 2 where q_k = 0 too.

    References
    ----------
    Lin, J. (1991). Divergence measures based on the Shannon entropy. IEEE Transactions on Information Theory 37(1).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> loss, grad = fl.js_div(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    >>> round(loss, 12)
    0.0285352562
    """
    return _soft.run(
        input,
        target,
        jensen_shannon(input_kind, target_kind, temperature),
        None,
        -100,
        None,
        None,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
        takes=SHARES,
    )[0]


@documented
def cross_entropy_stats(
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
) -> CrossEntropyStats:
    """Cross-entropy with what evaluators want besides: accuracy, entropy and log-sum-exp from the same pass.

    Parameters
    ----------
    {classes}
    {index}
    weight, ignore_index, label_smoothing, z_loss, softcap, temperature, class_mask
        As in :func:`cross_entropy`.
    {rows}

    Returns
    -------
    CrossEntropyStats
        ``loss`` and ``grad`` as of :func:`cross_entropy`; ``lse``, the log-sum-exp of each row, ``argmax``, its
        likeliest class (the lowest of several), ``correct``, whether that is the target, and ``entropy`` of its
        probabilities in nats. A masked or ignored row has 0, -1, False and 0. In a row with NaN the ``argmax`` is the
        place of the first one, as of :func:`numpy.argmax`, without a class that takes part it is -1; such a row, and
        one of nothing but -inf, is never ``correct``.

    Raises
    ------
    {row_raises}

    Notes
    -----
    With p = softmax(input)::

        lse     = log(sum of exp(input_k))
        entropy = -sum of p_k log p_k

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> stats = fl.cross_entropy_stats(np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]]), np.array([0, 2]))
    >>> stats.argmax, stats.correct
    (array([0, 1]), array([ True, False]))
    """
    result, extras = _soft.run(
        input,
        target,
        _soft.how(label_smoothing, z_loss, softcap, temperature),
        weight,
        ignore_index,
        class_mask,
        None,
        sample_weight,
        mask,
        reduction,
        normalizer,
        grad,
        out,
        n_threads,
        backend,
        takes=INDICES,
        want_extras=True,
    )
    shape = np.shape(input)[:-1]
    assert extras is not None
    lse, entropy, top = (values.reshape(shape) for values in extras)
    correct = (top == np.asarray(target)) & (top >= 0)
    doubtful = np.isnan(lse) & correct
    if doubtful.any():  # the row may hold NaN, whose place is top, or nothing above -inf
        logits = np.asarray(input)[doubtful]
        correct = np.array(correct)
        correct[doubtful] = logits[np.arange(len(logits)), top[doubtful]] > -np.inf
    return CrossEntropyStats(*result, lse, top, correct, entropy)


def focal(gamma: float = 2.0, label_smoothing: float = 0.0) -> How:
    """What :func:`softmax_focal_loss` is made of."""
    *params, smoothing = _FOCAL.check(gamma, label_smoothing)
    return How(form=FOCAL, params=tuple(params), smoothing=smoothing)


def poly(epsilon: float | tuple[float, ...] = 1.0, label_smoothing: float = 0.0) -> How:
    """What :func:`poly_loss` is made of."""
    *params, smoothing = _POLY.check(epsilon, label_smoothing)
    return How(form=POLY, params=tuple(params), smoothing=smoothing)


def kullback_leibler(input_kind: Kind = "logits", target_kind: Kind = "probs", temperature: float = 1.0) -> How:
    """What :func:`kl_div` is made of."""
    return How(**_kinds(input_kind, target_kind, temperature), divergence=True)


def jensen_shannon(input_kind: Kind = "logits", target_kind: Kind = "probs", temperature: float = 1.0) -> How:
    """What :func:`js_div` is made of."""
    return How(**_kinds(input_kind, target_kind, temperature), form=JENSEN_SHANNON)


def _kinds(input_kind: str, target_kind: str, temperature: float) -> dict:
    for name, kind in (("input_kind", input_kind), ("target_kind", target_kind)):
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    (temperature,) = _DIVERGENCE.check(temperature)
    return {"input_kind": KINDS[input_kind], "kind": KINDS[target_kind], "temperature": temperature}
