"""Cross-entropy of few classes: rows side by side; ``_cython/narrow.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import BLOCK, LANES, NARROW, SIDE
from fastloss._numba._jit import apart, bare, by_type, f32, inline, kernel, ptr
from fastloss._numba.blocks import clear, results, store_converted, total, view
from fastloss._numba.primitives_generated import exp_diff_f32, exp_diff_f64, exp_near_f32, exp_near_f64
from fastloss._numba.rows import (
    FACTOR,
    G_Y,
    GAP,
    INFINITY,
    LOST,
    MAXIMUM,
    NEAR,
    OWN,
    SCALE,
    SMOOTH,
    TINY,
    TOP,
    S,
    Y,
    absorb,
    finish_sides,
    indices,
    limit_maximum,
    open_sides,
    side,
    sum_of_weights,
    take_losses,
    to_limit,
    weight_of,
)  # fmt: skip
from fastloss._numba.soft_heads import finish_heads, open_heads
from fastloss._numba.tiles import transpose

ROOM = 3 * NARROW * SIDE + 3 * SIDE  # elements of work that the kernel needs

exp_diff = by_type(exp_diff_f32, exp_diff_f64)
exp_near = by_type(exp_near_f32, exp_near_f64)


@inline
def side_maxima(x, m, beside, c):
    """Four classes at a time; the results are also written beside each class's values."""
    n = m.size
    for k in range(0, c, 4):
        k1, k2, k3 = min(k + 1, c - 1), min(k + 2, c - 1), min(k + 3, c - 1)
        x0, x1 = x[k * n : (k + 1) * n], x[k1 * n : (k1 + 1) * n]
        x2, x3 = x[k2 * n : (k2 + 1) * n], x[k3 * n : (k3 + 1) * n]
        for r in range(n):
            v = m[r]
            v = x0[r] if x0[r] > v else v
            v = x1[r] if x1[r] > v else v
            v = x2[r] if x2[r] > v else v
            m[r] = x3[r] if x3[r] > v else v
    for k in range(c):
        part = beside[k * n : (k + 1) * n]
        for r in range(n):
            part[r] = m[r]


@inline
def side_exp(x, beside, n, near):
    """All classes in one long loop."""
    if near:
        for i in range(n):
            x[i] = exp_near(x[i], beside[i])
    else:
        for i in range(n):
            x[i] = exp_near(x[i], beside[i]) if abs(beside[i]) < NEAR else exp_diff(x[i], beside[i])


exp_apart = apart(side_exp)


@inline
def side_sums_f32(e, s, ones, lost, c):
    """Sums of e without one maximum per row, whose e is 1: values below 1 and the number of maxima apart."""
    n, whole = s.size, c - c % 4
    zero, one = f32(0.0), f32(1.0)
    for k in range(0, whole, 4):
        e0, e1 = e[k * n : k * n + n], e[(k + 1) * n : (k + 1) * n + n]
        e2, e3 = e[(k + 2) * n : (k + 2) * n + n], e[(k + 3) * n : (k + 3) * n + n]
        for r in range(n):
            a, b = zero if e0[r] == one else e0[r], zero if e1[r] == one else e1[r]
            p, q = zero if e2[r] == one else e2[r], zero if e3[r] == one else e3[r]
            s[r] = s[r] + np.float64((a + b) + (p + q))
            a, b = one if e0[r] == one else zero, one if e1[r] == one else zero
            p, q = one if e2[r] == one else zero, one if e3[r] == one else zero
            ones[r] = ones[r] + ((a + b) + (p + q))
    for k in range(whole, c):
        part = e[k * n : k * n + n]
        for r in range(n):
            s[r] = s[r] + np.float64(zero if part[r] == one else part[r])
            ones[r] = ones[r] + (one if part[r] == one else zero)


@inline
def side_sums_f64(e, s, ones, lost, c):
    """With what each addition rounds away (two-sum), which would use up the loss's ULPs."""
    n = s.size
    for k in range(c):
        values = e[k * n : k * n + n]
        for r in range(s.size):
            term = 0.0 if values[r] == 1.0 else values[r]
            ones[r] = ones[r] + (1.0 if values[r] == 1.0 else 0.0)
            old = s[r]
            new = old + term
            part = new - old
            lost[r] = lost[r] + ((old - (new - part)) + (term - part))
            s[r] = new


side_sums = by_type(side_sums_f32, side_sums_f64)


@inline
def side_smoothing(sums, x, m, w):
    for r in range(x.size):
        sums[r] = sums[r] + (np.float64(m[r]) - np.float64(x[r])) * w


@inline
def side_scale(e, factor):
    for r in range(e.size):
        e[r] = e[r] * factor[r]


@inline
def side_smooth_scale(e, factor, scale, shift):
    for r in range(e.size):
        e[r] = np.float64(e[r]) * factor[r] - scale[r] * shift


@inline
def narrow_rows(x, c, first, n, padded, class_weight, smoothing, head, w_sum, grad, work, room):
    """Rows first to first + n."""
    x, class_weight, grad, work = bare(x), bare(class_weight), bare(grad), bare(work)
    base = first * c
    xt, beside = work[: c * padded], work[NARROW * SIDE : NARROW * SIDE + c * padded]
    flat, real = work[2 * NARROW * SIDE : 2 * NARROW * SIDE + n * c], work[3 * NARROW * SIDE :]
    m, ones, factor = real[:padded], real[SIDE : SIDE + padded], real[2 * SIDE : 2 * SIDE + padded]
    y, at = indices(room, Y, padded), indices(room, TOP, padded)
    s, lost, smooth = side(room, S, padded), side(room, LOST, padded), side(room, SMOOTH, padded)
    gap, own = side(room, GAP, padded), side(room, OWN, padded)
    source = view(x, base, base + n * c, flat)
    zero, v = work.dtype.type(0.0), smoothing / np.float64(c)
    masked = False
    for r in range(padded):
        m[r] = -INFINITY
        ones[r] = -1.0
        lost[r] = 0.0
        masked |= y[r] < 0
    transpose(source, c, xt, padded, n, c)
    if masked:  # nothing of a masked row may be looked at, and rows beyond the last count as masked
        for r in range(padded):
            if y[r] < 0:
                for k in range(c):
                    xt[k * padded + r] = zero
    side_maxima(xt, m, beside, c)
    near, maxima = True, side(room, MAXIMUM, padded)
    for r in range(padded):
        near &= abs(m[r]) < NEAR
        maxima[r] = m[r]
    if not near:
        for r in range(n):
            if m[r] == INFINITY:
                m[r] = limit_maximum(x, base + r * c, c, work)
                maxima[r] += m[r]
                to_limit(xt[r:], padded)
                for k in range(c):
                    beside[k * padded + r] = m[r]
    for r in range(padded):
        at[r] = max(y[r], 0) * padded + r
        gap[r] = np.float64(m[r]) - np.float64(xt[at[r]])
    if v != 0.0:
        for k in range(c):
            w = weight_of(class_weight, k)
            if w != 0.0:
                side_smoothing(smooth, xt[k * padded : (k + 1) * padded], m, w)
    exp_apart(ptr(xt, 0), ptr(beside, 0), c * padded, near)
    side_sums(xt, s, ones, lost, c)
    for r in range(padded):
        s[r] = s[r] + (lost[r] + np.float64(ones[r]))
        own[r] = xt[at[r]]
    if head.size > 0:
        finish_heads(ptr(room, 0), padded, smoothing, c, w_sum, ptr(head, 0), head.size)
    else:
        finish_sides(room, padded, c, smoothing, w_sum)
    if grad.size == 0:
        return
    factors, g_y, scales = side(room, FACTOR, padded), side(room, G_Y, padded), side(room, SCALE, padded)
    if not near:
        for r in range(n):
            if m[r] == zero and abs(factors[r]) == INFINITY:
                absorb(ptr(xt, r), factors[r], c, padded)
                factors[r] = 1.0
    large = False
    for r in range(padded):
        factor[r] = factors[r]
        large |= abs(factors[r]) > 1.0 / TINY
    for k in range(c):
        column = xt[k * padded : (k + 1) * padded]
        if v != 0.0 or large:
            side_smooth_scale(column, factors, scales, v * weight_of(class_weight, k))
        else:
            side_scale(column, factor)
    for r in range(n):
        xt[at[r]] = g_y[r]
    if masked:
        for r in range(n):
            if y[r] < 0:
                for k in range(c):
                    xt[k * padded + r] = zero
    out = results(grad, base, base + n * c, flat)
    transpose(xt, padded, out, c, c, n)
    store_converted(out, grad, base)


@kernel
def narrow_blocks(
    x, classes, target, class_weight, ignore_index, smoothing, head, factor, weight, mask, scale, losses, grad,
    in_place, partials, first, last, work, flags, lanes,
):  # fmt: skip
    x, target, class_weight, weight, mask = bare(x), bare(target), bare(class_weight), bare(weight), bare(mask)
    losses, grad, work, lanes = bare(losses), bare(grad), bare(work), bare(lanes)
    head, factor = bare(head), bare(factor)
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
            if factor.size > 0:
                open_heads(room, factor, start, count)
            narrow_rows(x, classes, start, count, padded, class_weight, smoothing, head, w_sum, grad, work, room)
            take_losses(room, start, count, losses, lanes)
        partials[block] = total(lanes)
    return bad
