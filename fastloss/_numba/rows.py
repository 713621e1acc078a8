"""Cross-entropy from logits; ``_cython/rows.pxi`` says how, this computes the same operation by operation.

What is one value per row is computed here, for rows side by side; maxima and exponentials of many
classes are in ``wide.py``, of few classes in ``narrow.py``.
"""

import numpy as np

from fastloss._blocks import BLOCK, CHUNK, SIDE
from fastloss._numba._jit import apart, bare, inline, kernel
from fastloss._numba.blocks import add_lanes, chunk_bounds, clear, load_weights, store, total, value_at
from fastloss._numba.primitives_generated import log1p_f64

INFINITY = np.inf
NAN = np.nan
TINY = 1e-30  # a factor below this, or above its inverse, may not fit into float32
NEAR = 8192.0  # rows whose maximum is below this in magnitude take a shorter way to exp(x - m)

# Rows side by side: what the arrays of one value per row in their common room hold.
S, LOST, SMOOTH, U, W_Y, WEIGHT, SCALE, GAP, OWN, OTHERS, FACTOR, G_Y, LOSS, UNIT, Y, TOP = range(16)
MAXIMUM, SLOPE, TERM, SPARE = range(16, 20)  # for the heads of soft_heads.py
SIDES = 20 * SIDE


@inline
def side(room, k, n):
    """One of the arrays of the room, n rows of it."""
    return bare(room)[k * SIDE : k * SIDE + n]


@inline
def indices(room, k, n):
    """One that holds integers."""
    return bare(room)[k * SIDE : k * SIDE + n].view(np.int64)


@inline
def weight_of(weights, k):
    return weights[k] if weights.size > 0 else 1.0


@inline
def sum_of_weights(class_weight, classes):
    if class_weight.size == 0:
        return np.float64(classes)
    w_sum = 0.0
    for k in range(classes):
        w_sum += class_weight[k]
    return w_sum


@inline
def load_targets(target, first, n, classes, ignore_index, mask, y):
    """Classes of rows from ``first`` on, -1 where a row counts as masked. Returns whether one is bad."""
    target, mask = bare(target), bare(mask)
    part = target[first : first + n]
    for r in range(n):
        y[r] = part[r]
    if mask.size == target.size:
        kept = mask[first : first + n]  # a division per row would take longer than all else here
        for r in range(n):
            k = y[r]
            y[r] = k if kept[r] else ignore_index
    elif mask.size > 0:
        run = target.size // mask.size
        for r in range(n):
            y[r] = y[r] if mask[(first + r) // run] else ignore_index
    # Mostly all are classes and none is ignored; to see that takes a third of the operations of what follows.
    beyond = 0
    for r in range(n):
        beyond |= y[r] | (classes - 1 - y[r])
    if beyond >= 0 and not 0 <= ignore_index < classes:
        return False
    bad = 0
    for r in range(n):
        k = y[r]
        outside = (k < 0) | (k >= classes)
        bad |= outside & (k != ignore_index)
        y[r] = -1 if outside | (k == ignore_index) else k
    return bad != 0


@inline
def open_sides(room, target, first, n, padded, classes, class_weight, ignore_index, smoothing, weight, mask, scale):
    """What is known of rows before their logits are read. Returns whether a target is bad."""
    y, weights, w_y = indices(room, Y, padded), side(room, WEIGHT, padded), side(room, W_Y, padded)
    u, scales = side(room, U, padded), side(room, SCALE, padded)
    s, smooth = side(room, S, padded), side(room, SMOOTH, padded)
    bad = load_targets(target, first, n, classes, ignore_index, mask, y)
    for r in range(n, padded):
        y[r] = -1
    if weight.size > 0:
        load_weights(weight, target.size, first, weights[:n])
    else:
        for r in range(n):
            weights[r] = 1.0
    for r in range(padded):
        w = weights[r]
        weights[r] = w if y[r] >= 0 else 0.0
        w_y[r] = weight_of(class_weight, max(y[r], 0))
        s[r] = 0.0
        smooth[r] = 0.0
        u[r] = (1.0 - smoothing) * w_y[r]
        scales[r] = scale * weights[r]
    return bad


@inline
def limit_maximum(x, base, c, work):
    """Maximum of the row that stands for one with +inf in it: 0, or NaN if there is no limit."""
    count, nan = 0, False
    for k in range(base, base + c):
        v = value_at(x, k, work)
        nan |= v != v
        count += v == INFINITY
    return work.dtype.type(NAN) if nan or count != 1 else work.dtype.type(0.0)


@inline
def to_limit(x, step):
    """Turn logits of such a row, ``step`` elements apart, into those that it stands for."""
    for i in range(0, x.size, step):
        x[i] = 0.0 if x[i] == INFINITY else -INFINITY


@inline
def is_short(factor, like):
    """Whether a factor of exponentials may be rounded to the type of ``like``: it is well within its range."""
    return like.itemsize == 8 or TINY <= abs(factor) <= 1.0 / TINY


@apart
@inline
def absorb(e, factor, n, step):
    """Put the infinite factor of an infinite log-sum-exp's square into the exponentials; 0 does not feel it."""
    for i in range(n):
        v = np.float64(e[i * step])
        e[i * step] = v * factor if v != 0.0 else 0.0


@inline
def side_gaps(u, gap, n):
    for r in range(n):  # a class of weight 0 costs nothing, whatever its logit
        gap[r] = 0.0 if (u[r] == 0.0) & (gap[r] == INFINITY) else gap[r]


@inline
def side_logs(s, gap, own, others, logs, n):
    for r in range(n):
        logs[r] = log1p_f64(s[r])
        # S - e_y; with the target at the maximum s itself.
        others[r] = s[r] if gap[r] == 0.0 else (1.0 + s[r]) - own[r]


@inline
def finish_sides(room, n, classes, smoothing, w_sum):
    """Losses, factors and gradients at the target."""
    s, smooth, u, w_y = side(room, S, n), side(room, SMOOTH, n), side(room, U, n), side(room, W_Y, n)
    weights, scales, gap, own = side(room, WEIGHT, n), side(room, SCALE, n), side(room, GAP, n), side(room, OWN, n)
    others, factor, g_y, losses = side(room, OTHERS, n), side(room, FACTOR, n), side(room, G_Y, n), side(room, LOSS, n)
    v = smoothing / np.float64(classes)
    side_gaps(u, gap, n)
    side_logs(s, gap, own, others, losses, n)
    for r in range(n):
        sums = 1.0 + s[r]
        log = losses[r]
        factor[r] = (u[r] + v * w_sum) / sums * scales[r]
        extra = v * (smooth[r] + w_sum * log) if v != 0.0 else 0.0
        losses[r] = (u[r] * (gap[r] + log) + extra) * weights[r]
        extra = v * (w_sum * own[r] / sums - w_y[r]) if v != 0.0 else 0.0
        g_y[r] = (-(u[r] * others[r]) / sums + extra) * scales[r]


@inline
def take_losses(room, start, n, losses, lanes):
    """Add the losses of rows from ``start`` on to the lanes, and store them if they are wanted."""
    values, y = side(room, LOSS, n), indices(room, Y, n)
    for r in range(n):
        values[r] = values[r] if y[r] >= 0 else 0.0
    add_lanes(lanes, values, values.size)
    if losses.size > 0:
        store(values, losses, start)


@kernel
def target_weight_blocks(
    target, classes, class_weight, ignore_index, weight, mask, partials, first, last, work, flags, lanes
):
    """Sums of the kept rows' weights: the divisors of means."""
    bad = False
    n = target.size
    for block in range(first, last):
        clear(lanes)
        for chunk in range(BLOCK // CHUNK):
            start, stop = chunk_bounds(block, chunk, n)
            if start >= stop:
                break
            y, weights = work[: stop - start].view(np.int64), work[CHUNK : CHUNK + stop - start]
            bad |= load_targets(target, start, stop - start, classes, ignore_index, mask, y)
            if weight.size > 0:
                load_weights(weight, n, start, weights)
            else:
                for r in range(y.size):
                    weights[r] = 1.0
            if class_weight.size > 0:
                for r in range(y.size):
                    weights[r] = class_weight[max(y[r], 0)] * weights[r]
            for r in range(y.size):
                w = weights[r]
                weights[r] = w if y[r] >= 0 else 0.0
            add_lanes(lanes, weights, weights.size)
        partials[block] = total(lanes)
    return bad
