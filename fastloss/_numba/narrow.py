"""Cross-entropy of few classes: rows side by side; ``_cython/narrow.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import BLOCK, LANES, NARROW, SIDE
from fastloss._numba._jit import by_type, inline, kernel
from fastloss._numba.blocks import add_lanes, clear, results, store, store_converted, total, view
from fastloss._numba.primitives_generated import log1p_f64
from fastloss._numba.rows import (
    INFINITY,
    NEAR,
    entry_weight,
    exp_diff,
    exp_near,
    infinite_row,
    sum_of_weights,
    weight_of,
)

ROOM = 2 * NARROW * SIDE + 6 * SIDE  # elements of work that the kernels here need


@inline
def load_targets(target, first, n, classes, ignore_index, mask, y):
    """Classes of rows from ``first`` on, -1 where a row counts as masked. Returns whether one is bad."""
    bad = False
    part = target[first : first + n]
    run = target.size // mask.size if mask.size > 0 else 1
    for r in range(n):
        k = np.int64(part[r])
        if mask.size > 0 and not mask[(first + r) // run]:
            k = ignore_index
        outside = k < 0 or k >= classes
        bad |= outside and k != ignore_index
        y[r] = -1 if outside or k == ignore_index else k
    return bad


@inline
def side_maxima(x, m, top, k):
    for r in range(x.size):
        v, old, t = x[r], m[r], top[r]
        top[r] = k if v > old else t
        m[r] = v if v > old else old


@inline
def side_add_f32(e, s, lost, r):
    s[r] = s[r] + np.float64(e)


@inline
def side_add_f64(e, s, lost, r):
    """Add e with what the addition rounds away (two-sum), which would use up the loss's ULPs."""
    old = s[r]
    new = old + e
    part = new - old
    lost[r] = lost[r] + ((old - (new - part)) + (e - part))
    s[r] = new


side_add = by_type(side_add_f32, side_add_f64)


@inline
def side_exp(x, m, top, k, s, lost, near):
    """One class of all rows: x becomes e, s grows by it except where the class is the row's maximum."""
    zero = x.dtype.type(0.0)
    if near:
        for r in range(x.size):
            e = exp_near(x[r], m[r])
            x[r] = e
            side_add(zero if top[r] == k else e, s, lost, r)
    else:
        for r in range(x.size):
            e = exp_near(x[r], m[r]) if abs(m[r]) < NEAR else exp_diff(x[r], m[r])
            x[r] = e
            side_add(zero if top[r] == k else e, s, lost, r)


@inline
def side_smoothing(sums, x, m, w):
    for r in range(x.size):
        sums[r] = sums[r] + (np.float64(m[r]) - np.float64(x[r])) * w


@inline
def side_log1p(s, logs):
    for r in range(s.size):
        logs[r] = log1p_f64(s[r])


@inline
def side_finish(s, logs, smooth, u, w_y, weight, scale, gap, own, others, v, w_sum, factor, g_y, losses):
    """Losses, factors and gradients at the target of all rows."""
    for r in range(s.size):
        sums = 1.0 + s[r]
        log = logs[r]
        factor[r] = (u[r] + v * w_sum) / sums * scale[r]
        extra = v * (smooth[r] + w_sum * log) if v != 0.0 else 0.0
        losses[r] = (u[r] * (gap[r] + log) + extra) * weight[r]
        extra = v * (w_sum * own[r] / sums - w_y[r]) if v != 0.0 else 0.0
        g_y[r] = (-(u[r] * others[r]) / sums + extra) * scale[r]


@inline
def side_scale(e, factor):
    for r in range(e.size):
        e[r] = e[r] * e.dtype.type(factor[r])


@inline
def side_smooth_scale(e, factor, scale, shift):
    for r in range(e.size):
        e[r] = np.float64(e[r]) * factor[r] - scale[r] * shift


@inline
def side(room, k, n):
    """The k-th array of one value per row."""
    return room[k * SIDE : k * SIDE + n]


@inline
def narrow_rows(
    x, c, first, n, target, class_weight, w_sum, ignore_index, smoothing, weight, mask, scale, losses, grad, work,
    room, y,
):  # fmt: skip
    """Rows first to first + n, transposed so that every loop runs over rows. Returns whether a target is bad."""
    base, entries = first * c, target.size
    padded = (n + 15) // 16 * 16
    xt, flat, real = work[: c * SIDE], work[NARROW * SIDE : NARROW * SIDE + n * c], work[2 * NARROW * SIDE :]
    m, top = side(real, 0, padded), side(real, 1, padded)
    s, logs, smooth, u = side(room, 0, padded), side(room, 1, padded), side(room, 2, padded), side(room, 3, padded)
    w_y, weights, scales = side(room, 4, padded), side(room, 5, padded), side(room, 6, padded)
    gap, own, others = side(room, 7, padded), side(room, 8, padded), side(room, 9, padded)
    factor, g_y, results_ = side(room, 10, padded), side(room, 11, padded), side(room, 12, padded)
    lost = side(room, 13, padded)
    source = view(x, base, base + n * c, flat)
    zero, v = work.dtype.type(0.0), smoothing / np.float64(c)
    bad = load_targets(target, first, n, c, ignore_index, mask, y)
    for r in range(n, padded):
        y[r] = -1
    for r in range(padded):
        weights[r] = entry_weight(weight, entries, first + r) if r < n else 0.0
        w_y[r] = weight_of(class_weight, max(y[r], 0))
        m[r] = -INFINITY
        top[r] = -1.0
        s[r] = 0.0
        lost[r] = 0.0
        smooth[r] = 0.0
        u[r] = (1.0 - smoothing) * w_y[r]
        scales[r] = scale * weights[r]
    for r in range(padded):
        if y[r] >= 0:
            row = source[r * c : (r + 1) * c]
            for k in range(c):
                xt[k * SIDE + r] = row[k]
        else:  # masked: nothing of it may be looked at
            u[r] = w_y[r] = weights[r] = scales[r] = 0.0
            for k in range(c):
                xt[k * SIDE + r] = zero
    for k in range(c):
        side_maxima(xt[k * SIDE : k * SIDE + padded], m, top, work.dtype.type(k))
    near, infinite = True, False
    for r in range(padded):
        near &= abs(m[r]) < NEAR
        infinite |= m[r] == INFINITY
        gap[r] = np.float64(m[r]) - np.float64(xt[max(y[r], 0) * SIDE + r])
        if u[r] == 0.0 and gap[r] == INFINITY:
            gap[r] = 0.0  # a class of weight 0 costs nothing, whatever its logit
    if v != 0.0:
        for k in range(c):
            w = weight_of(class_weight, k)
            if w != 0.0:
                side_smoothing(smooth, xt[k * SIDE : k * SIDE + padded], m, w)
    for k in range(c):
        side_exp(xt[k * SIDE : k * SIDE + padded], m, top, work.dtype.type(k), s, lost, near)
    for r in range(padded):
        s[r] = s[r] + lost[r]
    for r in range(padded):
        k = max(y[r], 0)
        own[r] = xt[k * SIDE + r]
        others[r] = s[r] if top[r] == work.dtype.type(k) else (1.0 + s[r]) - own[r]
    side_log1p(s, logs)
    side_finish(s, logs, smooth, u, w_y, weights, scales, gap, own, others, v, w_sum, factor, g_y, results_)
    if grad.size > 0:
        for k in range(c):
            column = xt[k * SIDE : k * SIDE + padded]
            if v != 0.0:
                side_smooth_scale(column, factor, scales, v * weight_of(class_weight, k))
            else:
                side_scale(column, factor)
        out = results(grad, base, base + n * c, flat)
        for r in range(n):
            row = out[r * c : (r + 1) * c]
            for k in range(c):
                row[k] = xt[k * SIDE + r]
            if y[r] >= 0:
                row[y[r]] = g_y[r]
        store_converted(out, grad, base)
    for r in range(n):
        losses[r] = results_[r] if y[r] >= 0 else 0.0
        if infinite and y[r] >= 0 and m[r] == INFINITY:
            row_weight = entry_weight(weight, entries, first + r)
            w = weight_of(class_weight, y[r])
            u_y = (1.0 - smoothing) * w
            losses[r] = row_weight * infinite_row(
                x, c, first + r, y[r], u_y, v, class_weight, w_sum, scale * row_weight, grad
            )
    return bad


@kernel
def narrow_blocks(
    x, classes, target, class_weight, ignore_index, smoothing, weight, mask, scale, losses, grad, in_place,
    partials, first, last, work, flags, lanes,
):  # fmt: skip
    bad = False
    n = target.size
    rows = max(1, BLOCK // classes)
    w_sum = sum_of_weights(class_weight, classes)
    room = lanes[LANES:]
    row_losses = room[14 * SIDE : 15 * SIDE]
    y = lanes[LANES + 15 * SIDE :].view(np.int64)
    for block in range(first, last):
        clear(lanes)
        stop = min((block + 1) * rows, n)
        for start in range(block * rows, stop, SIDE):
            count = min(stop - start, SIDE)
            bad |= narrow_rows(
                x, classes, start, count, target, class_weight, w_sum, ignore_index, smoothing, weight, mask, scale,
                row_losses, grad, work, room, y,
            )  # fmt: skip
            add_lanes(lanes, row_losses[:count])
            if losses.size > 0:
                store(row_losses[:count], losses, start)
        partials[block] = total(lanes)
    return bad
