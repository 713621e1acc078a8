"""Row-wise losses without a softmax; ``_cython/margins.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import BLOCK, CHUNK, LANES, NARROW, SIDE
from fastloss._numba._jit import bare, by_type, inline, kernel
from fastloss._numba.blocks import clear, put, results, store_converted, total, value_at, view
from fastloss._numba.rows import (
    FACTOR,
    GAP,
    INFINITY,
    LOSS,
    SCALE,
    TOP,
    W_Y,
    WEIGHT,
    S,
    Y,
    indices,
    open_sides,
    side,
    take_losses,
)
from fastloss._numba.tiles import transpose

KINDS = {"multi_margin_loss": 0, "crammer_singer_loss": 1, "nll_loss": 2}
ROOM = 2 * NARROW * SIDE + 4 * SIDE  # elements of work that the kernel needs; wide rows need less


@inline
def excess_f32(x, t, margin):
    return (np.float64(x) - np.float64(t)) + margin


@inline
def excess_f64(x, t, margin):
    s = x - t
    back = s - x
    lost = (x - (s - back)) - (t + back)
    return (s + margin) + (lost if lost == lost else 0.0)


excess = by_type(excess_f32, excess_f64)


@inline
def violation(x, t, margin):
    d = excess(x, t, margin)
    return 0.0 if (d <= 0.0) | (x == -INFINITY) else d


@inline
def still(v, w, zero):
    """0 in place of an infinity in a row of weight 0."""
    return zero if (w == 0.0) & ((v == INFINITY) | (v == -INFINITY)) else v


@inline
def violations_beside(costs, slopes, x, t, factor, margin, squared):
    """Costs and slopes of one rival of rows side by side; its gradients take the place of its scores."""
    for r in range(x.size):
        v = violation(x[r], t[r], margin)
        slope = v + v if squared else (1.0 if v > 0.0 else v)
        costs[r] = costs[r] + (v * v if squared else v)
        slopes[r] = slopes[r] + slope
        x[r] = slope * factor[r]


@inline
def violations_along(costs, slopes, x, t, g, factor, margin, squared):
    """The same of rivals of one row."""
    for at in range(0, x.size, LANES):
        part, out = x[at : at + LANES], g[at : at + LANES]
        for j in range(part.size):
            v = violation(part[j], t, margin)
            slope = v + v if squared else (1.0 if v > 0.0 else v)
            costs[j] = costs[j] + (v * v if squared else v)
            slopes[j] = slopes[j] + slope
            out[j] = slope * factor


@inline
def beats(v, m):
    """Whether v is the new best: NaN beats numbers and is never beaten."""
    return (m == m) & (not v <= m)


@inline
def rivals(x, base, start, stop, y, w, in_place, room):
    """Classes start to stop of a row, the target at -inf; in place if they can be read there."""
    part, zero = view(x, base + start, base + stop, room), room.dtype.type(0.0)
    here = start <= y < stop
    if not here and w != 0.0 and not in_place:
        return part
    copied = room[: stop - start]
    for k in range(copied.size):
        copied[k] = still(part[k], w, zero)
    if here:
        copied[y - start] = -INFINITY
    return copied


@inline
def multi_margin_wide(x, c, first, n, squared, margin, grad, in_place, t, work, room, lanes):
    x_room, g_room = work[:CHUNK], work[CHUNK : 2 * CHUNK]
    costs, slopes = lanes[:LANES], lanes[LANES : 2 * LANES]
    y, w_y, s, factor = indices(room, Y, n), side(room, W_Y, n), side(room, S, n), side(room, FACTOR, n)
    for r in range(n):
        base = (first + r) * c
        if y[r] < 0:
            if grad.size > 0:
                for k in range(base, base + c):
                    put(grad, k, 0.0)
            continue
        clear(costs)
        clear(slopes)
        for start in range(0, c, CHUNK):
            stop = min(start + CHUNK, c)
            part = rivals(x, base, start, stop, y[r], w_y[r], in_place, x_room)
            g = results(grad, base + start, base + stop, g_room)
            violations_along(costs, slopes, part, t[r], g, factor[r], margin, squared)
            if grad.size > 0:
                store_converted(g, grad, base + start)
        s[r] = total(costs)
        if grad.size > 0:
            put(grad, base + y[r], t[r] if t[r] != t[r] else 0.0 - total(slopes) * factor[r])


@inline
def multi_margin_narrow(c, padded, squared, margin, xt, t, room):
    """``xt`` is class by class; the gradient takes its place. Three sums that take turns round less than one."""
    y, factor = indices(room, Y, padded), side(room, FACTOR, padded)
    costs, slopes = room[S * SIDE : (S + 3) * SIDE], room[GAP * SIDE : (GAP + 3) * SIDE]
    for r in range(costs.size):
        costs[r] = 0.0
        slopes[r] = 0.0
    for k in range(c):
        column = xt[k * padded : (k + 1) * padded]
        violations_beside(side(costs, k % 3, padded), side(slopes, k % 3, padded), column, t, factor, margin, squared)
    for r in range(padded):
        costs[r] = (costs[r] + costs[SIDE + r]) + costs[2 * SIDE + r]
        slope = (slopes[r] + slopes[SIDE + r]) + slopes[2 * SIDE + r]
        xt[max(y[r], 0) * padded + r] = t[r] if t[r] != t[r] else 0.0 - slope * factor[r]


@inline
def best_wide(x, base, c, y, w, in_place, work):
    """The best rival's score and place, -1 if none is above -inf."""
    x_room, lanes = work[:CHUNK], work[CHUNK : CHUNK + LANES]
    lowest = work.dtype.type(-INFINITY)
    best, top = lowest, -1
    for start in range(0, c, CHUNK):
        stop = min(start + CHUNK, c)
        part = rivals(x, base, start, stop, y, w, in_place, x_room)
        for j in range(LANES):
            lanes[j] = lowest
        for at in range(0, part.size, LANES):
            line = part[at : at + LANES]
            for j in range(line.size):
                v, m = line[j], lanes[j]
                lanes[j] = v if beats(v, m) else m
        m = best
        for j in range(LANES):
            m = lanes[j] if beats(lanes[j], m) else m
        if not beats(m, best):
            continue
        best = m
        found = part.size
        for j in range(LANES):
            if lanes[j] == m or lanes[j] != lanes[j]:
                k = j
                while k < found and not (part[k] == m or part[k] != part[k]):
                    k += LANES
                found = min(found, k)
        top = start + found
    return best, top


@inline
def best_narrow(xt, best, place, c):
    n = best.size
    for r in range(n):
        best[r] = -INFINITY
        place[r] = -1.0
    for k in range(c):
        column, number = xt[k * n : (k + 1) * n], best.dtype.type(k)
        for r in range(n):
            v, m = column[r], best[r]
            better = beats(v, m)
            place[r] = number if better else place[r]
            best[r] = v if better else m


@inline
def clear_rows(grad, start, stop):
    part = grad[start:stop]
    for k in range(part.size):
        put(part, k, 0.0)


@inline
def rivals_beside(x, c, first, n, padded, xt, flat, room):
    """Few classes of rows side by side, the targets at -inf, what is masked at 0."""
    y, w_y, zero = indices(room, Y, padded), side(room, W_Y, padded), xt.dtype.type(0.0)
    transpose(view(x, first * c, (first + n) * c, flat), c, xt, padded, n, c)
    for r in range(padded):
        if y[r] < 0:
            for k in range(c):
                xt[k * padded + r] = zero
        elif w_y[r] == 0.0:
            for k in range(c):
                xt[k * padded + r] = still(xt[k * padded + r], 0.0, zero)
        xt[max(y[r], 0) * padded + r] = -INFINITY


@inline
def margin_rows(x, c, first, n, padded, kind, params, grad, in_place, work, room, lanes):
    """Rows first to first + n. The gradient may be written over the scores."""
    half = NARROW * SIDE
    real, flat, xt = work[2 * half :], work[:half][: n * c], work[half : 2 * half][: padded * c]
    t, best, place = real[:padded], real[SIDE : SIDE + padded], real[2 * SIDE : 2 * SIDE + padded]
    y, top, w_y = indices(room, Y, padded), indices(room, TOP, padded), side(room, W_Y, padded)
    s, scale, factor = side(room, S, padded), side(room, SCALE, padded), side(room, FACTOR, padded)
    losses, weight = side(room, LOSS, padded), side(room, WEIGHT, padded)
    multi, few, zero = kind == 0, (c <= NARROW) & (kind != 2), work.dtype.type(0.0)
    shares = np.float64(c) if multi else 1.0
    for r in range(padded):
        t[r] = still(value_at(x, (first + r) * c + y[r], work), w_y[r], zero) if y[r] >= 0 else zero
    for r in range(padded):
        factor[r] = scale[r] * w_y[r] / shares
    if few:
        rivals_beside(x, c, first, n, padded, xt, flat, room)
    if multi:
        if few:
            multi_margin_narrow(c, padded, params[0] == 2.0, params[1], xt, t, room)
        else:
            multi_margin_wide(x, c, first, n, params[0] == 2.0, params[1], grad, in_place, t, work, room, lanes)
    elif kind == 1:
        if few:
            best_narrow(xt, best, place, c)
            for r in range(padded):
                top[r] = np.int64(place[r])
        else:
            for r in range(padded):
                best[r], top[r] = -INFINITY, -1
                if y[r] >= 0:
                    best[r], top[r] = best_wide(x, (first + r) * c, c, y[r], w_y[r], in_place, work)
        for r in range(padded):
            s[r] = violation(best[r], t[r], params[0])
    else:
        for r in range(padded):
            s[r] = 0.0 - np.float64(t[r])
            top[r] = -1
    for r in range(padded):
        cost = s[r] * w_y[r] / shares * weight[r]
        losses[r] = np.float64(t[r]) if t[r] != t[r] else cost
    if grad.size == 0 or (multi and not few):
        return
    if multi:
        out = results(grad, first * c, (first + n) * c, flat)
        transpose(xt, padded, out, c, c, n)
        store_converted(out, grad, first * c)
        return
    for r in range(padded):
        slope = 1.0 if (kind == 2) | (s[r] > 0.0) else s[r]
        best[r] = slope * factor[r]
        t[r] = t[r] if t[r] != t[r] else 0.0 - slope * factor[r]
    clear_rows(grad, first * c, (first + n) * c)
    for r in range(n):
        base = (first + r) * c
        if y[r] >= 0:
            if top[r] >= 0:
                put(grad, base + top[r], best[r])
            put(grad, base + y[r], t[r])


@kernel
def margin_blocks(
    x, classes, target, class_weight, ignore_index, kind, params, weight, mask, scale, losses, grad, in_place,
    partials, first, last, work, flags, lanes,
):  # fmt: skip
    x, target, class_weight, weight, mask = bare(x), bare(target), bare(class_weight), bare(weight), bare(mask)
    losses, grad, work, lanes = bare(losses), bare(grad), bare(work), bare(lanes)
    bad = False
    n = target.size
    rows = max(1, BLOCK // classes)
    block_lanes, lanes, room = lanes[:LANES], lanes[LANES : 3 * LANES], lanes[3 * LANES :]
    for block in range(first, last):
        clear(block_lanes)
        stop = min((block + 1) * rows, n)
        for start in range(block * rows, stop, SIDE):
            count = min(stop - start, SIDE)
            padded = (count + 15) // 16 * 16
            bad |= open_sides(
                room, target, start, count, padded, classes, class_weight, ignore_index, 0.0, weight, mask, scale
            )
            margin_rows(x, classes, start, count, padded, kind, params, grad, in_place, work, room, lanes)
            take_losses(room, start, count, losses, block_lanes)
        partials[block] = total(block_lanes)
    return bad
