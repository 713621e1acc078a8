"""Cross-entropy of few classes: rows side by side; ``_cython/narrow.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import BLOCK, LANES, NARROW, SIDE
from fastloss._numba._jit import by_type, inline, kernel
from fastloss._numba.blocks import add_lanes, clear, results, store, store_converted, total, view
from fastloss._numba.primitives_generated import exp_diff_f32, exp_diff_f64, exp_near_f32, exp_near_f64
from fastloss._numba.rows import (
    FACTOR,
    G_Y,
    GAP,
    INFINITY,
    LOSS,
    LOST,
    NAN,
    NEAR,
    OTHERS,
    OWN,
    SCALE,
    SMOOTH,
    S,
    Y,
    drop_masked,
    finish_sides,
    indices,
    open_sides,
    side,
    sum_of_weights,
    weight_of,
)  # fmt: skip

ROOM = 2 * NARROW * SIDE + 2 * SIDE  # elements of work that the kernel needs

exp_diff = by_type(exp_diff_f32, exp_diff_f64)
exp_near = by_type(exp_near_f32, exp_near_f64)


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
def side_scale(e, factor):
    for r in range(e.size):
        e[r] = e[r] * e.dtype.type(factor[r])


@inline
def side_smooth_scale(e, factor, scale, shift):
    for r in range(e.size):
        e[r] = np.float64(e[r]) * factor[r] - scale[r] * shift


@inline
def side_limit(x, c):
    """Turn one row's logits, +inf among them, into those that it stands for. Returns the maximum."""
    count, nan = 0, False
    for k in range(0, c * SIDE, SIDE):
        v = x[k]
        nan |= v != v
        count += v == INFINITY
        x[k] = 0.0 if v == INFINITY else -INFINITY
    return x.dtype.type(NAN) if nan or count != 1 else x.dtype.type(0.0)


@inline
def narrow_rows(x, c, first, n, padded, class_weight, smoothing, w_sum, grad, work, room):
    """Rows first to first + n, transposed so that every loop runs over rows."""
    base = first * c
    xt, flat, real = work[: c * SIDE], work[NARROW * SIDE : NARROW * SIDE + n * c], work[2 * NARROW * SIDE :]
    m, top = real[:padded], real[SIDE : SIDE + padded]
    y, s, lost, smooth = (
        indices(room, Y, padded),
        side(room, S, padded),
        side(room, LOST, padded),
        side(room, SMOOTH, padded),
    )
    gap, own, others = side(room, GAP, padded), side(room, OWN, padded), side(room, OTHERS, padded)
    source = view(x, base, base + n * c, flat)
    zero, v = work.dtype.type(0.0), smoothing / np.float64(c)
    for r in range(padded):
        m[r] = -INFINITY
        top[r] = -1.0
        if y[r] >= 0:
            row = source[r * c : (r + 1) * c]
            for k in range(c):
                xt[k * SIDE + r] = row[k]
        else:  # masked: nothing of it may be looked at
            for k in range(c):
                xt[k * SIDE + r] = zero
    for k in range(c):
        side_maxima(xt[k * SIDE : k * SIDE + padded], m, top, work.dtype.type(k))
    near = True
    for r in range(padded):
        near &= abs(m[r]) < NEAR
    if not near:
        for r in range(n):
            if m[r] == INFINITY:
                m[r] = side_limit(xt[r:], c)
    for r in range(padded):
        gap[r] = np.float64(m[r]) - np.float64(xt[max(y[r], 0) * SIDE + r])
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
    finish_sides(room, padded, c, smoothing, w_sum)
    if grad.size == 0:
        return
    factor, g_y, scales = side(room, FACTOR, padded), side(room, G_Y, padded), side(room, SCALE, padded)
    for k in range(c):
        column = xt[k * SIDE : k * SIDE + padded]
        if v != 0.0:
            side_smooth_scale(column, factor, scales, v * weight_of(class_weight, k))
        else:
            side_scale(column, factor)
    out = results(grad, base, base + n * c, flat)
    for r in range(n):
        if y[r] >= 0:
            xt[y[r] * SIDE + r] = g_y[r]
        row = out[r * c : (r + 1) * c]
        for k in range(c):
            row[k] = xt[k * SIDE + r]
    store_converted(out, grad, base)


@kernel
def narrow_blocks(
    x, classes, target, class_weight, ignore_index, smoothing, weight, mask, scale, losses, grad, in_place,
    partials, first, last, work, flags, lanes,
):  # fmt: skip
    bad = False
    n = target.size
    rows = max(1, BLOCK // classes)
    w_sum = sum_of_weights(class_weight, classes)
    lanes, room = lanes[:LANES], lanes[LANES:]
    for block in range(first, last):
        clear(lanes)
        stop = min((block + 1) * rows, n)
        for start in range(block * rows, stop, SIDE):
            count = min(stop - start, SIDE)
            padded = (count + 15) // 16 * 16
            bad |= open_sides(
                room, target, start, count, padded, classes, class_weight, ignore_index, smoothing, weight, mask, scale
            )
            narrow_rows(x, classes, start, count, padded, class_weight, smoothing, w_sum, grad, work, room)
            row_losses = side(room, LOSS, count)
            drop_masked(row_losses, indices(room, Y, count))
            add_lanes(lanes, row_losses)
            if losses.size > 0:
                store(row_losses, losses, start)
        partials[block] = total(lanes)
    return bad
