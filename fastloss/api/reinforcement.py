"""Losses of reinforcement learning."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run, _soft
from fastloss._how import How
from fastloss._results import LossGrad, TDLossGrad
from fastloss._types import Reduction, TDLoss
from fastloss.api._docs import documented
from fastloss.registry import LOSSES

_TD_LOSS = LOSSES["td_loss"]
_POLICY = LOSSES["policy_gradient_loss"]
_TD_LOSSES = ("huber", "mse", "smooth_l1")


def td_loss(
    q: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    next_q: ArrayLike,
    terminated: ArrayLike,
    *,
    gamma: float = 0.99,
    next_q_online: ArrayLike | None = None,
    next_action_mask: ArrayLike | None = None,
    loss: TDLoss = "huber",
    delta: float = 1.0,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> TDLossGrad:
    """Masked temporal-difference loss of deep Q-learning, with the TD errors from the same pass.

    Parameters
    ----------
    q : array_like of float, shape (..., A)
        Q-values of the states, actions on the last axis: float16, bfloat16, float32 or float64.
    actions : array_like of int, shape (...)
        The actions taken, in [0, A), in any integer type.
    rewards : array_like of float, shape (...)
        Rewards, in ``q``'s dtype.
    next_q : array_like of float, shape (..., A)
        Q-values of the next states (of the target network), in ``q``'s dtype.
    terminated : array_like of bool, shape (...)
        True where the episode ended: nothing is bootstrapped and ``next_q`` is not looked at. A time limit
        (truncation) is not a termination.
    gamma : float, default 0.99
        Discount factor; with 0 ``next_q`` is not looked at.
    next_q_online : array_like of float, shape (..., A), optional
        Double Q-learning: the next action is the argmax of these values (the lowest index on ties), its value
        is taken from ``next_q``.
    next_action_mask : array_like of bool, shape (..., A), optional
        True where a next action is legal. A state without a legal action is bootstrapped with 0.
    loss : {"huber", "mse", "smooth_l1"}, default "huber"
        Applied to the TD error: ``e^2 / 2`` within ``delta`` (Huber), ``e^2``, or Huber divided by ``delta``.
    delta : float, default 1.0
        Threshold of Huber (positive) and smooth L1 (non-negative, there called beta).
    sample_weight : array_like of float or int, optional
        Factor of each transition's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
        (one value per sample).
    mask : array_like of bool, optional
        True keeps a transition. A masked one contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
    reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
        ``"mean"`` divides by the number of kept transitions, ``"weighted_mean"`` by the sum of their weights,
        ``"none"`` returns each transition's loss and its own gradient. A mean over nothing is NaN, its gradient 0.
    normalizer : float, optional
        Replaces the divisor of a mean (gradient accumulation over micro-batches).
    grad : bool, default True
        False computes no gradient.
    out : ndarray, optional
        Receives the gradient; shape and dtype of ``q``. It may be ``q`` itself. After an exception its
        content is undefined, except that ``q`` is never lost to bad indices or targets.
    n_threads : int, optional
        Threads to use; by default as many as pay, up to :func:`get_num_threads`. No result depends on it.
    backend : {"cython", "numba", "numpy"}, optional
        By default the best that is available, or what :func:`use_backend` says.

    Returns
    -------
    TDLossGrad
        ``loss``, a float (an array of ``actions``' shape for ``reduction="none"``); ``grad``, its derivative with
        respect to ``q``, zero except at the actions taken; ``td_error``, ``target - q`` of each transition
        (priorities are its magnitude), 0 where masked.

    Raises
    ------
    TypeError
        For a wrong dtype or type.
    ValueError
        For a wrong shape, parameter or option.
    IndexError
        For an action outside [0, A); the message names the first one.

    Notes
    -----
    With reward r, action a, and phi the ``loss`` of the error; for Huber phi(e) = e^2 / 2 up to ``delta``, then
    delta (abs(e) - delta / 2), and phi'(e) = clip(e, -delta, delta)::

        target  = r + gamma max over legal a' of next_q[a']    (r alone where terminated)
        error   = target - q[a]
        loss    = phi(error)
        grad_a  = -phi'(error), 0 at the other actions

    The target carries no gradient. Terminal states, illegal actions and masked transitions are selected away,
    never multiplied by 0, so they may hold NaN. Of equal next values the first is taken. The sign of the TD error is
    rlax's, the kinds of loss are those of PyTorch.

    References
    ----------
    Mnih, V. et al. (2015). Human-level control through deep reinforcement learning. Nature 518.
    van Hasselt, H., Guez, A., Silver, D. (2016). Deep reinforcement learning with double Q-learning. AAAI.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> q, next_q = np.array([[1.0, 2.0], [0.5, 0.0]]), np.array([[0.0, 1.0], [9.0, 9.0]])
    >>> result = fl.td_loss(q, [1, 0], np.array([1.0, 1.0]), next_q, [False, True], gamma=0.5)
    >>> result.td_error
    array([-0.5,  0.5])
    >>> result.grad
    array([[ 0.  ,  0.25],
           [-0.25,  0.  ]])
    """
    gamma, delta = _TD_LOSS.check(gamma, delta)
    if not isinstance(loss, str) or loss not in _TD_LOSSES:
        raise ValueError(f"loss must be one of {', '.join(map(repr, _TD_LOSSES))}, got {loss!r}")
    if loss == "huber" and delta == 0.0:
        raise ValueError("delta must be positive and finite for loss='huber', got 0.0")
    return _run.td_loss(
        q, actions, rewards, next_q, terminated, gamma, next_q_online, next_action_mask, loss, delta, sample_weight,
        mask, reduction, normalizer, grad, out, n_threads, backend,
    )  # fmt: skip


@documented
def policy_gradient_loss(
    logits: ArrayLike,
    actions: ArrayLike,
    advantages: ArrayLike,
    *,
    entropy_coef: float = 0.0,
    action_mask: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    reduction: Reduction = "mean",
    normalizer: float | None = None,
    grad: bool = True,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
) -> LossGrad:
    """Policy gradient loss of a softmax policy: REINFORCE with returns, the actor's loss with advantages.

    Parameters
    ----------
    logits : array_like of float, shape (..., A)
        Logits of the policy, actions on the last axis: float16, bfloat16, float32 or float64.
    actions : array_like of int, shape (...)
        The actions taken, in [0, A), in any integer type.
    advantages : array_like of float, shape (...)
        Returns or advantages, of either sign, in ``logits``'s dtype. No gradient flows through them.
    entropy_coef : float, default 0.0
        Factor of the policy's entropy, which is subtracted from the loss.
    action_mask : array_like of bool, shape (A,) or (..., A), optional
        True where an action is legal. Others have probability 0 and gradient 0, whatever their logits. Taken, they cost
        inf for a positive advantage, -inf for a negative one and nothing for 0; the gradient is then that of the
        log-sum-exp alone. A row without a legal action has gradient 0 and loss NaN: leave it out with ``mask``.
    {rows}

    Returns
    -------
    LossGrad
        ``loss``, a float (an array with one value per row for ``reduction="none"``), and ``grad``, the derivative of
        that loss with respect to ``logits``.

    Raises
    ------
    {row_raises}

    Notes
    -----
    With pi = softmax(logits), advantage A, action a and entropy H = -sum of pi_k log pi_k::

        loss   = -A log pi_a - entropy_coef H
        grad_k = A (pi_k - [k = a]) + entropy_coef pi_k (log pi_k + H)

    References
    ----------
    Williams, R. J. (1992). Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    Machine Learning 8.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> logits, actions = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0, 1])
    >>> loss, grad = fl.policy_gradient_loss(logits, actions, np.array([1.0, -2.0]), entropy_coef=0.01)
    >>> round(loss, 12)
    -0.542893088248
    """
    return _soft.run(
        logits, actions, policy(entropy_coef), None, None, action_mask, ("advantages", advantages), sample_weight,
        mask, reduction, normalizer, grad, out, n_threads, backend, takes=_soft.INDICES, name="logits",
        target_name="actions", mask_name="action_mask",
    )[0]  # fmt: skip


def policy(entropy_coef: float = 0.0) -> How:
    """What :func:`policy_gradient_loss` is made of."""
    return How(entropy=_POLICY.check(entropy_coef)[0])
