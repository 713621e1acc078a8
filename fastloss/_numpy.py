"""The backend that needs nothing but NumPy: `reference` applied part by part.

It has the interface of the compiled backends: arrays arrive validated, results
are written to the arrays given, and the functions return whether a kept entry
has an invalid target. Everything is computed in float64 and cast when stored.
"""

import math

import numpy as np

from . import reference
from ._blocks import SQUARES
from ._how import PROBS
from .registry import DOMAINS, LOSSES

name = "numpy"
GRAIN = 1 << 62  # never more than one thread
plain_elementwise = plain_rows = plain_softmax = plain_td_loss = None  # no shorter way for plain arrays

_BLOCK = 4096  # elements behind one partial sum, in every backend
_PART = 65536  # elements computed at a time, which bounds the memory


def describe():
    """A line for `show_config`."""
    return "the reference, always there"


@np.errstate(all="ignore")
def elementwise(loss, mode, x, y, third, params, weight, mask, scale, losses, grad, hess, partials, threads):
    """Compute an elementwise loss.

    Parameters
    ----------
    loss : str
        Name of the loss, the same as in `reference`.
    mode : {0, 1, 2, 3}
        Loss; loss and gradient; gradient and Hessian; as loss, but of the losses' squares is the sum.
    x, y : ndarray, shape (n,)
        Predictions and targets.
    third : ndarray, shape (n,) or (k,), or None
        What else differs per element; k values are repeated.
    params : tuple of float
        The loss's parameters.
    weight, mask : ndarray or None
        One value per element or per run of equally many elements; True keeps.
    scale : float
        Factor on the derivatives, not on the losses.
    losses, grad, hess : ndarray, shape (n,), or None
        Weighted results; `grad` may be `x`. In mode 1 `hess` is the gradient by the third array.
    partials : ndarray of float64
        One sum of weighted losses per block.
    threads : int
        Not used.

    Returns
    -------
    bool
        Whether a kept value is outside its domain.
    """
    facts, function, n, bad = LOSSES[loss], getattr(reference, loss), len(x), False
    for part in _parts(n, _BLOCK, 1):
        targets = y[part].astype(np.float64)
        used = _spread(mask, part, n, True)
        arrays = [x[part], targets]
        domains = [facts.input, facts.target]
        named = {}
        if third is not None:
            named[facts.third] = third[np.arange(part.start, part.stop) % len(third)]
            arrays.append(named[facts.third])
            domains.append(facts.third_domain)
        for values, domain in zip(arrays, domains, strict=True):
            valid = DOMAINS[domain].valid(values)
            if values is not targets:
                valid |= np.isnan(values)  # a prediction that is NaN is no error, it propagates
            bad |= bool(np.any(used & ~valid))
            used = used & valid
        factor = _spread(weight, part, n, 1.0)
        value, slope, curve, *more = function(x[part], targets, **(facts.grouped(params) | named))
        # Taken in this order, a square is in range wherever the whole product is.
        value = np.where(used, value * factor * (value if mode == SQUARES else 1.0), 0.0)
        _store_sums(partials, part, _BLOCK, value)
        _store(losses, part, value)
        _store(grad, part, np.where(used, slope * (factor * scale), 0.0))
        _store(hess, part, np.where(used, (more[0] if more and mode == 1 else curve) * (factor * scale), 0.0))
    return bad


@np.errstate(all="ignore")
def rows(loss, x, target, params, class_weight, ignore_index, weight, mask, scale, losses, grad, partials, threads):
    """Compute a loss of rows of classes.

    Parameters
    ----------
    loss : str
        Name of the loss, the same as in `reference`.
    x : ndarray, shape (n, C)
    target : ndarray of int, shape (n,)
    params : tuple of float
        The loss's parameters.
    class_weight : ndarray of float64, shape (C,), or None
    ignore_index : int
        Target of rows that count as masked.
    weight, mask, scale, losses, grad, partials, threads
        As in `elementwise`, per row; `grad` has the shape of `x`.

    Returns
    -------
    bool
        Whether a kept row's class is out of range.
    """
    function, (n, classes), bad = getattr(reference, loss), x.shape, False
    block = max(1, _BLOCK // max(1, classes))
    for part in _parts(n, block, classes):
        used, invalid = _usable(target[part], classes, _spread(mask, part, n, True), ignore_index)
        bad |= invalid
        factor = _spread(weight, part, n, 1.0)[used]
        value, slope = np.zeros(len(used)), np.zeros((len(used), classes))
        if used.any():
            own, own_slope, _ = function(x[part][used], target[part][used], class_weight, ignore_index, *params)
            value[used], slope[used] = own * factor, own_slope * factor[:, None] * scale
        _store_sums(partials, part, block, value)
        _store(losses, part, value)
        _store(grad, part, slope)
    return bad


@np.errstate(all="ignore")
def softmax(
    x, target, shares, how, class_weight, ignore_index, legal, factor, weight, mask, scale, losses, grad, lse,
    entropies, top, hess, partials, threads,
):  # fmt: skip
    """Compute a softmax loss of `reference.softmax_loss`; other arguments as in `rows`, whether one is bad returned."""
    (n, classes), bad = x.shape, False
    block = max(1, _BLOCK // classes)
    legal = None if legal is None else np.broadcast_to(legal.reshape(-1, classes), x.shape)
    for part in _parts(n, block, classes):
        used = _spread(mask, part, n, True)
        if target is not None:
            used, invalid = _usable(target[part], classes, used, ignore_index)
            bad |= invalid
        elif how.kind == PROBS:
            bad |= _leave_out(used, ~((shares[part] >= 0) & (shares[part] <= 1)))
        if how.input_kind == PROBS:
            bad |= _leave_out(used, (x[part] < 0) | (x[part] > 1))  # NaN propagates
        weights = _spread(weight, part, n, 1.0)[used]
        arrays = [None if a is None else a[part][used] for a in (x, target, shares, legal, factor)]
        found = [np.zeros(len(used)), np.zeros((len(used), classes)), *np.zeros((2, len(used))), np.full(len(used), -1)]
        found.append(np.zeros((len(used), classes)))
        if used.any():
            own = reference.softmax_loss(*arrays[:3], how, class_weight, *arrays[3:])
            for values, value in zip(found, own, strict=True):
                values[used] = value
            found[0][used] *= weights
            for slopes in (found[1], found[5]):
                slopes[used] *= weights[:, None] * scale
        _store_sums(partials, part, block, found[0])
        for array, values in zip((losses, grad, lse, entropies, top, hess), found, strict=True):
            _store(array, part, values)
    return bad


@np.errstate(all="ignore")
def target_weight(target, classes, class_weight, ignore_index, weight, mask):
    """Sums of class weight times sample weight over the rows that `rows` counts; whether a target is bad."""
    n, sums, bad = len(target), [], False
    for part in _parts(n, _BLOCK, 1):
        used, invalid = _usable(target[part], classes, _spread(mask, part, n, True), ignore_index)
        bad |= invalid
        values = _spread(weight, part, n, 1.0)[used]
        if class_weight is not None:
            values = values * class_weight[target[part][used]]
        sums.append(math.fsum(values.tolist()))
    return np.array(sums), bad


@np.errstate(all="ignore")
def td_loss(
    q,
    actions,
    rewards,
    next_q,
    terminated,
    gamma,
    online,
    legal,
    loss,
    delta,
    weight,
    mask,
    scale,
    losses,
    grad,
    td_error,
    partials,
    threads,
):
    """Compute the loss of temporal-difference errors.

    Parameters
    ----------
    q, next_q : ndarray, shape (n, A)
        Action values of the states and of the next states.
    actions, rewards, terminated : ndarray, shape (n,)
    gamma : float
    online : ndarray, shape (n, A), or None
        Values that choose the next action.
    legal : ndarray of bool, shape (n, A), or None
        Next actions to choose from.
    loss : {"huber", "mse", "smooth_l1"}
    delta : float
        Huber's delta or smooth L1's beta.
    weight, mask, scale, losses, grad, partials, threads
        As in `elementwise`, per transition; `grad` has the shape of `q`.
    td_error : ndarray, shape (n,), or None
        Target minus value, 0 where masked.

    Returns
    -------
    bool
        Whether a kept action is out of range.
    """
    (n, size), bad = q.shape, False
    block = max(1, _BLOCK // max(1, size))
    for part in _parts(n, block, size):
        used, invalid = _usable(actions[part], size, _spread(mask, part, n, True))
        bad |= invalid
        factor = _spread(weight, part, n, 1.0)[used]
        value, error, slope = np.zeros(len(used)), np.zeros(len(used)), np.zeros((len(used), size))
        if used.any():
            arrays = [
                None if a is None else a[part][used] for a in (q, actions, rewards, next_q, terminated, online, legal)
            ]
            own, own_slope, error[used] = reference.td_loss(*arrays[:5], gamma, *arrays[5:], loss, delta)
            value[used], slope[used] = own * factor, own_slope * factor[:, None] * scale
        _store_sums(partials, part, block, value)
        _store(losses, part, value)
        _store(td_error, part, error)
        _store(grad, part, slope)
    return bad


def _parts(n, block, width):
    """Yield slices of whole blocks of `block` rows, each row `width` elements wide."""
    step = block * max(1, _PART // (block * max(1, width)))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _spread(values, part, n, default):
    """Give every entry of `part` its value, of which there may be one per run of entries."""
    if values is None:
        return np.full(part.stop - part.start, default)
    entries = np.arange(part.start, part.stop) // (n // len(values))
    return values[entries].astype(type(default))


def _leave_out(used, invalid):
    """Take rows with an invalid value from those that count; whether there is one."""
    invalid = used & invalid.any(axis=1)
    used &= ~invalid
    return bool(invalid.any())


def _usable(index, size, keep, ignore_index=None):
    """Tell which entries count, and whether a kept one is out of range."""
    valid = (index >= 0) & (index < size)
    if ignore_index is not None:
        # An unsigned index beyond int64 is out of range, never a wrapped ignore_index.
        keep = keep & ~((index == ignore_index) & (index <= np.iinfo(np.int64).max))
    return keep & valid, bool(np.any(keep & ~valid))


def _store_sums(partials, part, block, value):
    """Write the sum of every block of `value`."""
    sums = np.add.reduceat(value, np.arange(0, len(value), block))
    partials[part.start // block :][: len(sums)] = sums


def _store(array, part, values):
    if array is not None:
        array[part] = values
