"""The textbook definitions of the losses in NumPy, float64 throughout.

This module is the oracle of the tests and the arithmetic of the NumPy backend.
It is written independently of the compiled kernels and favours plain formulas
over speed. Every function returns values per entry, neither weighted nor reduced.
"""

import numpy as np

from ._how import FOCAL, JENSEN_SHANNON, KINDS, LOG_PROBS, LOGITS, POLY, How


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
def half_squared_error(x, y):
    """Half the squared error: ``(loss, grad, hess)`` per element, as everything that follows."""
    r = _floats(x) - _floats(y)
    return r * r / 2, r, _like(r, 1.0)


@np.errstate(all="ignore")
def nmae_loss(x, y, norm="mean"):
    """Absolute error over a norm of the targets: ``"mean"``, ``"range"``, ``"std"``, ``"iqr"`` or a number."""
    r = _floats(x) - _floats(y)
    size = target_norm(y, norm) if isinstance(norm, str) else norm
    return np.abs(r) / size, np.sign(r) / size, _like(r, 1 / size)


@np.errstate(all="ignore")
def target_norm(y, norm):
    """Mean size, range, standard deviation (of the population) or interquartile range of the targets."""
    y = _floats(y)
    if not y.size:
        return np.nan
    if norm == "mean":
        return np.mean(np.abs(y))
    if norm == "range":
        return np.max(y) - np.min(y)
    if norm == "std":
        return np.std(y)
    if norm == "iqr":
        return np.subtract(*np.percentile(y, [75, 25]))
    raise ValueError(f"norm must be 'mean', 'range', 'std', 'iqr' or a number, got {norm!r}")


@np.errstate(all="ignore")
def mape_loss(x, y, eps=1e-7):
    """Absolute error in percent of the target's size, at least `eps`."""
    r, size = _floats(x) - _floats(y), np.maximum(np.abs(_floats(y)), eps)
    loss = np.where(np.abs(r) < 1e300, 100 * np.abs(r) / size, 100 * (np.abs(r) / size))
    return loss, np.sign(r) * 100 / size, _like(r, 100 / size)


@np.errstate(all="ignore")
def msle_loss(x, y):
    """Squared difference of log(1 + x) and log(1 + y)."""
    x, y = _floats(x), _floats(y)
    d = np.where(x > y, np.log1p((x - y) / (1 + y)), -np.log1p((y - x) / (1 + x)))
    d = np.where(np.isnan(x), np.nan, d)
    grad = np.where(x == np.inf, 0.0, 2 * d / (1 + x))
    return d * d, grad, np.where(x == np.inf, 0.0, 2 * (1 - d) / (1 + x) ** 2)


@np.errstate(all="ignore")
def log_cosh_loss(x, y):
    """Logarithm of the hyperbolic cosine of the residual."""
    r = _floats(x) - _floats(y)
    a = np.abs(r)
    near = np.log1p(2 * np.sinh(np.minimum(a, 1) / 2) ** 2)
    loss = np.where(a < 1, near, a + np.log1p(np.exp(-2 * a)) - np.log(2.0))
    return loss, np.tanh(r), 1 / np.cosh(r) ** 2


@np.errstate(all="ignore")
def poisson_nll_loss(x, y, log_input=True, full=False, eps=1e-8):
    """Negative log-likelihood of a Poisson count whose log-rate (or rate) is predicted."""
    x, y = _floats(x), _floats(y)
    if log_input:
        rate = np.exp(x)
        loss = np.where(rate == np.inf, np.inf, rate - _times(y, x))
        grad, hess = rate - y, rate
    else:
        x = np.where(x >= 0, x, np.nan)  # there is no negative rate
        loss, grad, hess = x - np.where(y == 0, 0 * y, y * np.log(x + eps)), 1 - y / (x + eps), y / (x + eps) ** 2
    if full:
        large = np.where(y > 1, y, 1.0)
        loss = loss + np.where(y > 1, large * np.log(large) - large + 0.5 * np.log(2 * np.pi * large), 0.0)
    return loss, grad, hess


@np.errstate(all="ignore")
def gaussian_nll_loss(x, y, var, full=False, eps=1e-6):
    """Negative log-likelihood of a normal variable: ``(loss, grad, hess, gradient by the variance)``."""
    r, v = _floats(x) - _floats(y), np.maximum(_floats(var), eps)
    loss = 0.5 * (np.log(v) + r * r / v) + (0.5 * np.log(2 * np.pi) if full else 0.0)
    return loss, r / v, _like(r, 1 / v), 0.5 * (1 / v - (r / v) ** 2)


@np.errstate(all="ignore")
def gamma_nll_loss(x, y):
    """Negative log-likelihood of a gamma variable with a predicted log-mean, without constants."""
    x, y = _floats(x), _floats(y)
    ratio = y * np.exp(-x)
    return np.where(ratio == np.inf, np.inf, x + ratio), 1 - ratio, ratio


@np.errstate(all="ignore")
def tweedie_loss(x, y, power=1.5):
    """Tweedie deviance of a predicted log-mean, halved and without constants, for a power between 1 and 2."""
    x, y = _floats(x), _floats(y)
    first, second = _times(y, np.exp((1 - power) * x)), np.exp((2 - power) * x)
    loss = second / (2 - power) - first / (1 - power)
    return loss, second - first, (2 - power) * second - (1 - power) * first


@np.errstate(all="ignore")
def pinball_loss(x, y, quantile=0.5):
    """Error of a quantile, the Hessian 1 as in boosting."""
    r = _floats(y) - _floats(x)
    loss = np.maximum(quantile * r, (quantile - 1) * r)
    return loss, _like(r, np.where(r >= 0, -quantile, 1 - quantile)), _like(r, 1.0)


@np.errstate(all="ignore")
def expectile_loss(x, y, expectile=0.5):
    """Squared error, weighted by side."""
    r = _floats(x) - _floats(y)
    w = np.where(r > 0, 1 - expectile, expectile)
    return w * r * r, 2 * w * r, _like(r, 2 * w)


@np.errstate(all="ignore")
def asymmetric_huber_loss(x, y, delta=1.0, alpha=1.0, continuous=True):
    """Huber loss whose line below `-delta` has `alpha` times the slope, continuous or with a jump."""
    r = _floats(x) - _floats(y)
    a = np.abs(r)
    joined = delta * delta / 2 + alpha * delta * (a - delta)
    below = joined if continuous else alpha * (delta * (a - delta / 2))
    loss = np.where(r < -delta, below, np.where(r > delta, delta * (a - delta / 2), r * r / 2))
    grad = np.where(r < -delta, -alpha * delta, np.where(r > delta, delta, r))
    return loss, grad, _like(r, a <= delta)


@np.errstate(all="ignore")
def quantile_huber_loss(x, y, quantile=0.5, delta=1.0):
    """Huber loss, weighted by side."""
    r = _floats(x) - _floats(y)
    w = np.where(r > 0, 1 - quantile, quantile)
    loss, grad, hess = huber_loss(x, y, delta)
    return w * loss, w * grad, w * hess


@np.errstate(all="ignore")
def cauchy_loss(x, y, scale=1.0):
    """Logarithmic loss of outliers."""
    r = (_floats(x) - _floats(y)) / scale
    square = r * r
    loss = np.where(np.abs(r) < 1e100, np.log1p(square), 2 * np.log(np.abs(r)))
    grad = np.where(np.abs(r) < 1e100, r / (1 + square), 1 / r)
    hess = np.where(np.abs(r) < 1e70, (1 - square) / (1 + square) ** 2, -1 / r / r)
    return scale * (scale * (loss / 2)), scale * grad, _like(r, hess)


@np.errstate(all="ignore")
def binary_cross_entropy(x, y, eps=1e-7):
    """Binary cross-entropy of a probability clipped to ``[eps, 1 - eps]``."""
    p, y = _floats(x), _floats(y)
    q = 1 - p
    log_p = np.where(q < eps, np.log1p(-eps), np.log(np.where(p < eps, eps, p)))
    log_q = np.where(p < eps, np.log1p(-eps), np.where(q < eps, np.log(eps), np.log1p(-p)))
    clipped = (p < eps) | (q < eps)
    grad = np.where(clipped, 0.0, (1 - y) / q - y / p)
    return -(y * log_p + (1 - y) * log_q), grad, np.where(clipped, 0.0, (1 - y) / q**2 + y / p**2)


@np.errstate(all="ignore")
def sigmoid_focal_loss(x, y, alpha=None, gamma=2.0):
    """Binary cross-entropy of a logit times ``(1 - p)^gamma``, p the probability of the right class."""
    sign, s = _margin(x, np.asarray(y) > 0.5)
    weight = 1.0 if alpha is None or alpha == -1 else np.where(sign > 0, alpha, 1 - alpha)
    p, q, cost = _logistic(s)
    factor = weight * np.exp(-gamma * np.logaddexp(0.0, np.minimum(s, 1e4)))
    share = np.where(p == 0, 0.0, p * cost)
    grad = -factor * (gamma * share + q)
    # By the product rule, from the derivatives of factor, share and q with respect to s.
    hess = factor * (gamma * p * (gamma * share + q) - gamma * (q * share - p * q) + p * q)
    return factor * cost, sign * grad, hess


@np.errstate(all="ignore")
def hinge_loss(x, y):
    """Hinge of the margin, the Hessian 1 where it is open."""
    sign, s = _margin(x, np.asarray(y) > 0)
    return np.maximum(1 - s, 0.0), _like(s, -sign * (s < 1)), _like(s, s < 1)


@np.errstate(all="ignore")
def squared_hinge_loss(x, y):
    """Square of the hinge."""
    sign, s = _margin(x, np.asarray(y) > 0)
    return np.maximum(1 - s, 0.0) ** 2, -2 * sign * np.maximum(1 - s, 0.0), _like(s, 2.0 * (s < 1))


@np.errstate(all="ignore")
def modified_huber_loss(x, y):
    """Squared hinge down to a margin of -1, then a line."""
    sign, s = _margin(x, np.asarray(y) > 0)
    loss = np.where(s < -1, -4 * s, np.maximum(1 - s, 0.0) ** 2)
    grad = np.where(s < -1, -4.0, -2 * np.maximum(1 - s, 0.0))
    return loss, sign * grad, _like(s, 2.0 * ((s >= -1) & (s < 1)))


@np.errstate(all="ignore")
def exponential_loss(x, y):
    """Exponential of the negative margin."""
    sign, s = _margin(x, np.asarray(y) > 0)
    return np.exp(-s), -sign * np.exp(-s), np.exp(-s)


@np.errstate(all="ignore")
def soft_margin_loss(x, y):
    """Logistic loss of the margin."""
    sign, s = _margin(x, np.asarray(y) > 0)
    p, q, cost = _logistic(s)
    return cost, -sign * q, p * q


@np.errstate(all="ignore")
def binary_poly_loss(x, y, epsilon=1.0):
    """Binary cross-entropy plus the sum of ``epsilon_i (1 - p)^i / i``."""
    sign, s = _margin(x, np.asarray(y) > 0.5)
    p, q, cost = _logistic(s)
    loss, by_q, by_q_twice = cost, 0.0, 0.0
    for i, e in enumerate(np.atleast_1d(epsilon), start=1):
        loss = loss + e * q**i / i
        by_q = by_q + e * q ** (i - 1)
        by_q_twice = by_q_twice + (e * (i - 1) * q ** (i - 2) if i > 1 else 0.0)
    # q has the derivatives -pq and pq (p - q) with respect to s.
    hess = p * q + by_q_twice * (p * q) ** 2 + by_q * p * q * (p - q)
    return loss, -sign * (q + by_q * p * q), hess


@np.errstate(all="ignore")
def dice_loss(x, y, smooth=1.0, squared=False, from_logits=True):
    """One minus the Dice coefficient per sample and class: ``(loss, grad)``."""
    p, slope, y, axes = _shares(x, y, from_logits)
    top = 2 * (p * y).sum(axes, keepdims=True) + smooth
    below = (p**2 + y**2 if squared else p + y).sum(axes, keepdims=True) + smooth
    grad = -2 * y / below + top / below**2 * (2 * p if squared else 1)
    return (1 - top / below).reshape(p.shape[:2]), grad * slope


@np.errstate(all="ignore")
def tversky_loss(x, y, alpha=0.5, beta=0.5, smooth=1.0, from_logits=True):
    """One minus the Tversky index per sample and class: ``(loss, grad)``."""
    p, slope, y, axes = _shares(x, y, from_logits)
    right, extra = (p * y).sum(axes, keepdims=True), (p * (1 - y)).sum(axes, keepdims=True)
    top = right + smooth
    below = right + alpha * extra + beta * ((1 - p) * y).sum(axes, keepdims=True) + smooth
    grad = -(y * below - top * ((1 - beta) * y + alpha * (1 - y))) / below**2
    return (1 - top / below).reshape(p.shape[:2]), grad * slope


def _shares(x, y, from_logits):
    """Probabilities, their slopes, targets, and the axes that are summed over."""
    x, y = _floats(x), _floats(y)
    p = 1 / (1 + np.exp(-x)) if from_logits else x
    return p, (p * (1 - p) if from_logits else 1.0), y, tuple(range(2, x.ndim))


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
        With 0 `next_q` is not used either.
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
    over = np.asarray(terminated, dtype=bool) | ~legal.any(axis=1) | (gamma == 0)
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


@np.errstate(all="ignore")
def softmax_loss(x, target=None, shares=None, how=None, weight=None, legal=None, factor=None):
    """Any loss of softmax probabilities, of a class per row or of a distribution over the classes.

    Parameters
    ----------
    x : array_like, shape (n, C)
        Logits, log-probabilities or probabilities, as `how` says.
    target : array_like of int, shape (n,), optional
        A class of each row.
    shares : array_like, shape (n, C), optional
        A distribution for each row.
    how : How
        What the loss is made of, see `fastloss._how`.
    weight : array_like, shape (C,), optional
        Class weights.
    legal : array_like of bool, shape (n, C) or (C,), optional
        Classes that take part.
    factor : array_like, shape (n,), optional
        Factor of the term of `target`.

    Returns
    -------
    loss, grad, lse, entropy, top, hess : ndarray
        Shapes (n,), (n, C), (n,), (n,), (n,), (n, C); `top` is the lowest of a row's likeliest classes, the first whose
        logit is NaN, or -1 if no class takes part; `hess` is the diagonal of each row's second derivatives.
    """
    x = _floats(x)
    n, classes = x.shape
    rows = np.arange(n)
    legal = np.broadcast_to(True if legal is None else legal, x.shape)
    weight = np.ones(classes) if weight is None else _floats(weight)
    bend, second = np.ones(x.shape), np.zeros(x.shape)
    if how.input_kind == LOGITS:
        capped = x
        if how.softcap:
            capped = how.softcap * np.tanh(x / how.softcap)
            bend = 1 / np.cosh(np.minimum(np.abs(x / how.softcap), 500)) ** 2
            second = np.where(legal, -2 * capped / how.softcap**2 * bend / how.temperature, 0.0)
        bend = np.where(legal, bend / how.temperature, 0.0)
        logits = np.where(legal, capped / how.temperature, -np.inf)
        logp, top, lse = _log_softmax(logits)
        p = np.exp(logp)
        others = np.where(rows_top(rows, top, classes), -np.expm1(logp), 1 - p)
        first = np.where(legal.any(axis=1), legal.argmax(axis=1), -1)
        top = np.where(logits.max(axis=1) == -np.inf, first, top)
    else:
        logp = x if how.input_kind == LOG_PROBS else np.log(x)
        p = np.exp(x) if how.input_kind == LOG_PROBS else x
        top, lse, others = x.argmax(axis=1), np.zeros(n), 1 - p
    entropy = -_times(p, logp).sum(axis=1)

    w = np.zeros(x.shape)
    if shares is not None:
        shares = _floats(shares)
        if how.kind == LOGITS:
            w = np.exp(_log_softmax(shares / how.temperature)[0])
        else:
            w = np.exp(shares) if how.kind == LOG_PROBS else shares
    if how.smoothing:
        w = (1 - how.smoothing) * w + how.smoothing / legal.sum(axis=1, keepdims=True) * legal
    w = w * weight
    if how.form == JENSEN_SHANNON:
        middle = np.log((p + w) / 2)
        u = np.where(p > 0, logp - middle, 0.0)
        loss = (_times(p, u) + _times(w, np.where(w > 0, np.log(w) - middle, 0.0))).sum(axis=1) / 2
        if how.input_kind == LOGITS:
            u = u - _times(p, u).sum(axis=1, keepdims=True)
            share = np.where(w > 0, w / (p + w), 0.0)
            mean = (p * share).sum(axis=1, keepdims=True)
            hess = _times(p, (1 - 2 * p) * (u + share) + p * mean) / 2
            return loss, _times(p, u) / 2 * bend, lse, entropy, top, hess * bend**2 + p * u / 2 * second
        share = np.where(w > 0, w / (p + w), 0.0)
        if how.input_kind == LOG_PROBS:
            return loss, p * u / 2, lse, entropy, top, _times(p, u + share) / 2
        slope = np.where((p == 0) & (w == 0), np.log(2), logp - middle) / 2
        return loss, slope, lse, entropy, top, np.where(share > 0, share / p, 0.0) / 2
    loss = -_times(w, logp).sum(axis=1)
    if how.divergence:
        loss = _times(w, np.where(w > 0, np.log(w), 0.0) - logp).sum(axis=1)
    if how.input_kind != LOGITS:
        if how.input_kind == LOG_PROBS:
            return loss, np.where(w == 0, 0.0, -w), lse, entropy, top, np.zeros(x.shape)
        return loss, np.where(w == 0, 0.0, -w / p), lse, entropy, top, np.where(w == 0, 0.0, w / p**2)
    mass = w.sum(axis=1, keepdims=True) + 2 * how.z_loss * lse[:, None] if how.z_loss else w.sum(axis=1, keepdims=True)
    grad = _times(p, mass) - w
    spread = p * others
    hess = _times(spread, mass) + 2 * how.z_loss * p**2
    if how.z_loss:
        loss = loss + how.z_loss * lse**2
    if how.entropy:
        loss = loss - how.entropy * entropy
        grad = grad + how.entropy * _times(p, logp + entropy[:, None])
        hess = hess + how.entropy * _times(p, (1 - 2 * p) * (logp + entropy[:, None]) + others)
    if target is not None:
        index = np.asarray(target)
        cost, own, rest = -logp[rows, index], p[rows, index], others[rows, index]
        slope, curve = np.ones(n), np.zeros(n)
        if how.form == FOCAL:
            (gamma,) = how.params
            ratio = np.where(rest > 0, cost / np.where(rest > 0, rest, 1), 1.0)
            slope = rest**gamma * (1 + gamma * np.where(own > 0, own * ratio, 0.0))
            # p q^(gamma - 2) gamma (2 q + (gamma - 1) p c - q c), in which c / q tends to 1.
            curve = np.where((own > 0) & (rest > 0), ratio * ((gamma - 1) * own - rest) + 2, 0.0)
            curve = gamma * own * _times(curve, np.where(rest > 0, rest, 1) ** (gamma - 1))
            cost = _times(rest**gamma, cost)
        elif how.form == POLY:
            for k, epsilon in enumerate(how.params, 1):
                cost = cost + epsilon * rest**k / k
                slope = slope + epsilon * own * rest ** (k - 1)
                curve = curve - epsilon * own * rest ** (k - 1)
                curve = curve + (epsilon * own**2 * (k - 1) * rest ** (k - 2) if k > 1 else 0.0)
        u = (1 - how.smoothing) * weight[index] * (1 if factor is None else _floats(factor))
        loss = loss + _times(u, cost)
        grad = grad + (u * slope)[:, None] * p
        grad[rows, index] = (_times(p, mass) - w)[rows, index] - u * slope * rest
        if how.entropy:
            grad[rows, index] += how.entropy * _times(p, logp + entropy[:, None])[rows, index]
        away = p.copy()
        away[rows, index] = rest
        hess = hess + (u * slope)[:, None] * spread + _times((u * curve)[:, None], away) * away
    hess = np.where(bend == 0, 0.0, hess * bend**2 + _times(second, grad))
    return loss, np.where(bend == 0, 0.0, grad * bend), lse, entropy, top, hess


def softmax_focal_loss(x, target, weight=None, ignore_index=-100, gamma=2.0, label_smoothing=0.0):
    """``-w (1 - p)^gamma log p`` of the target's probability p. Lin et al. 2017."""
    how = How(form=FOCAL, params=(gamma,), smoothing=label_smoothing)
    return _of_a_class(x, target, ignore_index, how=how, weight=weight)


def poly_loss(x, target, weight=None, ignore_index=-100, epsilon=1.0, label_smoothing=0.0):
    """Cross-entropy plus ``sum of epsilon_i (1 - p)^i / i``. Leng et al. 2022."""
    params = tuple(np.atleast_1d(epsilon))
    how = How(form=POLY, params=params, smoothing=label_smoothing)
    return _of_a_class(x, target, ignore_index, how=how, weight=weight)


def kl_div(x, y, input_kind="logits", target_kind="probs", temperature=1.0):
    """``sum of q log(q / p)``."""
    kinds = {"input_kind": KINDS[input_kind], "kind": KINDS[target_kind]}
    return _derivatives(x, shares=y, how=How(**kinds, temperature=temperature, divergence=True))


def js_div(x, y, input_kind="logits", target_kind="probs", temperature=1.0):
    """``sum of p log(p / m) / 2 + q log(q / m) / 2`` with m the mean of p and q."""
    kinds = {"input_kind": KINDS[input_kind], "kind": KINDS[target_kind]}
    return _derivatives(x, shares=y, how=How(**kinds, temperature=temperature, form=JENSEN_SHANNON))


def policy_gradient_loss(logits, actions, advantages, entropy_coef=0.0, action_mask=None):
    """``-advantage log pi(action) - entropy_coef H(pi)``. Williams 1992."""
    return _derivatives(
        logits, actions, how=How(entropy=entropy_coef), legal=action_mask, factor=advantages
    )  # fmt: skip


def _of_a_class(x, target, ignore_index, how, weight):
    """Loss and derivatives where the target is a class, 0 where it is the one to ignore."""
    target = np.asarray(target)
    kept = target != ignore_index
    loss, *slopes = _derivatives(x, _indices(target, np.shape(x)[-1], kept), how=how, weight=weight)
    return np.where(kept, loss, 0.0), *(np.where(kept[:, None], slope, 0.0) for slope in slopes)


def _derivatives(*arguments, **options):
    """Loss, gradient and Hessian of `softmax_loss`."""
    loss, grad, *_, hess = softmax_loss(*arguments, **options)
    return loss, grad, hess


def _log_softmax(z):
    """Logarithms of softmax probabilities, places of maxima, log-sum-exp; a single +inf takes all."""
    rows = np.arange(len(z))
    top = z.argmax(axis=1)
    highest = z[rows, top]
    single = (highest == np.inf) & (np.sum(z == np.inf, axis=1) == 1)
    shift = np.where(single[:, None], np.where(z == np.inf, 0.0, -np.inf), z - highest[:, None])
    e = np.exp(shift)
    e[rows, top] = 0.0
    log = np.log1p(e.sum(axis=1)) + np.where(single | np.isfinite(highest), 0.0, np.nan)
    return shift - log[:, None], top, highest + log


def rows_top(rows, top, classes):
    """Where each row has its maximum."""
    return top[:, None] == np.arange(classes)


def _floats(values):
    return np.asarray(values, dtype=np.float64)


def _margin(x, positive):
    """Sign of the target, and the prediction times it."""
    sign = np.where(positive, 1.0, -1.0)
    return sign, sign * _floats(x)


def _logistic(s):
    """Probabilities of the right and of the wrong class, and the cost, of a margin."""
    tail = np.exp(-np.abs(s))
    return np.where(s > 0, 1.0, tail) / (1 + tail), np.where(s > 0, tail, 1.0) / (1 + tail), np.logaddexp(0.0, -s)


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
