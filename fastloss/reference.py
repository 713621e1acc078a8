"""The textbook definitions of the losses in NumPy, float64 throughout.

This module is the oracle of the tests and the arithmetic of the NumPy backend.
It is written independently of the compiled kernels and favours plain formulas
over speed. Every function returns values per entry, neither weighted nor reduced.
"""

import numpy as np


@np.errstate(all="ignore")
def binary_cross_entropy_with_logits(x, y, pos_weight=1.0, label_smoothing=0.0):
    """Binary cross-entropy of a logit.

    Parameters
    ----------
    x, y : array_like
        Logits, and targets in [0, 1].
    pos_weight : float
        Factor on the loss of the positive class.
    label_smoothing : float
        Share of the target that moves to 1/2.

    Returns
    -------
    loss, grad, hess : ndarray
        Per element.
    """
    x, y = _floats(x), _floats(y)
    # Both masses are built from small terms: 1 - positive would cancel.
    positive = pos_weight * (y * (1 - label_smoothing) + label_smoothing / 2)
    negative = (1 - y) * (1 - label_smoothing) + label_smoothing / 2
    tail = np.exp(-np.abs(x))
    sigmoid = np.where(x < 0, tail, 1.0) / (1 + tail)
    complement = np.where(x < 0, 1.0, tail) / (1 + tail)
    softplus, softplus_of_minus = np.logaddexp(0.0, x), np.logaddexp(0.0, -x)
    loss = _times(negative, softplus) + _times(positive, softplus_of_minus)
    grad = negative * sigmoid - positive * complement
    return loss, grad, (negative + positive) * sigmoid * complement


@np.errstate(all="ignore")
def huber_loss(x, y, delta=1.0):
    """Huber loss, a parabola up to `delta`, then a line: ``(loss, grad, hess)`` per element."""
    r = _floats(x) - _floats(y)
    size = np.abs(r)
    loss = np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))
    return loss, np.clip(r, -delta, delta), _like(r, size <= delta)


@np.errstate(all="ignore")
def smooth_l1_loss(x, y, beta=1.0):
    """Smooth L1 loss, Huber's over `beta` (0: the L1 loss): ``(loss, grad, hess)`` per element."""
    if beta == 0:
        return l1_loss(x, y)
    r = _floats(x) - _floats(y)
    size = np.abs(r)
    loss = np.where(size < beta, 0.5 * r * (r / beta), size - 0.5 * beta)
    return loss, np.clip(r / beta, -1.0, 1.0), _like(r, (size < beta) / beta)


@np.errstate(all="ignore")
def mse_loss(x, y):
    """Squared error: ``(loss, grad, hess)`` per element."""
    r = _floats(x) - _floats(y)
    return r * r, 2 * r, _like(r, 2.0)


@np.errstate(all="ignore")
def l1_loss(x, y):
    """Absolute error: ``(loss, grad, hess)`` per element, the Hessian 1 as in boosting."""
    r = _floats(x) - _floats(y)
    return np.abs(r), np.sign(r), _like(r, 1.0)


@np.errstate(all="ignore")
def cross_entropy(x, target, weight=None, ignore_index=-100, label_smoothing=0.0):
    """Softmax cross-entropy of class indices.

    Parameters
    ----------
    x : array_like, shape (n, C)
        Logits; -inf is a class of probability 0, one +inf takes all of it.
    target : array_like of int, shape (n,)
        Class indices.
    weight : array_like, shape (C,), optional
        Class weights.
    ignore_index : int
        Target of the rows that count for nothing, whatever they hold.
    label_smoothing : float
        Share of the target spread evenly over all classes.

    Returns
    -------
    loss, grad, row_weight : ndarray
        Shapes (n,), (n, C), (n,); the weight is that of the row's class, 0 where ignored.
    """
    x, target = _floats(x), np.asarray(target)
    classes = x.shape[1]
    rows = np.arange(len(x))
    weight = np.ones(classes) if weight is None else _floats(weight)
    kept = target != ignore_index
    index = _indices(target, classes, kept)

    # Setting the maximum's own shift gives +inf its limit; a row of -inf becomes NaN.
    top = x.argmax(axis=1)
    highest = x[rows, top]
    shift = x - highest[:, None]
    shift[rows, top] = np.where(highest > -np.inf, 0.0, np.nan)
    # The maximum is left out of the sum: confident rows would lose the rest to rounding.
    e = np.exp(shift)
    e[rows, top] = 0.0
    rest = e.sum(axis=1) + shift[rows, top]  # 0, or the NaN of the whole row
    e[rows, top] = 1.0
    total = (1.0 + rest)[:, None]
    others = total - e
    others[rows, top] = rest
    p, complement = e / total, others / total
    cost = np.log1p(rest)[:, None] - shift

    # What each class contributes to the row: its share of the target times its weight.
    share = np.tile(label_smoothing / classes * weight, (len(x), 1))
    share[rows, index] += (1 - label_smoothing) * weight[index]
    loss = _times(share, cost).sum(axis=1)
    # The same as p * sum(share) - share, but without its cancellation at the target.
    grad = p * (share.sum(axis=1, keepdims=True) - share) - share * complement
    return (np.where(kept, loss, 0.0), np.where(kept[:, None], grad, 0.0), np.where(kept, weight[index], 0.0))


@np.errstate(all="ignore")
def multi_margin_loss(x, target, weight=None, ignore_index=-100, p=1, margin=1.0):
    """Multi-class hinge loss (Weston and Watkins), averaged over classes: arguments and results as `cross_entropy`.

    Parameters
    ----------
    x, target, weight, ignore_index
        As in `cross_entropy`.
    p : {1, 2}
        Power of the violations.
    margin : float
        By how much the target's score should lead.
    """
    x, rows, index, own, kept = _rivalry(x, target, weight, ignore_index)
    violation = _violations(x, x[rows, index], margin)
    violation[rows, index] = 0.0
    slope = np.sign(violation) if p == 1 else 2 * violation
    share = own / x.shape[1]
    loss = _times(share, (violation**p).sum(axis=1))
    grad = _times(share[:, None], slope)
    grad[rows, index] = -grad.sum(axis=1)
    return _kept_rows(loss, grad, own, kept, index, x[rows, index])


@np.errstate(all="ignore")
def crammer_singer_loss(x, target, weight=None, ignore_index=-100, margin=1.0):
    """Hinge loss against the best rival (Crammer and Singer): arguments and results as `multi_margin_loss`."""
    x, rows, index, own, kept = _rivalry(x, target, weight, ignore_index)
    rivals = x.copy()
    rivals[rows, index] = -np.inf
    best = rivals.argmax(axis=1)  # the first of equals, or the first NaN
    violation = _violations(rivals[rows, best][:, None], x[rows, index], margin)[:, 0]
    step = own * np.sign(violation)
    grad = np.zeros(x.shape)
    grad[rows, best] = step
    grad[rows, index] = -step
    return _kept_rows(_times(own, violation), grad, own, kept, index, x[rows, index])


@np.errstate(all="ignore")
def nll_loss(x, target, weight=None, ignore_index=-100):
    """Negative log-likelihood from log-probabilities: arguments and results as `cross_entropy`."""
    x, rows, index, own, kept = _rivalry(x, target, weight, ignore_index)
    grad = np.zeros(x.shape)
    grad[rows, index] = -own
    return _kept_rows(-_times(own, x[rows, index]), grad, own, kept, index, x[rows, index])


@np.errstate(all="ignore")
def td_loss(
    q,
    actions,
    rewards,
    next_q,
    terminated,
    gamma=0.99,
    next_q_online=None,
    next_action_mask=None,
    loss="huber",
    delta=1.0,
):
    """Loss of the one-step temporal-difference error, as in (double) DQN.

    Parameters
    ----------
    q, next_q : array_like, shape (n, A)
        Action values now, and of the next state by the target network.
    actions : array_like of int, shape (n,)
        Actions taken.
    rewards, terminated : array_like, shape (n,)
        Where `terminated` is True, nothing follows and `next_q` is not used.
    gamma : float
    next_q_online : array_like, shape (n, A), optional
        Values that choose the next action; `next_q` itself by default.
    next_action_mask : array_like of bool, shape (n, A), optional
        Legal next actions; a state without any is worth 0.
    loss : {"huber", "mse", "smooth_l1"}
    delta : float
        Huber's delta or smooth L1's beta.

    Returns
    -------
    loss, grad, td_error : ndarray
        Shapes (n,), (n, A), (n,); the gradient is that with respect to `q`, 0 except
        at the actions taken, and the error is target minus value.
    """
    q, next_q = _floats(q), _floats(next_q)
    chooser = next_q if next_q_online is None else _floats(next_q_online)
    legal = np.ones(q.shape, bool) if next_action_mask is None else np.asarray(next_action_mask, dtype=bool)
    rows = np.arange(len(q))
    index = _indices(np.asarray(actions), q.shape[1], np.ones(len(q), bool))

    # An action must be legal to be chosen even where the best legal value is -inf.
    best = np.where(legal, chooser, -np.inf).max(axis=1)
    choice = (legal & (chooser == best[:, None])).argmax(axis=1)
    bootstrap = np.where(np.isnan(best), np.nan, next_q[rows, choice])
    over = np.asarray(terminated, dtype=bool) | ~legal.any(axis=1)
    target = _floats(rewards) + gamma * np.where(over, 0.0, bootstrap)

    value = q[rows, index]
    if loss == "huber":
        losses, slope, _ = huber_loss(value, target, delta)
    elif loss == "smooth_l1":
        losses, slope, _ = smooth_l1_loss(value, target, delta)
    elif loss == "mse":
        losses, slope, _ = mse_loss(value, target)
    else:
        raise ValueError(f"loss must be 'huber', 'mse' or 'smooth_l1', got {loss!r}")
    grad = np.zeros(q.shape)
    grad[rows, index] = slope
    return losses, grad, target - value


def _rivalry(x, target, weight, ignore_index):
    """Scores, rows, indices, weights of the rows' classes, and which rows are kept."""
    x, target = _floats(x), np.asarray(target)
    kept = target != ignore_index
    index = _indices(target, x.shape[1], kept)
    own = np.ones(len(x)) if weight is None else _floats(weight)[index]
    x = np.where((own == 0)[:, None] & np.isinf(x), 0.0, x)  # a weight of 0 silences infinities
    return x, np.arange(len(x)), index, own, kept


def _violations(x, t, margin):
    """By how much scores come too near to the target's; those of -inf never do."""
    excess = (x - t[:, None]) + margin
    return np.where((excess <= 0) | (x == -np.inf), 0.0, excess)


def _kept_rows(loss, grad, own, kept, index, scores):
    """Results of rows: NaN where the target's score is, 0 where they are ignored."""
    broken = np.isnan(scores)
    loss = np.where(broken, np.nan, loss)
    grad[broken, index[broken]] = np.nan
    return np.where(kept, loss, 0.0), np.where(kept[:, None], grad, 0.0), np.where(kept, own, 0.0)


def _floats(values):
    return np.asarray(values, dtype=np.float64)


def _like(r, hess):
    """Give `hess` the shape of `r` and its NaNs."""
    return np.where(np.isnan(r), np.nan, hess)


def _times(coefficient, value):
    """Multiply; 0 times infinity is 0, since a term with coefficient 0 is absent."""
    absent = (coefficient == 0) & np.isinf(value)
    return np.where(absent, 0.0, coefficient * value)


def _indices(values, size, kept):
    """Check the kept indices and put 0 in place of the others."""
    if np.any(kept & ((values < 0) | (values >= size))):
        raise IndexError(f"index out of range for {size} entries")
    return np.where(kept, values, 0).astype(np.intp)
