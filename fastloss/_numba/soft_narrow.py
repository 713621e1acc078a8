"""Softmax losses of few classes, rows side by side; ``_cython/soft_narrow.pxi`` operation by operation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastloss._blocks import BLOCK, CHUNK, LANES, SIDE
from fastloss._how import FOCAL, JENSEN_SHANNON, LOG_PROBS, LOGITS, POLY, PROBS
from fastloss._numba._jit import apart, bare, fma, inline, kernel, ptr
from fastloss._numba.blocks import add_lanes, belongs, clear, put, total, value_at
from fastloss._numba.narrow import exp_apart, side_maxima, side_sums
from fastloss._numba.primitives_generated import exp_f64, log1p_f64, log_f64
from fastloss._numba.rows import INFINITY, NAN, NEAR, absorb, to_limit
from fastloss._numba.soft import (
    UNIT_DOMAIN,
    base_of,
    belongs_or_nan,
    caps,
    exp_capped,
    exp_plain,
    first_legal,
    inverse_rest,
    jensen_terms,
    load_logits,
    log_share,
    nan_of,
    open_rows,
    pulled,
    scales,
    slopes_of_shares,
    spread_of,
    steepness,
    weighed_cost,
)
from fastloss._numba.soft_heads import side_focal, side_poly
from fastloss._numba.tiles import transpose

FLAT, SLOPES, BESIDE, L, E, T, F, SIDES = (k * CHUNK for k in range(8))  # where in the room of reals
REALS = SIDES + 2 * SIDE
MASS, ENTROPY, DRIFT, SHARED, SPREAD, U, C_Y, P_Y, Q_Y, G_Y, SLOPE, SPARE, FACTOR, SCALE, PULL, AT, Y, WEIGHT = (
    5 * CHUNK + k * SIDE for k in range(18)
)
OWN = WEIGHT + SIDE  # sums of a row's exponentials: seven values, and of a teacher's
OTHER = OWN + 7 * SIDE
LOST, _, ALL_Y, ALL_WEIGHTS, VALUES = (OTHER + k * SIDE for k in range(7, 12))
ROOM = REALS + 2 * (VALUES + SIDE)  # elements of work that the kernel needs, if doubles count for two


class Job(NamedTuple):
    """As in ``soft.py``, for fewer arrays: pointers, which of them are there, and the options."""

    like: Any
    doubles: Any
    x: Any
    shares: Any
    class_weight: Any
    legal: Any
    factor: Any
    grad: Any
    lse: Any
    entropies: Any
    top: Any
    index: Any
    soft: Any
    weighted: Any
    masked: Any
    factored: Any
    differentiated: Any
    extras: Any
    classes: Any
    legal_step: Any
    form: Any
    kind: Any
    input_kind: Any
    divergence: Any
    scale: Any
    smoothing: Any
    temperature: Any
    softcap: Any
    z_loss: Any
    entropy: Any
    params: Any
    count: Any


class Sum(NamedTuple):
    """Of the exponentials of each row; as in ``soft.py``, but that the unit is 1."""

    m: Any
    s: Any
    log: Any
    share: Any
    lse: Any
    top: Any
    nan: Any  # room for the places of NaN


@inline
def sums_at(doubles, start):
    return Sum(
        ptr(doubles, start), ptr(doubles, start + SIDE), ptr(doubles, start + 2 * SIDE), ptr(doubles, start + 3 * SIDE),
        ptr(doubles, start + 4 * SIDE), ptr(doubles[start + 5 * SIDE :].view(np.int64), 0),
        ptr(doubles[start + 6 * SIDE :].view(np.int64), 0),
    )  # fmt: skip


@apart
@inline
def columns(flat, x, y, c, n, padded):
    """The values of each class; nothing of a masked row may be looked at."""
    transpose(flat, c, x, padded, n, c)
    for r in range(padded):
        if y[r] < 0:
            for k in range(c):
                x[k * padded + r] = 0.0


@inline
def load_tile_logits(job, teacher, first, y, n, padded, flat, x):
    c, at = job.classes, ptr(flat, 0)
    if teacher or not job.masked or job.legal_step > 0:
        load_logits(job, teacher, first * c, first * c, n * c, at)
    else:
        for r in range(n):
            load_logits(job, False, (first + r) * c, 0, c, ptr(at, r * c))
    columns(flat, x, y, c, n, padded)


@inline
def relate_tile(job, teacher, x, e, slope, m, out, c, n):
    """relate() for rows side by side; as long as ``out`` has no sums, s and log keep what their maxima are."""
    base, base_lo, cap = out.s, out.log, job.softcap
    inverse, inverse_lo = 1.0 / job.temperature, inverse_rest(job.temperature)
    for r in range(n):
        base[r], base_lo[r] = base_of(job, teacher, m[r])
        out.lse[r] = base[r] / job.temperature if abs(out.lse[r]) < INFINITY else out.lse[r]
        m[r] = m[r] - m[r]
    if caps(job, teacher):
        steep, steep_lo = steepness(cap)
        for k in range(c):
            a, b, d = ptr(x, k * n), ptr(e, k * n), ptr(slope, k * n)
            for r in range(n):
                a[r], b[r], d[r] = exp_capped(a[r], cap, steep, steep_lo, base[r], base_lo[r], inverse, inverse_lo)
    else:
        for k in range(c):
            a, b = ptr(x, k * n), ptr(e, k * n)
            for r in range(n):
                a[r], b[r] = exp_plain(a[r], base[r], inverse, inverse_lo)


@apart
@inline
def sum_tile(job, teacher, x, places, e, beside, slope, sides, lost, out, c, n, padded):
    """As sum_row; the maxima's places only if they are wanted: as of likeliest, but -1 if nothing is above -inf."""
    m, ones = sides[:padded], sides[SIDE : SIDE + padded]
    lowest, size = sides.dtype.type(-INFINITY), c * padded
    top, s = out.top, out.s
    for r in range(padded):
        m[r] = lowest
        ones[r] = -1.0
        lost[r] = 0.0
        lost[SIDE + r] = 0.0
    side_maxima(x, m, beside, c)
    near = True
    for r in range(padded):
        near &= abs(m[r]) < NEAR
        out.lse[r] = m[r]
    if places:
        nans = out.nan
        for r in range(padded):
            top[r] = -1
            nans[r] = -1
        for k in range(c - 1, -1, -1):
            part = x[k * padded : (k + 1) * padded]
            for r in range(padded):
                top[r] = k if (part[r] == m[r]) & (m[r] > lowest) else top[r]
                nans[r] = k if part[r] != part[r] else nans[r]
        for r in range(padded):
            top[r] = nans[r] if nans[r] >= 0 else top[r]
    if not near:
        for r in range(n):
            if m[r] == INFINITY:  # one logit of +inf stands for its limit
                count, nan = 0, False
                for k in range(c):
                    v = x[k * padded + r]
                    nan |= v != v
                    count += v == INFINITY
                m[r] = NAN if nan or count != 1 else 0.0
                out.lse[r] += m[r]
                to_limit(x[r : c * padded], padded)
                for k in range(c):
                    beside[k * padded + r] = m[r]
    if scales(job, teacher):
        relate_tile(job, teacher, x, e, slope, m, out, c, padded)
    else:
        for k in range(size):
            e[k] = x[k]
        exp_apart(ptr(e, 0), ptr(beside, 0), size, near)
    side_sums(e, lost[SIDE : SIDE + padded], ones, lost[:padded], c)
    for r in range(padded):
        out.m[r] = m[r]
        nothing = out.m[r] - out.m[r]  # NaN without a finite maximum, even of one class
        s[r] = (lost[SIDE + r] + (lost[r] + np.float64(ones[r]))) + nothing
        out.log[r] = log1p_f64(s[r])
        out.share[r] = 1.0 / (1.0 + s[r])
        out.lse[r] += out.log[r]


@apart
@inline
def side_add(sums, v, c, n):
    """Sums over classes, in fours."""
    whole = c - c % 4
    for r in range(n):
        sums[r] = 0.0
    for k in range(0, whole, 4):
        a, b, d, e = ptr(v, k * n), ptr(v, (k + 1) * n), ptr(v, (k + 2) * n), ptr(v, (k + 3) * n)
        for r in range(n):
            sums[r] = sums[r] + ((a[r] + b[r]) + (d[r] + e[r]))
    for k in range(whole, c):
        a = ptr(v, k * n)
        for r in range(n):
            sums[r] = sums[r] + a[r]


@inline
def side_product(w, c):
    return w * c if w != 0.0 else 0.0


@apart
@inline
def side_dot(sums, w, v, c, n):
    """As side_add, of products."""
    whole = c - c % 4
    for r in range(n):
        sums[r] = 0.0
    for k in range(0, whole, 4):
        a0, a1, a2, a3 = ptr(w, k * n), ptr(w, (k + 1) * n), ptr(w, (k + 2) * n), ptr(w, (k + 3) * n)
        b0, b1, b2, b3 = ptr(v, k * n), ptr(v, (k + 1) * n), ptr(v, (k + 2) * n), ptr(v, (k + 3) * n)
        for r in range(n):
            low = side_product(a0[r], b0[r]) + side_product(a1[r], b1[r])
            sums[r] = sums[r] + (low + (side_product(a2[r], b2[r]) + side_product(a3[r], b3[r])))
    for k in range(whole, c):
        a, b = ptr(w, k * n), ptr(v, k * n)
        for r in range(n):
            sums[r] = sums[r] + side_product(a[r], b[r])


@apart
@inline
def scale_shares(g, p, w, soft, factor, scale, c, n):
    for k in range(c):
        a, b, d = ptr(g, k * n), ptr(p, k * n), ptr(w, k * n)
        if soft:
            for r in range(n):
                a[r] = (b[r] * factor[r] - d[r]) * scale[r]
        else:
            for r in range(n):
                a[r] = b[r] * factor[r] * scale[r]


@apart
@inline
def side_shares(p, e, found, c, n):
    share = found.share
    for k in range(c):
        a, b = ptr(p, k * n), ptr(e, k * n)
        for r in range(n):
            a[r] = np.float64(b[r]) * share[r]


@apart
@inline
def side_costs(cost, p, x, found, c, n):
    # Where rounding is upward, the exponential of -inf leaves a trace that must not meet an infinite cost.
    m, log = found.m, found.log
    for k in range(c):
        a, b, q = ptr(cost, k * n), ptr(x, k * n), ptr(p, k * n)
        for r in range(n):
            v = (m[r] - np.float64(b[r])) + log[r]
            a[r] = v
            q[r] = 0.0 if v == np.inf else q[r]


@apart
@inline
def exponentials(p, x, n):
    for k in range(n):
        p[k] = exp_f64(np.float64(x[k]))


@apart
@inline
def logarithms(h, w, n):
    for k in range(n):
        h[k] = log_share(w[k])


@inline
def own_shares(job, costs, own, x, e, p, cost, c, n):
    """p and, if it is wanted, c = -log p. Whether a prediction is no probability."""
    bad = 0
    if job.input_kind == LOGITS:
        side_shares(p, e, own, c, n)
        if costs:
            side_costs(cost, p, x, own, c, n)
    elif job.input_kind == LOG_PROBS:
        for k in range(c * n):
            cost[k] = -np.float64(x[k])
        if job.form == JENSEN_SHANNON:
            exponentials(p, x, c * n)
    else:
        for k in range(c * n):
            bad |= not belongs_or_nan(x[k])
        for k in range(c * n):
            p[k] = np.float64(x[k])
        if job.form != JENSEN_SHANNON:
            for k in range(c * n):
                cost[k] = -log_f64(p[k])
    return bad != 0


@inline
def other_shares(job, first, y, count, n, other, work, room, w, h):
    """w and, for a divergence, log w. Whether a share is no probability."""
    c, size, bad, keep = job.classes, job.classes * n, 0, 1.0 - job.smoothing
    flat, t, f = work[FLAT : FLAT + CHUNK], work[T : T + CHUNK], work[F : F + CHUNK]
    tp = ptr(t, 0)
    if not job.soft:
        for k in range(size):
            w[k] = 0.0
    elif job.kind == LOGITS:
        load_tile_logits(job, True, first, y, count, n, flat, t)
        beside, slopes = work[BESIDE : BESIDE + CHUNK], ptr(work, SLOPES)
        sum_tile(job, True, t, False, f, beside, slopes, work[SIDES:], room[LOST:], other, c, count, n)
        side_shares(w, ptr(f, 0), other, c, n)
        if job.divergence:
            for k in range(c):
                a, b = ptr(h, k * n), ptr(tp, k * n)
                for r in range(n):
                    a[r] = (np.float64(b[r]) - other.m[r]) - other.log[r]
    else:
        shares = ptr(job.shares, first * c)
        for k in range(count * c):
            flat[k] = value_at(shares, k, job.like)
        columns(flat, t, y, c, count, n)
        if job.kind == LOG_PROBS:
            for k in range(size):
                h[k] = np.float64(tp[k])
            exponentials(w, tp, size)
        else:
            for k in range(size):
                bad |= not belongs(UNIT_DOMAIN, tp[k])
            for k in range(size):
                w[k] = np.float64(tp[k])
            if job.divergence:
                logarithms(h, tp, size)
    if job.smoothing != 0.0:
        spread = ptr(room, SPREAD)
        for k in range(c):
            a = ptr(w, k * n)
            if job.masked:
                legal = ptr(job.legal, first * job.legal_step + k)
                for r in range(count):
                    a[r] = fma(keep, a[r], spread[r] if legal[r * job.legal_step] else 0.0)
            else:
                for r in range(n):
                    a[r] = fma(keep, a[r], spread[r])
    if job.weighted:
        for k in range(c):
            a, weight = ptr(w, k * n), job.class_weight[k]
            for r in range(n):
                a[r] = a[r] * weight
    return bad != 0


@inline
def weight_of(job, y):
    return job.class_weight[max(y, 0)] if job.weighted else 1.0


@apart
@inline
def head(job, first, y, count, n, own, x, e, room, at):
    """The index's own term."""
    mass, entropy, shared, spread = ptr(room, MASS), ptr(room, ENTROPY), ptr(room, SHARED), ptr(room, SPREAD)
    u, c_y, p_y, q_y, g_y = ptr(room, U), ptr(room, C_Y), ptr(room, P_Y), ptr(room, Q_Y), ptr(room, G_Y)
    slope, pull, more = ptr(room, SLOPE), ptr(room, PULL), job.entropy
    for r in range(n):
        u[r] = (1.0 - job.smoothing) * weight_of(job, y[r])
        at[r] = max(y[r], 0) * n + r
    if job.factored:
        for r in range(count):
            u[r] = u[r] * np.float64(value_at(job.factor, first + r, job.like))
    for r in range(n):
        x_y, e_y, s = np.float64(x[at[r]]), np.float64(e[at[r]]), own.s[r]
        gap, d = own.m[r] - x_y, 1.0 + s
        c_y[r] = gap + own.log[r]
        p_y[r] = e_y / d
        q_y[r] = (s if gap == 0.0 else d - e_y) / d
        g_y[r] = more * p_y[r] * (entropy[r] - c_y[r]) if (more != 0.0) & (p_y[r] != 0.0) else 0.0
    if job.form == FOCAL:
        side_focal(c_y, p_y, q_y, slope, job.params[0], n)
    elif job.form == POLY:
        side_poly(c_y, p_y, q_y, slope, ptr(room, SPARE), job.params, job.count, n)
    for r in range(n):
        shared[r] = shared[r] + weighed_cost(u[r], c_y[r])
        u[r] = u[r] * slope[r]
        g_y[r] = g_y[r] + (pulled(p_y[r], mass[r] + pull[r]) - (u[r] * q_y[r] + spread[r] * weight_of(job, y[r])))


@apart
@inline
def gradients(job, jensen, shared, c, n, p, cost, w, h, v, room):
    factor, entropy, drift, more = ptr(room, FACTOR), ptr(room, ENTROPY), ptr(room, DRIFT), job.entropy
    logits = job.input_kind == LOGITS
    if jensen and job.input_kind == PROBS:
        slopes_of_shares(p, w, cost, v, c * n)
    elif jensen:
        for k in range(c):
            a, b, d = ptr(v, k * n), ptr(h, k * n), ptr(p, k * n)
            for r in range(n):
                a[r] = 0.5 * (b[r] - side_product(d[r], drift[r] if logits else 0.0))
    elif logits:
        for k in range(c):
            a, b = ptr(v, k * n), ptr(p, k * n)
            for r in range(n):
                a[r] = b[r] * factor[r]
        if shared:
            for k in range(c * n):
                v[k] = v[k] - w[k]
        for k in range(c):
            a, b, d = ptr(v, k * n), ptr(p, k * n), ptr(cost, k * n)
            for r in range(n):
                a[r] = a[r] + side_product(b[r], more * (entropy[r] - d[r]))
    elif job.input_kind == LOG_PROBS:
        for k in range(c * n):
            v[k] = -w[k]
    else:
        for k in range(c * n):
            v[k] = -(w[k] / p[k]) if w[k] != 0.0 else 0.0


@inline
def soft_tile(job, first, count, n, values, work, room, ints):
    """Rows first to first + count: their losses, weights included. Returns whether a share is no probability."""
    c, bad = job.classes, False
    size, base, more = c * n, first * c, job.entropy
    flat, slopes, beside = work[FLAT : FLAT + CHUNK], ptr(work, SLOPES), work[BESIDE : BESIDE + CHUNK]
    x, e = work[L : L + CHUNK], work[E : E + CHUNK]
    p, cost, w, h, v = ptr(room, 0), ptr(room, CHUNK), ptr(room, 2 * CHUNK), ptr(room, 3 * CHUNK), ptr(room, 4 * CHUNK)
    mass, entropy, drift, shared = ptr(room, MASS), ptr(room, ENTROPY), ptr(room, DRIFT), ptr(room, SHARED)
    spread, u, g_y, slope = ptr(room, SPREAD), ptr(room, U), ptr(room, G_Y), ptr(room, SLOPE)
    factor, scale, pull, weights = ptr(room, FACTOR), ptr(room, SCALE), ptr(room, PULL), ptr(room, WEIGHT)
    at, y = ptr(ints, AT), ptr(ints, Y)
    own, other = sums_at(room, OWN), sums_at(room, OTHER)
    soft, jensen = job.soft or job.smoothing != 0.0, job.form == JENSEN_SHANNON
    logits, entropic = job.input_kind == LOGITS, more != 0.0 or job.extras
    bent = logits and job.softcap > 0.0
    for r in range(n):
        mass[r] = 0.0
        entropy[r] = 0.0
        drift[r] = 0.0
        shared[r] = 0.0
        u[r] = 0.0
        slope[r] = 1.0
        pull[r] = 0.0
        spread[r] = 0.0
    if job.smoothing != 0.0:
        for r in range(count):
            spread[r] = spread_of(job, first + r)
    if logits:
        load_tile_logits(job, False, first, y, count, n, flat, x)
        sum_tile(job, False, x, job.extras, e, beside, slopes, work[SIDES:], room[LOST:], own, c, count, n)
        if job.z_loss != 0.0:
            for r in range(n):
                pull[r] = 2.0 * job.z_loss * own.lse[r]
    else:
        source = ptr(job.x, base)
        for k in range(count * c):
            flat[k] = value_at(source, k, job.like)
        columns(flat, x, y, c, count, n)
    bad = own_shares(job, (soft and not jensen) or entropic, own, ptr(x, 0), ptr(e, 0), p, cost, c, n)
    if soft:
        bad |= other_shares(job, first, y, count, n, other, work, room, w, h)
        side_add(mass, w, c, n)
    if entropic:
        side_dot(entropy, p, cost, c, n)
    if jensen:
        jensen_terms(p, w, cost, h, v, size)
        side_add(drift, h, c, n)
        side_add(shared, v, c, n)
        for r in range(n):
            shared[r] = 0.5 * shared[r]
    elif job.divergence:
        for k in range(size):
            h[k] = h[k] + cost[k]
        side_dot(shared, w, h, c, n)
    elif soft:
        side_dot(shared, w, cost, c, n)
    if soft and not jensen:
        # The NaN that side_dot has left out where the other factor is 0: of logits all costs are NaN or none.
        nan = 0
        for k in range(0 if logits else size):
            nan |= x[k] != x[k]
        for k in range(c if nan != 0 else 1):
            a = ptr(cost, k * n)
            for r in range(n):
                shared[r] = shared[r] + nan_of(a[r])
    if job.index:
        head(job, first, y, count, n, own, ptr(x, 0), ptr(e, 0), room, at)
    if job.z_loss != 0.0:
        for r in range(n):
            shared[r] = shared[r] + job.z_loss * own.lse[r] * own.lse[r]
    for r in range(count):
        values[r] = (shared[r] - more * entropy[r]) * weights[r] if y[r] >= 0 else 0.0
    if job.extras:
        lse, entropies, top = ptr(job.lse, first), ptr(job.entropies, first), ptr(job.top, first)
        for r in range(count):
            kept = y[r] >= 0
            top[r] = own.top[r] if kept else -1
            if kept and top[r] < 0:
                top[r] = first_legal(job, first + r)
            put(lse, r, own.lse[r] if kept else 0.0)
        for r in range(count):
            put(entropies, r, entropy[r] if y[r] >= 0 else 0.0)
    if not job.differentiated:
        return bad
    for r in range(n):
        scale[r] = job.scale * weights[r] / (job.temperature if logits else 1.0)
        factor[r] = u[r] + mass[r] + pull[r]
    if job.z_loss != 0.0:
        for r in range(n):
            if own.lse[r] == INFINITY and abs(factor[r]) == INFINITY:
                absorb(ptr(p, r), factor[r], c, n)
                factor[r] = 1.0
    if jensen or more != 0.0 or not logits:
        gradients(job, jensen, soft, c, n, p, cost, w, h, v, room)
        for k in range(c):
            a, b = ptr(x, k * n), ptr(v, k * n)
            for r in range(n):
                a[r] = b[r] * scale[r]
    else:
        scale_shares(ptr(x, 0), p, w, soft, factor, scale, c, n)
    if job.index:
        for r in range(n):
            x[at[r]] = g_y[r] * scale[r]
    if bent:
        for k in range(size):
            x[k] = x[k] * slopes[k] if slopes[k] != 0.0 else job.like.dtype.type(0.0)
    transpose(x, n, flat, c, c, count)
    if logits and job.masked:
        for r in range(count):
            flags = ptr(job.legal, (first + r) * job.legal_step)
            for k in range(c):
                flat[r * c + k] = flat[r * c + k] if flags[k] else job.like.dtype.type(0.0)
    for r in range(count):
        if y[r] < 0:
            for k in range(c):
                flat[r * c + k] = 0.0
    g = ptr(job.grad, base)
    for k in range(count * c):
        put(g, k, flat[k])
    return bad


@kernel
def soft_tiles(
    x, classes, target, shares, numbers, form, kind, input_kind, divergence, class_weight, ignore_index, legal, factor,
    weight, mask, scale, losses, grad, lse, entropies, top, partials, first, last, work, flags, lanes,
):  # fmt: skip
    target, weight, mask, flags = bare(target), bare(weight), bare(mask), bare(flags)
    work, lanes = bare(work), bare(lanes)[:LANES]
    room = work[REALS:].view(np.float64)
    ints = room.view(np.int64)
    step = classes if legal.size > classes else 0
    job = Job(
        work, ptr(room, 0), ptr(x, 0), ptr(shares, 0), ptr(class_weight, 0), ptr(legal, 0), ptr(factor, 0),
        ptr(grad, 0), ptr(lse, 0), ptr(entropies, 0), ptr(top, 0),
        target.size > 0, shares.size > 0, class_weight.size > 0, legal.size > 0, factor.size > 0, grad.size > 0,
        lse.size > 0, classes, step, form, kind, input_kind, divergence, scale,
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], ptr(numbers, 5), numbers.size - 5,
    )  # fmt: skip
    bad = False
    n = x.size // classes
    rows = max(1, BLOCK // classes)
    tile = min(SIDE, CHUNK // classes // 16 * 16)
    for block in range(first, last):
        clear(lanes)
        stop = min((block + 1) * rows, n)
        for start in range(block * rows, stop, SIDE):
            size = min(stop - start, SIDE)
            y, weights = ints[ALL_Y : ALL_Y + size], room[ALL_WEIGHTS : ALL_WEIGHTS + size]
            values = room[VALUES : VALUES + size]
            bad |= open_rows(target, start, n, classes, ignore_index, weight, mask, flags, y, weights)
            for at in range(0, size, tile):
                count = min(tile, size - at)
                padded = (count + 15) // 16 * 16
                for r in range(padded):
                    ints[Y + r] = y[at + r] if r < count else -1
                    room[WEIGHT + r] = weights[at + r] if r < count else 0.0
                bad |= soft_tile(job, start + at, count, padded, ptr(values, at), work, room, ints)
            add_lanes(lanes, values, size)
            if losses.size > 0:
                for r in range(size):
                    put(losses, start + r, values[r])
        partials[block] = total(lanes)
    return bad
