"""Cross-entropy of many classes; ``_cython/wide.pxi`` operation by operation."""

import numpy as np
from numba.core import types
from numba.extending import overload

from fastloss._blocks import BLOCK, CHUNK, LANES, SIDE
from fastloss._numba._jit import apart, bare, by_type, inline, kernel
from fastloss._numba.blocks import (
    add_lanes,
    clear,
    copy,
    fetch,
    put,
    results,
    store_converted,
    total,
    value_at,
    view,
)  # fmt: skip
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
    NEAR,
    OWN,
    SCALE,
    SMOOTH,
    TOP,
    UNIT,
    S,
    Y,
    finish_sides,
    indices,
    limit_maximum,
    open_sides,
    side,
    sum_of_weights,
    take_losses,
    to_limit,
)  # fmt: skip

LOW = 256.0  # float32 rows whose maximum is below this in magnitude have a shorter way still
PIECE = 256  # exponentials between two looks ahead in memory
TINY = 1e-30  # a factor below this may not fit into float32
E_ROOM = 5120  # rows of a block, each rounded up to 16 classes: most for 65 classes, 63 rows of 80
ROOM = E_ROOM + 2 * LANES + CHUNK + 2 * SIDE  # elements of work that the kernel needs


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
def greatest(lanes, room):
    half = LANES // 2
    for j in range(half):
        room[j] = lanes[j + half] if lanes[j + half] > lanes[j] else lanes[j]
    while half > 1:
        half = half // 2
        for j in range(half):
            room[j] = room[j + half] if room[j + half] > room[j] else room[j]
    return room[0]


@inline
def position(lanes, x, m):
    """Where x has the maximum that ``add_maxima`` has left in one of the lanes."""
    lane = 0
    for j in range(LANES):
        lane = j if lanes[j] == m else lane
    found = -1
    for i in range(lane, x.size, LANES):
        found = i if x[i] == m else found
    if found < 0:
        # It came from the last rows of lanes, which need not begin at a multiple of LANES.
        for i in range(x.size - 4 * LANES + lane, x.size, LANES):
            found = i if x[i] == m else found
    return found


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
def unit_f32(m):
    """What e are relative to; close to what the maximum's e is rounded to."""
    return exp_top_f64(np.float64(m), np.float64(halvings_f32(m))) if abs(m) < LOW else 1.0


@inline
def unit_f64(m):
    return 1.0


@inline
def add_exponentials_f32(lanes, e):
    """As ``add_lanes``, but values are added in fours before they are widened."""
    quads = e.size // (4 * LANES)
    for i in range(quads):
        at = i * 4 * LANES
        a, b = e[at : at + LANES], e[at + LANES : at + 2 * LANES]
        c, d = e[at + 2 * LANES : at + 3 * LANES], e[at + 3 * LANES : at + 4 * LANES]
        for j in range(a.size):
            lanes[j] = lanes[j] + np.float64((a[j] + b[j]) + (c[j] + d[j]))
    add_lanes(lanes, e[quads * 4 * LANES :])


exp_below = by_type(exp_below_f32, exp_below_f64)
exp_chunk = by_type(apart(exp_chunk_f32), apart(exp_chunk_f64))
unit_of = by_type(unit_f32, unit_f64)


def add_exponentials(lanes, e):
    """Add a chunk of exponentials to the lanes."""


@overload(add_exponentials)
def _add_exponentials(lanes, e):
    if e.dtype == types.float32:
        return lambda lanes, e: add_exponentials_f32(lanes, e)
    return lambda lanes, e: add_lanes(lanes, e)


@inline
def add_smoothing(lanes, x, m, w):
    """Add w_k (m - x_k), classes of weight 0 left out."""
    for i in range(x.size):
        d = np.float64(m) - np.float64(x[i])
        if w.size > 0:
            d = d * w[i] if w[i] != 0.0 else 0.0
        lanes[i % LANES] += d


@inline
def scale_chunk(e, g, factor):
    for i in range(e.size):
        g[i] = e[i] * factor


@inline
def scale_in_place(e, factor):
    for i in range(e.size):
        e[i] = e[i] * factor


@inline
def scale_smooth_chunk(e, g, factor, shift, w):
    if w.size > 0:
        for i in range(e.size):
            g[i] = np.float64(e[i]) * factor - shift * w[i]
    else:
        for i in range(e.size):
            g[i] = np.float64(e[i]) * factor - shift


@inline
def row_maximum(x, base, c, work):
    """The maximum and its place; -inf where a row holds nothing but NaN and -inf."""
    lanes, halves, x_room = work[:LANES], work[LANES : LANES + LANES // 2], work[2 * LANES : 2 * LANES + CHUNK]
    lowest = work.dtype.type(-INFINITY)
    m, top = lowest, 0
    for start in range(0, c, CHUNK):
        part = view(x, base + start, base + min(start + CHUNK, c), x_room)
        for j in range(LANES):
            lanes[j] = lowest
        add_maxima(lanes, part)
        v = greatest(lanes, halves)
        if v > m:
            m = v
            top = start + position(lanes, part, v)
    return m, top


@inline
def exponentials(grad, room, r, c, base, start, stop):
    """Where the e of a row's chunk are kept: side by side if rows are short, else in the gradient's own memory."""
    if c <= BLOCK:
        at = r * ((c + 15) // 16 * 16)
        return room[at + start : at + stop]
    return results(grad, base + start, base + stop, room)


def refill(x, e, start, m, infinite, x_room):
    """Compute the e of a chunk once more if nothing has kept them."""


@overload(refill)
def _refill(x, e, start, m, infinite, x_room):
    if x.dtype == e.dtype:
        return lambda x, e, start, m, infinite, x_room: None

    def again(x, e, start, m, infinite, x_room):
        part = view(x, start, start + e.size, x_room)
        if infinite:
            to_limit(part, 1)
        exp_chunk(part, m, e)

    return again


@inline
def wide_rows(x, c, first, n, padded, class_weight, smoothing, w_sum, grad, in_place, work, room, infinite, lanes):
    """Rows first to first + n in phases."""
    e_room, work = work[:E_ROOM], work[E_ROOM:]
    x_room, real = work[2 * LANES : 2 * LANES + CHUNK], work[2 * LANES + CHUNK :]
    m, x_y = real[:padded], real[SIDE : SIDE + padded]
    sums, gaps = lanes[:LANES], lanes[LANES : 2 * LANES]
    y, top, s, unit = (
        indices(room, Y, padded),
        indices(room, TOP, padded),
        side(room, S, padded),
        side(room, UNIT, padded),
    )
    gap, own = side(room, GAP, padded), side(room, OWN, padded)
    smooth = side(room, SMOOTH, padded)
    zero, v = work.dtype.type(0.0), smoothing / np.float64(c)
    for r in range(padded):
        m[r] = zero
        x_y[r] = zero
        infinite[r] = False
        if y[r] >= 0:
            base = (first + r) * c
            m[r], top[r] = row_maximum(x, base, c, work)
            x_y[r] = value_at(x, base + y[r], work)
            if m[r] == INFINITY:
                infinite[r] = True
                m[r] = limit_maximum(x, base, c, work)
                to_limit(x_y[r : r + 1], 1)
    for r in range(padded):
        unit[r] = unit_of(m[r])
    for r in range(n):
        if y[r] < 0:
            continue
        base = (first + r) * c
        clear(sums)
        clear(gaps)
        for start in range(0, c, CHUNK):
            stop = min(start + CHUNK, c)
            e = exponentials(grad, e_room, r, c, base, start, stop)
            part = view(x, base + start, base + stop, x_room)
            if infinite[r] or (in_place and c > BLOCK):
                part = copy(part, x_room)
                if infinite[r]:
                    to_limit(part, 1)
            for at in range(0, stop - start, PIECE):
                to = min(at + PIECE, stop - start)
                fetch(x, base + n * c + start + at, base + n * c + start + to)
                if grad.size > 0:
                    fetch(grad, base + start + at, base + start + to)
                exp_chunk(part[at:to], m[r], e[at:to])
            # One maximum stays out of the sum, whose digits it would swallow.
            if start <= top[r] < stop:
                e[top[r] - start] = zero
            add_exponentials(sums, e)
            if v != 0.0:
                add_smoothing(gaps, part, m[r], class_weight[start:stop])
        s[r] = total(sums)
        if v != 0.0:
            smooth[r] = total(gaps)
    for r in range(padded):
        gap[r] = np.float64(m[r]) - np.float64(x_y[r])
        s[r] = s[r] / unit[r]
        own[r] = np.float64(exp_below(x_y[r], m[r])) / unit[r]
    finish_sides(room, padded, c, smoothing, w_sum)
    if grad.size == 0:
        return
    factors, g_y, scales = side(room, FACTOR, padded), side(room, G_Y, padded), side(room, SCALE, padded)
    for r in range(n):
        base = (first + r) * c
        if y[r] < 0:
            for k in range(base, base + c):
                put(grad, k, 0.0)
            continue
        factor = factors[r] / unit[r]
        for start in range(0, c, CHUNK):
            stop = min(start + CHUNK, c)
            e = exponentials(grad, e_room, r, c, base, start, stop)
            if c > BLOCK:
                refill(x, e, base + start, m[r], infinite[r], x_room)
            if start <= top[r] < stop:
                e[top[r] - start] = unit[r]
            # Where e and g are the same memory, a loop over both would not be vectorised.
            g = results(grad, base + start, base + stop, x_room) if c <= BLOCK else e
            if v != 0.0 or (work.itemsize == 4 and abs(factor) < TINY):
                scale_smooth_chunk(e, g, factor, v * scales[r], class_weight[start:stop])
            elif c <= BLOCK:
                scale_chunk(e, g, work.dtype.type(factor))
            else:
                scale_in_place(e, work.dtype.type(factor))
            if start <= y[r] < stop:
                g[y[r] - start] = g_y[r]
            store_converted(g, grad, base + start)


@kernel
def wide_blocks(
    x, classes, target, class_weight, ignore_index, smoothing, weight, mask, scale, losses, grad, in_place,
    partials, first, last, work, flags, lanes,
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
            wide_rows(
                x, classes, start, count, padded, class_weight, smoothing, w_sum, grad, in_place, work, room, flags,
                lanes,
            )  # fmt: skip
            take_losses(room, start, count, losses, block_lanes)
        partials[block] = total(block_lanes)
    return bad
