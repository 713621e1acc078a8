"""Cross-entropy of many classes; ``_cython/wide.pxi`` operation by operation."""

import numpy as np
from numba.extending import overload

from fastloss._blocks import BLOCK, CHUNK, LANES, SIDE
from fastloss._numba._jit import apart, bare, by_type, fetcher, inline, kernel, ptr
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
)  # fmt: skip
from fastloss._numba.lanes import SUMS, TOPS, add_fours, greatest
from fastloss._numba.primitives_generated import (
    exp_diff_f32,
    exp_diff_f64,
    exp_near_f64,
    exp_scaled_f32,
    exp_top_f64,
    halvings_f32,
)  # fmt: skip
from fastloss._numba.rows import (
    FACTOR,
    G_Y,
    GAP,
    INFINITY,
    MAXIMUM,
    NEAR,
    OWN,
    SCALE,
    SMOOTH,
    TOP,
    UNIT,
    S,
    Y,
    absorb,
    finish_sides,
    indices,
    is_short,
    limit_maximum,
    open_sides,
    side,
    sum_of_weights,
    take_losses,
    to_limit,
)  # fmt: skip
from fastloss._numba.soft_heads import finish_heads, open_heads

LOW = 256.0  # float32 rows whose maximum is below this in magnitude have a shorter way still
GUESSED = 768  # rows of so many classes do not look for their maximum first
HIGHER = 40.0  # and by so much the maximum may be above what was taken for it
PIECE = 256  # exponentials between two looks ahead in memory
E_ROOM = 5120  # rows of a block, each rounded up to 16 classes: most for 65 classes, 63 rows of 80
ROOM = E_ROOM + CHUNK + 3 * SIDE  # elements of work that the kernel needs


@inline
def larger(a, b):
    return a if a > b else b


@inline
def raise_maximum(x, n, m):
    """The greatest of n values and where it is, if it is above m; else m and -1."""
    if n < TOPS:
        v = m
        for i in range(n):
            v = larger(x[i], v)
        if not v > m:
            return m, -1
        found = 0
        for i in range(n):
            found = i if x[i] >= v else found
        return v, found
    v, lane = greatest(x, n, m)
    if not v > m:
        return m, -1
    found = n - TOPS + lane
    for i in range(lane, n // TOPS * TOPS, TOPS):
        found = i if x[i] >= v else found
    return v, found


fetch = fetcher(PIECE)


@inline
def exp_below_f32(x, m):
    return exp_scaled_f32(x, m) if abs(m) < LOW else exp_diff_f32(x, m)


@inline
def exp_below_f64(x, m):
    return exp_near_f64(x, m) if abs(m) < NEAR else exp_diff_f64(x, m)


@inline
def exp_chunk_f32(x, m, e, n):
    if abs(m) < LOW:
        for i in range(n):
            e[i] = exp_scaled_f32(x[i], m)
    else:
        for i in range(n):
            e[i] = exp_diff_f32(x[i], m)


@inline
def exp_chunk_f64(x, m, e, n):
    if abs(m) < NEAR:
        for i in range(n):
            e[i] = exp_near_f64(x[i], m)
    else:
        for i in range(n):
            e[i] = exp_diff_f64(x[i], m)


@inline
def unit_f32(m, near):
    """What e computed with a value near the maximum are relative to; close to what the maximum's e is rounded to."""
    return exp_top_f64(np.float64(m), np.float64(halvings_f32(near))) if abs(near) < LOW else 1.0


@inline
def unit_f64(m, near):
    return 1.0


@inline
def sum_exponentials_f32(e, lanes, n):
    """float32 values are added in fours before they are widened, in lanes of the caller's."""
    quads, rest = n // (4 * SUMS), n % SUMS
    skip = np.int32(SUMS - rest)
    add_fours(lanes, e, quads)
    for i in range(4 * quads, n // SUMS):
        v = ptr(e, i * SUMS)
        for j in range(SUMS):
            lanes[j] = lanes[j] + np.float64(v[j])
    if n >= SUMS and rest > 0:
        # What is left, in its last lanes.
        v = ptr(e, n - SUMS)
        for j in range(SUMS):
            lanes[j] = lanes[j] + (np.float64(v[j]) if np.int32(j) >= skip else 0.0)
    elif rest > 0:
        for j in range(rest):
            lanes[j] = lanes[j] + np.float64(e[j])
    for j in range(8):
        lanes[j] = lanes[j] + lanes[j + 8]
    a, b = (lanes[0] + lanes[4]) + (lanes[2] + lanes[6]), (lanes[1] + lanes[5]) + (lanes[3] + lanes[7])
    return a + b


@inline
def sum_exponentials_f64(e, lanes, n):
    clear(lanes)
    add_lanes(lanes, e, n)
    return total(lanes)


exp_below = by_type(exp_below_f32, exp_below_f64)
exp_chunk = by_type(apart(exp_chunk_f32), apart(exp_chunk_f64))
unit_of = by_type(unit_f32, unit_f64)
sum_exponentials = by_type(sum_exponentials_f32, sum_exponentials_f64)


@inline
def add_chunk(sum_, lost, v):
    """A sum and what its roundings lost: of 100 chunks they would be felt in float64."""
    s = sum_ + v
    part = s - sum_
    return s, lost + ((sum_ - (s - part)) + (v - part))


@inline
def fold(lanes, sums):
    """Add a chunk's lanes to a sum of chunks, and clear them: small terms would be lost in a lane with a large one."""
    sums[0], sums[1] = add_chunk(sums[0], sums[1], total(lanes))
    clear(lanes)


@inline
def folded(sums):
    """What a sum that is infinite has lost is not a number."""
    return sums[0] + (sums[1] if sums[1] == sums[1] else 0.0)


@inline
def add_smoothing(lanes, x, m, w, n):
    """Add w_k (m - x_k), classes of weight 0 left out."""
    for i in range(n):
        d = np.float64(m) - np.float64(x[i])
        if w.size > 0:
            d = d * w[i] if w[i] != 0.0 else 0.0
        lanes[i % LANES] += d


@inline
def scale_chunk(e, g, factor, n):
    for i in range(n):
        g[i] = e[i] * factor


@inline
def scale_in_place(e, factor, n):
    for i in range(n):
        e[i] = e[i] * factor


@inline
def scale_smooth_chunk(e, g, factor, shift, w, n):
    if w.size > 0:
        for i in range(n):
            g[i] = np.float64(e[i]) * factor - shift * w[i]
    else:
        for i in range(n):
            g[i] = np.float64(e[i]) * factor - shift


@inline
def scale_smooth_in_place(e, factor, shift, w, n):
    if w.size > 0:
        for i in range(n):
            e[i] = np.float64(e[i]) * factor - shift * w[i]
    else:
        for i in range(n):
            e[i] = np.float64(e[i]) * factor - shift


@inline
def row_maximum(x, base, c, x_room):
    """The maximum and its place; -inf where a row holds nothing but NaN and -inf."""
    x, x_room = bare(x), bare(x_room)
    m, top = x_room.dtype.type(-INFINITY), 0
    for start in range(0, c, CHUNK):
        n = min(c - start, CHUNK)
        part = ptr(view(x, base + start, base + start + n, x_room), 0)
        m, place = raise_maximum(part, n, m)
        if place >= 0:
            top = start + place
    return m, top


@inline
def low_guess(x, base, x_room):
    """The greatest of a row's first values, from which the maximum is seldom far; NaN if e have no short way."""
    m, _ = greatest(ptr(view(x, base, base + TOPS, x_room), 0), TOPS, x_room.dtype.type(-INFINITY))
    return m if abs(m) < LOW else x_room.dtype.type(np.nan)


@inline
def find_maximum(x, base, c, x_room, work):
    """A row's maximum, where it is, and whether it is infinite: then it is that of the row that stands for this one."""
    m, top = row_maximum(x, base, c, x_room)
    if m == INFINITY:
        return limit_maximum(x, base, c, work), top, True
    return m, top, False


maximum_apart, find_again = apart(row_maximum), apart(find_maximum)


def exponentials(grad, room, first, c, in_place):
    """Where e are kept, how far apart rows and classes are, and whether gradients are written over them.

    In the gradient's own memory; where that is narrower, not wanted or the logits', rows of a block side by side,
    and of a longer row the chunk at hand.
    """


@overload(exponentials)
def _exponentials(grad, room, first, c, in_place):
    if grad.dtype != room.dtype:
        return lambda grad, room, first, c, in_place: (
            ptr(room, 0),
            (c + 15) // 16 * 16 if c <= BLOCK else 0,
            1 if c <= BLOCK else 0,
            c > BLOCK,
        )

    def own(grad, room, first, c, in_place):
        if grad.size > 0 and (c > BLOCK or not in_place):
            return ptr(grad, first * c), c, 1, True
        return (ptr(room, 0), (c + 15) // 16 * 16, 1, False) if c <= BLOCK else (ptr(room, 0), 0, 0, True)

    return own


def refill(x, grad, e, place, n, m, infinite, x_room):
    """Compute the e of a chunk once more if nothing has kept them."""


@overload(refill)
def _refill(x, grad, e, place, n, m, infinite, x_room):
    if grad.dtype == e.dtype:
        return lambda x, grad, e, place, n, m, infinite, x_room: None

    def again(x, grad, e, place, n, m, infinite, x_room):
        part = view(x, place, place + n, x_room)
        if infinite:
            to_limit(part, 1)
        exp_chunk(ptr(part, 0), m, e, n)

    return again


@inline
def wide_rows(
    x, c, first, n, padded, class_weight, smoothing, head, w_sum, grad, in_place, work, room, infinite, lanes,
):  # fmt: skip
    """Rows first to first + n in phases."""
    # Once more: what is inlined here can't tell otherwise that there is nothing to count.
    x, class_weight, grad, work, infinite = bare(x), bare(class_weight), bare(grad), bare(work), bare(infinite)
    e_room, x_room, real = work[:E_ROOM], work[E_ROOM : E_ROOM + CHUNK], work[E_ROOM + CHUNK :]
    m, x_y, near = real[:padded], real[SIDE : SIDE + padded], real[2 * SIDE : 2 * SIDE + padded]
    sums, gaps = ptr(lanes, 0), ptr(lanes, LANES)
    y, top, s, unit = (
        indices(room, Y, padded),
        indices(room, TOP, padded),
        side(room, S, padded),
        side(room, UNIT, padded),
    )
    gap, own = side(room, GAP, padded), side(room, OWN, padded)
    smooth, maxima = side(room, SMOOTH, padded), side(room, MAXIMUM, padded)
    zero, v = work.dtype.type(0.0), smoothing / np.float64(c)
    guessing = work.itemsize == 4 and c >= GUESSED and smoothing == 0.0
    for r in range(padded):
        m[r] = zero
        near[r] = zero
        x_y[r] = zero
        infinite[r] = False
        if y[r] >= 0:
            base = (first + r) * c
            x_y[r] = value_at(x, base + y[r], work)
            near[r] = np.nan
            if guessing:
                near[r] = low_guess(x, base, x_room)
                # Where e are written over the logits there is no second try.
                if in_place and c > BLOCK and maximum_apart(x, base, c, x_room)[0] - near[r] > HIGHER:
                    near[r] = np.nan
            if near[r] != near[r] or c <= CHUNK:
                # Of a single chunk it is as quick to look for the maximum first.
                m[r], top[r], infinite[r] = find_maximum(x, base, c, x_room, work)
                near[r] = near[r] if m[r] - near[r] <= HIGHER and not infinite[r] else m[r]
            else:
                m[r], top[r] = -INFINITY, -1
    kept, width, step, over = exponentials(grad, e_room, first, c, in_place)
    for r in range(n):
        if y[r] < 0:
            continue
        guessed = top[r] < 0
        sum_ = lost = held = 0.0
        held_at, start = -1, 0
        if v != 0.0:
            clear(gaps)
        while start < c:
            size = min(c - start, CHUNK)
            place = (first + r) * c + start
            e = ptr(kept, r * width + start * step)
            part = view(x, place, place + size, x_room)
            if infinite[r] or (in_place and c > BLOCK):
                part = copy(part, x_room)
                if infinite[r]:
                    to_limit(part, 1)
            p = ptr(part, 0)
            for k in range(0, size, PIECE):
                fetch(ptr(x, place + n * c + k))
                exp_chunk(ptr(p, k), near[r], ptr(e, k), min(size - k, PIECE))
            if guessed:
                m[r], found = raise_maximum(p, size, m[r])
                if m[r] - near[r] > HIGHER:
                    # Once more, from the maximum.
                    m[r], top[r], infinite[r] = find_again(x, (first + r) * c, c, x_room, work)
                    near[r] = m[r]
                    guessed = False
                    sum_ = lost = 0.0
                    start = 0
                    continue
                if found >= 0:
                    if held_at >= 0:
                        sum_, lost = add_chunk(sum_, lost, held)
                        if step > 0:
                            kept[r * width + held_at] = held
                    top[r] = start + found
                    held_at, held = top[r], np.float64(e[found])
            # One maximum stays out of the sum, whose digits it would swallow.
            if start <= top[r] < start + size:
                e[top[r] - start] = zero
            sum_, lost = add_chunk(sum_, lost, sum_exponentials(e, sums, size))
            if v != 0.0:
                add_smoothing(gaps, p, m[r], class_weight[start : start + size], size)
            start += CHUNK
        s[r] = sum_ + lost
        if v != 0.0:
            smooth[r] = total(gaps)
    for r in range(padded):
        maxima[r] = m[r] + work.dtype.type(INFINITY) if infinite[r] else m[r]
        if infinite[r]:
            to_limit(x_y[r : r + 1], 1)
    for r in range(padded):
        unit[r] = unit_of(m[r], near[r])
    for r in range(padded):
        gap[r] = np.float64(m[r]) - np.float64(x_y[r])
        s[r] = s[r] / unit[r]
        own[r] = np.float64(exp_below(x_y[r], near[r])) / unit[r]
    if head.size > 0:
        finish_heads(ptr(room, 0), padded, smoothing, c, w_sum, ptr(head, 0), head.size)
    else:
        finish_sides(room, padded, c, smoothing, w_sum)
    if grad.size == 0:
        return
    factors, g_y, scales = side(room, FACTOR, padded), side(room, G_Y, padded), side(room, SCALE, padded)
    for r in range(n):
        if y[r] < 0:
            base = (first + r) * c
            for k in range(base, base + c):
                put(grad, k, 0.0)
            continue
        factor = factors[r] / unit[r]
        pulled_up = infinite[r] and abs(factor) == INFINITY
        if pulled_up:
            factor = 1.0
        for start in range(0, c, CHUNK):
            size = min(c - start, CHUNK)
            place = (first + r) * c + start
            e = ptr(kept, r * width + start * step)
            if c > BLOCK:
                refill(x, grad, e, place, size, near[r], infinite[r], x_room)
            if start <= top[r] < start + size:
                e[top[r] - start] = unit[r]
            if pulled_up:
                absorb(e, factors[r], size, 1)
            # Where e and g are the same memory, a loop over both would not be vectorised.
            g = results(grad, place, place + size, x_room if c <= BLOCK else e_room)
            if v != 0.0 or not is_short(factor, work):
                w = class_weight[start : start + size]
                if over:
                    scale_smooth_in_place(e, factor, v * scales[r], w, size)
                else:
                    scale_smooth_chunk(e, ptr(g, 0), factor, v * scales[r], w, size)
            elif over:
                scale_in_place(e, work.dtype.type(factor), size)
            else:
                scale_chunk(e, ptr(g, 0), work.dtype.type(factor), size)
            if start <= y[r] < start + size:
                g[y[r] - start] = g_y[r]
            store_converted(g, grad, place)


@kernel
def wide_blocks(
    x, classes, target, class_weight, ignore_index, smoothing, head, factor, weight, mask, scale, losses, grad,
    in_place, partials, first, last, work, flags, lanes,
):  # fmt: skip
    bad = False
    n = target.size
    rows = max(1, BLOCK // classes)
    w_sum = sum_of_weights(class_weight, classes)
    x, grad, work, lanes = bare(x), bare(grad), bare(work), bare(lanes)
    block_lanes, lanes, room = lanes[:LANES], lanes[LANES : 3 * LANES], lanes[3 * LANES :]
    for block in range(first, last):
        clear(block_lanes)
        stop = min((block + 1) * rows, n)
        for start in range(block * rows, stop, SIDE):
            count = min(stop - start, SIDE)
            padded = (count + 3) // 4 * 4
            bad |= open_sides(
                room, target, start, count, padded, classes, class_weight, ignore_index, smoothing, weight, mask, scale
            )
            if factor.size > 0:
                open_heads(room, factor, start, count)
            wide_rows(
                x, classes, start, count, padded, class_weight, smoothing, head, w_sum, grad, in_place, work, room,
                flags, lanes,
            )  # fmt: skip
            take_losses(room, start, count, losses, block_lanes)
        partials[block] = total(block_lanes)
    return bad
