"""Cross-entropy from logits; ``_cython/rows.pxi`` says how, this computes the same operation by operation."""

import numpy as np
from numba.extending import overload

from fastloss._blocks import BLOCK, CHUNK, LANES, NARROW, SIDE
from fastloss._numba._jit import by_type, inline, kernel
from fastloss._numba.blocks import (
    add_lanes,
    clear,
    copy,
    put,
    results,
    store,
    store_converted,
    total,
    value_at,
    view,
)
from fastloss._numba.primitives_generated import exp_diff_f32, exp_diff_f64, log1p_f64

ROOM = max(2 * NARROW * SIDE + 6 * SIDE, 2 * CHUNK + LANES)  # elements of work that the kernels here need
INFINITY = np.inf
NAN = np.nan

exp_diff = by_type(exp_diff_f32, exp_diff_f64)


@inline
def weight_of(weights, k):
    return weights[k] if weights.size > 0 else 1.0


@inline
def entry_weight(weight, n, i):
    return np.float64(weight[i // (n // weight.size)]) if weight.size > 0 else 1.0


@inline
def target_of(target, i, classes, ignore_index, mask, n):
    """The class of a row, -1 if it counts as masked, -2 if it is bad."""
    if mask.size > 0 and not mask[i // (n // mask.size)]:
        return -1
    y = np.int64(target[i])
    if y == ignore_index:
        return -1
    return y if 0 <= y < classes else -2


@inline
def target_grad(u, v, w_y, w_sum, scale, others, own, sums):
    """Gradient at the target, from S - e_y, e_y and S."""
    g = -(u * others) / sums
    if v != 0.0:
        g += v * (w_sum * own / sums - w_y)
    return g * scale


@inline
def infinite_row(x, c, i, y, u, v, class_weight, w_sum, scale, grad):
    """A row whose maximum is +inf: its limit where that class is alone, else NaN."""
    base, count, top, nan = i * c, 0, 0, False
    for k in range(c):
        z = value_at(x, base + k, class_weight)
        nan |= z != z
        if z == INFINITY:
            count += 1
            top = k
    nan |= count != 1
    loss = 0.0 if y == top or u == 0.0 else INFINITY
    for k in range(c):
        w = weight_of(class_weight, k)
        if k != top and v * w != 0.0:
            loss = INFINITY
        p = 1.0 if k == top else 0.0
        g = u * (p - (1.0 if k == y else 0.0)) + v * (w_sum * p - w)
        if grad.size > 0:
            put(grad, base + k, NAN if nan else g * scale)
    return NAN if nan else loss


@inline
def sum_of_weights(class_weight, classes):
    if class_weight.size == 0:
        return np.float64(classes)
    w_sum = 0.0
    for k in range(classes):
        w_sum += class_weight[k]
    return w_sum


# --- many classes


@inline
def add_maxima(lanes, x):
    for i in range(x.size // LANES):
        part = x[i * LANES : (i + 1) * LANES]
        for j in range(LANES):
            v, m = part[j], lanes[j]
            lanes[j] = v if v > m else m
    rest = x[x.size - x.size % LANES :]
    for j in range(rest.size):
        v, m = rest[j], lanes[j]
        lanes[j] = v if v > m else m


@inline
def exp_chunk(x, m, e):
    for i in range(x.size):
        e[i] = exp_diff(x[i], m)


@inline
def add_below(lanes, x, e, m):
    """Add the e of all that is not a maximum; return the number of maxima."""
    zero = e.dtype.type(0.0)
    for i in range(x.size // LANES):
        xs, es = x[i * LANES : (i + 1) * LANES], e[i * LANES : (i + 1) * LANES]
        for j in range(LANES):
            v = es[j]
            lanes[j] = lanes[j] + np.float64(zero if xs[j] == m else v)
    at = x.size - x.size % LANES
    xs, es = x[at:], e[at : x.size]
    for j in range(xs.size):
        v = es[j]
        lanes[j] = lanes[j] + np.float64(zero if xs[j] == m else v)
    count = 0
    for i in range(x.size):
        count += x[i] == m
    return count


@inline
def add_smoothing(lanes, x, m, w):
    """Add w_k (m - x_k), classes of weight 0 left out."""
    for i in range(x.size):
        d = np.float64(m) - np.float64(x[i])
        if w.size > 0:
            d = d * w[i] if w[i] != 0.0 else 0.0
        lanes[i % LANES] += d


@inline
def scale_chunk(e, factor):
    for i in range(e.size):
        e[i] = e[i] * factor


@inline
def scale_smooth_chunk(e, factor, shift, w):
    if w.size > 0:
        for i in range(e.size):
            e[i] = np.float64(e[i]) * factor - shift * w[i]
    else:
        for i in range(e.size):
            e[i] = np.float64(e[i]) * factor - shift


@inline
def wide_row(x, c, i, y, u, v, w_y, w_sum, class_weight, scale, grad, in_place, work, lanes):
    """One row of any length. Returns its loss; may write its gradient over its logits."""
    base = i * c
    maxima, x_room, e_room = work[:LANES], work[LANES : LANES + CHUNK], work[LANES + CHUNK : LANES + 2 * CHUNK]
    sums, smooth = lanes[:LANES], lanes[LANES : 2 * LANES]
    m = work.dtype.type(-INFINITY)
    for j in range(LANES):
        maxima[j] = m
    for start in range(0, c, CHUNK):
        add_maxima(maxima, view(x, base + start, base + min(start + CHUNK, c), x_room))
    for j in range(LANES):
        m = maxima[j] if maxima[j] > m else m
    if m == INFINITY:
        return infinite_row(x, c, i, y, u, v, class_weight, w_sum, scale, grad)
    x_y = value_at(x, base + y, work)
    clear(sums)
    clear(smooth)
    count = 0
    for start in range(0, c, CHUNK):
        stop = min(start + CHUNK, c)
        xs = view(x, base + start, base + stop, x_room)
        if in_place:
            xs = copy(xs, x_room)
        # The gradient's own memory holds e for the last pass, unless it is narrower than e.
        e = results(grad, base + start, base + stop, e_room)
        exp_chunk(xs, m, e)
        count += add_below(sums, xs, e, m)
        if v != 0.0:
            add_smoothing(smooth, xs, m, class_weight[start:stop])
    # NaN or only -inf: no maximum was found.
    s = total(sums) + np.float64(count - 1) if count > 0 else NAN
    sums_ = 1.0 + s
    log = log1p_f64(s)
    loss = u * ((np.float64(m) - np.float64(x_y)) + log) + (v * (total(smooth) + w_sum * log) if v != 0.0 else 0.0)
    if grad.size == 0:
        return loss
    e_y = exp_diff(x_y, m)
    others = s if x_y == m else sums_ - np.float64(e_y)
    g_y = target_grad(u, v, w_y, w_sum, scale, others, np.float64(e_y), sums_)
    factor = (u + v * w_sum) / sums_ * scale
    for start in range(0, c, CHUNK):
        stop = min(start + CHUNK, c)
        e = refill(x, grad, base + start, base + stop, m, x_room, e_room)
        if v == 0.0:
            scale_chunk(e, work.dtype.type(factor))
        else:
            scale_smooth_chunk(e, factor, v * scale, class_weight[start:stop])
        if start <= y < stop:
            e[y - start] = g_y
        store_converted(e, grad, base + start)
    return loss


def refill(x, grad, start, stop, m, x_room, e_room):
    """The e of a chunk: where the second pass left it, or once more if the gradient is too narrow to hold it."""


@overload(refill)
def _refill(x, grad, start, stop, m, x_room, e_room):
    if x.dtype == e_room.dtype:
        return lambda x, grad, start, stop, m, x_room, e_room: results(grad, start, stop, e_room)

    def again(x, grad, start, stop, m, x_room, e_room):
        e = e_room[: stop - start]
        exp_chunk(view(x, start, stop, x_room), m, e)
        return e

    return again


@kernel
def wide_blocks(
    x, classes, target, class_weight, ignore_index, smoothing, weight, mask, scale, losses, grad, in_place,
    partials, first, last, work, flags, lanes,
):  # fmt: skip
    bad = False
    n = target.size
    rows = max(1, BLOCK // classes)
    w_sum = sum_of_weights(class_weight, classes)
    v = smoothing / np.float64(classes)
    block_lanes = lanes[2 * LANES :]
    for block in range(first, last):
        clear(block_lanes)
        for i in range(block * rows, min((block + 1) * rows, n)):
            y = target_of(target, i, classes, ignore_index, mask, n)
            bad |= y == -2
            loss = 0.0
            if y >= 0:
                row_weight = entry_weight(weight, n, i)
                w_y = weight_of(class_weight, y)
                u = (1.0 - smoothing) * w_y
                loss = row_weight * wide_row(
                    x, classes, i, y, u, v, w_y, w_sum, class_weight, scale * row_weight, grad, in_place, work, lanes
                )
            elif grad.size > 0:
                for k in range(i * classes, (i + 1) * classes):
                    put(grad, k, 0.0)
            block_lanes[(i - block * rows) % LANES] += loss
            if losses.size > 0:
                put(losses, i, loss)
        partials[block] = total(block_lanes)
    return bad


# --- few classes


@inline
def side_maxima(x, m, top, k):
    for r in range(x.size):
        v, old, t = x[r], m[r], top[r]
        top[r] = k if v > old else t
        m[r] = v if v > old else old


@inline
def side_exp(x, m, top, k, s):
    zero = x.dtype.type(0.0)
    for r in range(x.size):
        e = exp_diff(x[r], m[r])
        x[r] = e
        s[r] = s[r] + np.float64(zero if top[r] == k else e)


@inline
def side_log1p(s, logs):
    for r in range(s.size):
        logs[r] = log1p_f64(s[r])


@inline
def side_smoothing(sums, x, m, w):
    for r in range(x.size):
        sums[r] = sums[r] + (np.float64(m[r]) - np.float64(x[r])) * w


@inline
def side_scale(e, factor):
    for r in range(e.size):
        e[r] = e[r] * factor[r]


@inline
def side_smooth_scale(e, factor, shift, w):
    for r in range(e.size):
        e[r] = np.float64(e[r]) * factor[r] - shift[r] * w


@inline
def narrow_rows(
    x, c, first, n, target, class_weight, w_sum, ignore_index, smoothing, weight, mask, scale, losses, grad, work, wide
):
    """Rows first to first + n, transposed so that every loop runs over rows. Returns whether a target is bad."""
    base, entries, bad = first * c, target.size, False
    padded = (n + 15) // 16 * 16
    xt, flat = work[: c * SIDE], work[NARROW * SIDE : NARROW * SIDE + n * c]
    real = work[2 * NARROW * SIDE :]
    m, top, x_y = real[:padded], real[SIDE : SIDE + padded], real[2 * SIDE : 3 * SIDE]
    g_y, factor = real[3 * SIDE : 4 * SIDE], real[4 * SIDE : 4 * SIDE + padded]
    s, logs, sums = wide[:padded], wide[SIDE : SIDE + padded], wide[2 * SIDE : 2 * SIDE + padded]
    wide_factor, shift = wide[3 * SIDE : 3 * SIDE + padded], wide[4 * SIDE : 4 * SIDE + padded]
    source = view(x, base, base + n * c, flat)
    zero, v = work.dtype.type(0.0), smoothing / np.float64(c)
    for r in range(padded):
        m[r] = -INFINITY
        top[r] = -1.0
        s[r] = 0.0
        sums[r] = 0.0
        factor[r] = 0.0
        wide_factor[r] = 0.0
        shift[r] = 0.0
    for r in range(padded):
        y = target_of(target, first + r, c, ignore_index, mask, entries) if r < n else -1
        bad |= y == -2
        if y >= 0:
            row = source[r * c : (r + 1) * c]
            for k in range(c):
                xt[k * SIDE + r] = row[k]
            x_y[r] = row[y]
        else:
            for k in range(c):
                xt[k * SIDE + r] = zero
    for k in range(c):
        side_maxima(xt[k * SIDE : k * SIDE + padded], m, top, work.dtype.type(k))
    if smoothing != 0.0:
        for k in range(c):
            w = weight_of(class_weight, k)
            if w != 0.0:
                side_smoothing(sums, xt[k * SIDE : k * SIDE + padded], m, w)
    for k in range(c):
        side_exp(xt[k * SIDE : k * SIDE + padded], m, top, work.dtype.type(k), s)
    side_log1p(s, logs)
    for r in range(n):
        losses[r] = 0.0
        y = target_of(target, first + r, c, ignore_index, mask, entries)
        if y < 0:
            continue
        w_y = weight_of(class_weight, y)
        u = (1.0 - smoothing) * w_y
        row_scale = scale * entry_weight(weight, entries, first + r)
        losses[r] = u * ((np.float64(m[r]) - np.float64(x_y[r])) + logs[r])
        if smoothing != 0.0:
            losses[r] += v * (sums[r] + w_sum * logs[r])
        own = np.float64(xt[y * SIDE + r])
        others = s[r] if top[r] == work.dtype.type(y) else (1.0 + s[r]) - own
        g_y[r] = target_grad(u, v, w_y, w_sum, row_scale, others, own, 1.0 + s[r])
        wide_factor[r] = (u + v * w_sum) / (1.0 + s[r]) * row_scale
        factor[r] = wide_factor[r]
        shift[r] = v * row_scale
    if grad.size > 0:
        for k in range(c):
            column = xt[k * SIDE : k * SIDE + padded]
            if smoothing != 0.0:
                side_smooth_scale(column, wide_factor, shift, weight_of(class_weight, k))
            else:
                side_scale(column, factor)
        out = results(grad, base, base + n * c, flat)
        for r in range(n):
            row = out[r * c : (r + 1) * c]
            for k in range(c):
                row[k] = xt[k * SIDE + r]
            y = target_of(target, first + r, c, ignore_index, mask, entries)
            if y >= 0:
                row[y] = g_y[r]
        store_converted(out, grad, base)
    for r in range(n):
        y = target_of(target, first + r, c, ignore_index, mask, entries)
        row_weight = entry_weight(weight, entries, first + r)
        if y >= 0 and m[r] == INFINITY:
            w_y = weight_of(class_weight, y)
            u = (1.0 - smoothing) * w_y
            losses[r] = infinite_row(x, c, first + r, y, u, v, class_weight, w_sum, scale * row_weight, grad)
        losses[r] *= row_weight
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
    wide = lanes[LANES:]
    row_losses = wide[5 * SIDE :]
    for block in range(first, last):
        clear(lanes)
        stop = min((block + 1) * rows, n)
        for start in range(block * rows, stop, SIDE):
            count = min(stop - start, SIDE)
            bad |= narrow_rows(
                x, classes, start, count, target, class_weight, w_sum, ignore_index, smoothing, weight, mask, scale,
                row_losses, grad, work, wide,
            )  # fmt: skip
            add_lanes(lanes, row_losses[:count])
            if losses.size > 0:
                store(row_losses[:count], losses, start)
        partials[block] = total(lanes)
    return bad


@kernel
def target_weight_blocks(target, classes, class_weight, ignore_index, weight, mask, partials, lanes):
    """Sums of the kept rows' weights: the divisors of means."""
    bad = False
    n = target.size
    for block in range(partials.size):
        clear(lanes)
        start = block * BLOCK
        for i in range(start, min(start + BLOCK, n)):
            y = target_of(target, i, classes, ignore_index, mask, n)
            bad |= y == -2
            if y >= 0:
                lanes[(i - start) % LANES] += weight_of(class_weight, y) * entry_weight(weight, n, i)
        partials[block] = total(lanes)
    return bad
