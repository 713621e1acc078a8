"""Cross-entropy from logits; ``_cython/rows.pxi`` says how, this computes the same operation by operation.

Many classes, one row at a time; few classes are in ``narrow.py``.
"""

import numpy as np
from numba.core import types
from numba.extending import overload

from fastloss._blocks import BLOCK, CHUNK, LANES
from fastloss._numba._jit import by_type, inline, kernel
from fastloss._numba.blocks import (
    add_lanes,
    clear,
    copy,
    put,
    results,
    store_converted,
    total,
    value_at,
    view,
)
from fastloss._numba.primitives_generated import (
    exp_diff_f32,
    exp_diff_f64,
    exp_near_f32,
    exp_near_f64,
    exp_scaled_f32,
    exp_top_f64,
    halvings_f32,
    log1p_f64,
)

ROOM = 2 * CHUNK + LANES  # elements of work that the kernels here need
INFINITY = np.inf
NAN = np.nan
NEAR = 8192.0  # rows whose maximum is below this in magnitude take a shorter way to exp(x - m)
LOW = 256.0  # and below this one that is shorter still
CONFIDENT = 0.0009765625  # 2^-10: below this, s is summed without the maximum's 1

exp_diff = by_type(exp_diff_f32, exp_diff_f64)
exp_near = by_type(exp_near_f32, exp_near_f64)


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
    quad = 4 * LANES
    if x.size < quad:
        for j in range(x.size):
            v, m = x[j], lanes[j % LANES]
            lanes[j % LANES] = v if v > m else m
        return
    for at in range(0, x.size, quad):
        # The last four rows of lanes may overlap the ones before: a maximum does not mind.
        at = min(at, x.size - quad)
        a, b = x[at : at + LANES], x[at + LANES : at + 2 * LANES]
        c, d = x[at + 2 * LANES : at + 3 * LANES], x[at + 3 * LANES : at + quad]
        for j in range(a.size):
            m = lanes[j]
            m = a[j] if a[j] > m else m
            m = b[j] if b[j] > m else m
            m = c[j] if c[j] > m else m
            lanes[j] = d[j] if d[j] > m else m


@inline
def greatest(lanes):
    half = LANES // 2
    while half > 0:
        for j in range(half):
            lanes[j] = lanes[j + half] if lanes[j + half] > lanes[j] else lanes[j]
        half = half // 2
    return lanes[0]


@inline
def exp_below_f32(x, m):
    return exp_scaled_f32(x, m) if abs(m) < LOW else exp_diff_f32(x, m)


@inline
def exp_below_f64(x, m):
    return exp_near_f64(x, m) if abs(m) < NEAR else exp_diff_f64(x, m)


@inline
def exp_chunk_f32(x, m, e):
    if abs(m) < LOW:
        for i in range(x.size):
            e[i] = exp_scaled_f32(x[i], m)
    else:
        for i in range(x.size):
            e[i] = exp_diff_f32(x[i], m)


@inline
def exp_chunk_f64(x, m, e):
    if abs(m) < NEAR:
        for i in range(x.size):
            e[i] = exp_near_f64(x[i], m)
    else:
        for i in range(x.size):
            e[i] = exp_diff_f64(x[i], m)


@inline
def relative_f32(s, m):
    """s relative to the maximum's e; where that was rounded to float32, the loss wants it in double."""
    return s / exp_top_f64(np.float64(m), np.float64(halvings_f32(m))) if abs(m) < LOW else s


exp_below = by_type(exp_below_f32, exp_below_f64)
exp_chunk = by_type(exp_chunk_f32, exp_chunk_f64)


def relative(s, m):
    """s relative to the maximum's e."""


@overload(relative)
def _relative(s, m):
    if m == types.float32:
        return lambda s, m: relative_f32(s, m)
    return lambda s, m: s


@inline
def add_rest(lanes, e, one):
    """Add all e but those that equal the maximum's; return how many those are."""
    zero = e.dtype.type(0.0)
    for start in range(0, e.size, LANES):
        part = e[start : start + LANES]
        for j in range(part.size):
            v = part[j]
            lanes[j] = lanes[j] + np.float64(zero if v == one else v)
    count = 0
    for i in range(e.size):
        count += e[i] == one
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
    m = greatest(maxima)
    if m == INFINITY:
        return infinite_row(x, c, i, y, u, v, class_weight, w_sum, scale, grad)
    x_y = value_at(x, base + y, work)
    one = exp_below(m, m)
    clear(sums)
    clear(smooth)
    single = work.itemsize == 4
    count = 0
    for start in range(0, c, CHUNK):
        stop = min(start + CHUNK, c)
        xs = view(x, base + start, base + stop, x_room)
        if in_place:
            xs = copy(xs, x_room)
        # The gradient's own memory holds e for the last pass, unless it is narrower than e.
        e = results(grad, base + start, base + stop, e_room)
        exp_chunk(xs, m, e)
        if single:
            add_lanes(sums, e)
        else:
            count += add_rest(sums, e, one)
        if v != 0.0:
            add_smoothing(smooth, xs, m, class_weight[start:stop])
    if single:
        s = total(sums) - np.float64(one)
        if not s >= CONFIDENT:
            # Leave the maximum out before it swallows the digits of the rest. (Ties would have made s at least 1.)
            clear(sums)
            for start in range(0, c, CHUNK):
                e = refill(x, grad, base + start, base + min(start + CHUNK, c), m, x_room, e_room)
                count += add_rest(sums, e, one)
            s = total(sums) + np.float64(count - 1) * np.float64(one)
    else:
        s = total(sums) + np.float64(count - 1) * np.float64(one)
    sums_ = np.float64(one) + s
    log = log1p_f64(relative(s, m))
    gap = np.float64(m) - np.float64(x_y)
    if u == 0.0 and gap == INFINITY:
        gap = 0.0  # a class of weight 0 costs nothing, whatever its logit
    loss = u * (gap + log) + (v * (total(smooth) + w_sum * log) if v != 0.0 else 0.0)
    if grad.size == 0:
        return loss
    e_y = exp_below(x_y, m)
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
    """The e of a chunk: where the second pass left it, or once more if no gradient holds it."""


@overload(refill)
def _refill(x, grad, start, stop, m, x_room, e_room):
    if x.dtype == e_room.dtype:

        def reuse(x, grad, start, stop, m, x_room, e_room):
            e = results(grad, start, stop, e_room)
            if grad.size == 0:
                exp_chunk(x[start:stop], m, e)
            return e

        return reuse

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
