"""Softmax losses with more per class than a logit; ``_cython/soft.pxi`` says how, this is it operation by operation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray

from fastloss._blocks import CHUNK, LANES
from fastloss._how import FOCAL, JENSEN_SHANNON, LOG_PROBS, LOGITS, POLY, PROBS
from fastloss._numba._jit import apart, bits, by_type, f32, fma, from_bits, inline, ptr, u64
from fastloss._numba.blocks import (
    add_lanes,
    belongs,
    clear,
    load_mask,
    load_weights,
    put,
    value_at,
)  # fmt: skip
from fastloss._numba.primitives_generated import (
    exp_f64,
    exp_pair_f32,
    exp_pair_f64,
    expm1_reduced_f64,
    expm1_tail_f64,
    half_over_mean_f64,
    log1p_f64,
    log_f64,
    log_over_mean_f64,
    log_sum_f64,
    power_f64,
)
from fastloss._numba.rows import INFINITY, NAN, load_targets, to_limit
from fastloss._numba.wide import add_chunk, exp_chunk, fold, folded, raise_maximum, sum_exponentials, unit_of
from fastloss.primitives import LN2_HI_F64, LN2_LO_F64, LOG2E, ROUND_F64

UNIT_DOMAIN = 1  # as in fastloss/registry.py
FOLDED = 6 * LANES  # where in the lanes the sums of chunks are
LEAST = 2.2250738585072014e-308  # the smallest normal number
REALS = 6 * CHUNK  # elements of work for what is in the type that is computed in
ROOM = REALS + 2 * 6 * CHUNK  # and all that the kernel needs, as many doubles included


class Job(NamedTuple):
    """Pointers to the arrays, to be followed only where they are said to be there, and the options."""

    like: Any  # an array of the type that is computed in
    work: Any  # pointers to room: reals, doubles, lanes
    doubles: Any
    lanes: Any
    x: Any
    shares: Any
    class_weight: Any
    legal: Any
    factor: Any
    grad: Any
    lse: Any
    entropies: Any
    top: Any
    hess: Any
    index: Any  # which of them are there
    soft: Any
    weighted: Any
    masked: Any
    factored: Any
    differentiated: Any
    curved: Any
    extras: Any  # lse, entropies and top
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
    """Of the exponentials of a row; ``soft.pxi`` says what each is."""

    m: Any
    base: Any
    base_lo: Any
    shift: Any
    unit: Any
    s: Any
    log: Any
    top: Any
    infinite: Any


class Curve(NamedTuple):
    """What the second derivatives of a row have in common."""

    factor: Any
    bend: Any
    entropy: Any
    drift: Any
    rest: Any


class Chunk(NamedTuple):
    """Pointers to what is known of a chunk of classes."""

    l: Any  # noqa: E741
    e: Any
    t: Any
    f: Any
    slope: Any
    p: Any
    cost: Any
    w: Any
    h: Any
    v: Any
    d: Any


@inline
def open_rows(target, first, n, classes, ignore_index, weight, mask, flags, y, weights):
    """Classes of some of n rows, 0 where a loss takes none and -1 where a row counts as masked, and their weights.

    Returns whether a class is bad.
    """
    bad = False
    if target.size > 0:
        bad = load_targets(target, first, y.size, classes, ignore_index, mask, y)
    else:
        for r in range(y.size):
            y[r] = 0
        if mask.size > 0:
            given = load_mask(mask, n, first, flags[: y.size])
            for r in range(y.size):
                y[r] = 0 if given[r] else -1
    for r in range(y.size):
        weights[r] = 1.0
    if weight.size > 0:
        load_weights(weight, n, first, weights)
    return bad


@inline
def capped(x, cap, steep, steep_lo):
    """cap tanh(x / cap), what it has lost, and its derivative."""
    a = abs(x)
    y = a * steep
    y_lo = fma(a, steep, -y) + a * steep_lo
    y_lo = y_lo if y < 747.0 else 0.0
    y = 747.0 if y > 747.0 else y  # from there on even 4 e is 0
    t = fma(y, LOG2E, ROUND_F64)
    n = t - ROUND_F64
    r = fma(n, -LN2_HI_F64, y)
    s = fma(n, LN2_LO_F64, -r)
    s_lo = fma(n, LN2_LO_F64, -r - s) - y_lo
    # exp(s) - 1 is s + s^2 / 2 and a tail.
    z = s * s
    h = 0.5 * z
    r = s + h
    rise_lo = (h - (r - s)) + fma(z, expm1_tail_f64(s), fma(0.5, fma(s, s, -z), fma(s_lo, r, s_lo)))
    rise = r + rise_lo
    rise_lo = rise_lo - (rise - r)
    scale = from_bits(u64(0x43F0000000000000) - (bits(t) << u64(52)))
    four = scale * 2.168404344971009e-19
    scale = scale * 5.421010862427522e-20
    part = scale * rise
    part_lo = scale * rise_lo
    one = 1.0 - scale
    num = one - part
    h = ((one - num) - part) + (((1.0 - one) - scale) - part_lo)
    one = 1.0 + scale
    den = one + part
    part_lo = ((one - den) + part) + (((1.0 - one) + scale) + part_lo)
    share = 1.0 / den
    t = num * share
    slope = fma(rise, four, four) * share * share
    z = cap * t
    r = fma(cap, t, -z) + cap * ((fma(-t, den, num) + (h - t * part_lo)) * share)
    return z if x > 0.0 else -z, r if x > 0.0 else -r, slope


@inline
def capped_short(x, cap, steep, steep_lo):
    """The same for a float32, beside which it loses nothing."""
    v = np.float64(x)
    y = abs(v) * steep
    y = 746.0 if y > 746.0 else y
    t = fma(y, LOG2E, ROUND_F64)
    n = t - ROUND_F64
    rise = expm1_reduced_f64(fma(n, LN2_LO_F64, -fma(n, -LN2_HI_F64, y)))
    scale = from_bits(u64(0x43F0000000000000) - (bits(t) << u64(52))) * 5.421010862427522e-20
    e = fma(rise, scale, scale)
    num = fma(-rise, scale, 1.0 - scale)
    den = 1.0 + e
    share = 1.0 / den
    t = num * share
    t = cap * fma(fma(-t, den, num), share, t)
    return t if v > 0.0 else -t, 0.0, 4.0 * e * share * share


cap_of = by_type(capped_short, capped)


@inline
def lost_by(a, b, difference):
    """What the difference a - b has lost (two-sum)."""
    part = difference - a
    return (a - (difference - part)) - (b + part)


@inline
def _exp_related_f32(like, d, low, inverse, inverse_lo):
    """The product of two sums, at most 0, and its exponential with what rounding the product has lost."""
    q = d * inverse
    q = 0.0 if q > 0.0 else q
    high = f32(q)
    return high, exp_pair_f32(high, f32(q - np.float64(high)))


@inline
def _exp_related_f64(like, d, low, inverse, inverse_lo):
    q = d * inverse
    q = 0.0 if q > 0.0 else q
    lost = fma(d, inverse, -q) + fma(d, inverse_lo, low * inverse)
    return q, exp_pair_f64(q, lost if q < 0.0 else 0.0)


exp_related = by_type(_exp_related_f32, _exp_related_f64)


@inline
def _exp_plain_f32(x, base, inverse, inverse_lo):
    # In float32, which is faster.
    m, i = f32(base), f32(inverse)
    j = f32(inverse - np.float64(i))
    v = x - m
    part = v - x
    low = (x - (v - part)) - (m + part)
    high = v * i
    return high, exp_pair_f32(high, fma(v, i, -high) + fma(v, j, low * i))


@inline
def _exp_plain_f64(x, base, inverse, inverse_lo):
    d = x - base
    return _exp_related_f64(x, d, lost_by(x, base, d), inverse, inverse_lo)


exp_plain = by_type(_exp_plain_f32, _exp_plain_f64)


@inline
def _less_base_f32(x, cap, steep, steep_lo, base, base_lo):
    c, _, slope = capped_short(x, cap, steep, steep_lo)
    return c - base, 0.0, f32(slope)


@inline
def _less_base_f64(x, cap, steep, steep_lo, base, base_lo):
    c, low, slope = capped(x, cap, steep, steep_lo)
    d = c - base
    low = lost_by(c, base, d) + (low - base_lo)
    c = d + low
    return c, lost_by(d, -low, c), slope


less_base = by_type(_less_base_f32, _less_base_f64)


@inline
def exp_capped(x, cap, steep, steep_lo, base, base_lo, inverse, inverse_lo):
    d, lost, slope = less_base(x, cap, steep, steep_lo, base, base_lo)
    d = d if x > -INFINITY else np.float64(x)  # an illegal class
    high, e = exp_related(x, d, lost, inverse, inverse_lo)
    return high, e, slope


@inline
def caps(job, teacher):
    return not teacher and job.softcap > 0.0


@inline
def scales(job, teacher):
    """Whether the softmax takes other logits than the given ones."""
    return caps(job, teacher) or (job.temperature != 1.0 and not (teacher and job.kind == LOG_PROBS))


@inline
def inverse_rest(temperature):
    """What 1 / temperature has lost."""
    return -fma(1.0 / temperature, temperature, -1.0) / temperature


@inline
def steepness(cap):
    """2 / cap, and what that has lost; the cap may be too small for it."""
    steep = 2.0 / cap
    if steep < INFINITY:
        return steep, -fma(steep, cap, -2.0) / cap
    return 1.7976931348623157e308, 0.0


@inline
def base_of(job, teacher, m):
    """A row's maximum, capped, and what that has lost."""
    if not caps(job, teacher):
        return np.float64(m), 0.0
    steep, steep_lo = steepness(job.softcap)
    base, low, _ = cap_of(m, job.softcap, steep, steep_lo)
    return base, low


@apart
@inline
def relate(capping, cap, temperature, base, base_lo, logits, e, slope, n):
    """Logits become those of the softmax less their row's maximum, and e their exponentials; slopes of capped ones."""
    inverse, inverse_lo = 1.0 / temperature, inverse_rest(temperature)
    if capping:
        steep, steep_lo = steepness(cap)
        for k in range(n):
            logits[k], e[k], slope[k] = exp_capped(logits[k], cap, steep, steep_lo, base, base_lo, inverse, inverse_lo)
    else:
        for k in range(n):
            logits[k], e[k] = exp_plain(logits[k], base, inverse, inverse_lo)


@apart
@inline
def load_logits(job, teacher, at, legal, n, logits):
    """Logits of n classes from element ``at`` on, -inf if they are illegal."""
    real = job.like.dtype.type
    largest = real(np.finfo(real).max)
    source = ptr(job.shares if teacher else job.x, at)
    for k in range(n):
        logits[k] = value_at(source, k, job.like)
    if caps(job, teacher):
        # Only an illegal one is infinite then.
        for k in range(n):
            v = logits[k]
            v = largest if v > largest else v
            logits[k] = -largest if v < -largest else v
    if not teacher and job.masked:
        flags, lowest = ptr(job.legal, legal), real(-INFINITY)
        for k in range(n):
            v = logits[k]
            logits[k] = v if flags[k] else lowest


@inline
def given_logits(job, teacher, at, legal, n, infinite, logits):
    load_logits(job, teacher, at, legal, n, logits)
    if infinite:
        to_limit(carray(logits, n), 1)


@inline
def exp_given(job, teacher, logits, own, e, slope, n):
    """Logits as given_logits() has them become as the softmax takes them, and e their exponentials."""
    if scales(job, teacher):
        relate(
            caps(job, teacher), job.softcap, job.temperature, own.base, own.base_lo, logits, e, slope, n
        )  # fmt: skip
    else:
        exp_chunk(logits, job.like.dtype.type(own.m), e, n)


@inline
def exp_logits(job, teacher, at, legal, n, own, logits, e, slope):
    given_logits(job, teacher, at, legal, n, own.infinite, logits)
    exp_given(job, teacher, logits, own, e, slope, n)


@apart
@inline
def find_top(job, teacher, i, logits):
    """The maximum of a row of logits, its place and its unit; ``logits`` keeps the last chunk."""
    real = job.like.dtype.type
    c, base, legal = job.classes, i * job.classes, i * job.legal_step
    m, top, infinite = real(-INFINITY), 0, False
    for start in range(0, c, CHUNK):
        n = min(c - start, CHUNK)
        load_logits(job, teacher, base + start, legal + start, n, logits)
        m, place = raise_maximum(logits, n, m)
        if place >= 0:
            top = start + place
    if m == INFINITY:
        # One logit of +inf stands for its limit.
        count, nan = 0, 0
        for start in range(0, c, CHUNK):
            n = min(c - start, CHUNK)
            load_logits(job, teacher, base + start, legal + start, n, logits)
            for k in range(n):
                nan |= logits[k] != logits[k]
                count += logits[k] == INFINITY
        infinite = True
        m = real(NAN) if nan != 0 or count != 1 else real(0.0)
        if c <= CHUNK:
            given_logits(job, teacher, base, legal, c, True, logits)
    # Without a finite maximum its NaN are those of the sum.
    if scales(job, teacher) and m > real(-INFINITY):
        peak, peak_lo = base_of(job, teacher, m)
        return Sum(0.0, peak, peak_lo, peak / job.temperature, 1.0, 0.0, 0.0, top, infinite)
    return Sum(np.float64(m), 0.0, 0.0, 0.0, unit_of(m, m), 0.0, 0.0, top, infinite)


@inline
def finish_sum(found, sum_):
    """From the sum of the exponentials without one maximum."""
    s = sum_ / found.unit + (found.m - found.m)  # NaN without a finite maximum, even of one class
    return Sum(
        found.m, found.base, found.base_lo, found.shift, found.unit, s, log1p_f64(s), found.top,
        found.infinite,
    )  # fmt: skip


@apart
@inline
def sum_row(job, teacher, i, logits, e, slope):
    """Sums over a row of logits; ``logits``, ``e`` and ``slope`` keep its last chunk."""
    real = job.like.dtype.type
    c, base, legal = job.classes, i * job.classes, i * job.legal_step
    found = find_top(job, teacher, i, logits)
    sum_ = lost = 0.0
    for start in range(0, c, CHUNK):
        n = min(c - start, CHUNK)
        if c > CHUNK:
            given_logits(job, teacher, base + start, legal + start, n, found.infinite, logits)
        exp_given(job, teacher, logits, found, e, slope, n)
        if start <= found.top < start + n:
            e[found.top - start] = real(0.0)
        sum_, lost = add_chunk(sum_, lost, sum_exponentials(e, ptr(job.lanes, 4 * LANES), n))
    return finish_sum(found, sum_ + lost)


@inline
def probabilities(job, teacher, at, legal, n, found, logits, e, slope):
    """Logits and exponentials of a chunk, which are there already if it is the only one, and a factor to p."""
    if job.classes > CHUNK:
        exp_logits(job, teacher, at, legal, n, found, logits, e, slope)
    return 1.0 / (found.unit * (1.0 + found.s))


@inline
def first_equal(x, v, n):
    """The place of the first of at most CHUNK values that equals v; a loop without a break is vectorised."""
    size = np.int32(n)
    found = size
    for i in range(n):
        at = np.int32(i) if x[i] == v else size
        found = at if at < found else found
    return np.int64(found)


@inline
def first_legal(job, i):
    """The first class that takes part in a row, -1 if none does."""
    flags = ptr(job.legal, i * job.legal_step)
    for k in range(job.classes):
        if not job.masked or flags[k]:
            return k
    return -1


@apart
@inline
def likeliest(job, i, own, room):
    """The class of a row's greatest logit, the lowest of several; the first NaN's if there is one; -1 without any."""
    c, base, legal = job.classes, i * job.classes, i * job.legal_step
    if own.s != own.s:
        for start in range(0, c, CHUNK):
            n = min(c - start, CHUNK)
            load_logits(job, False, base + start, legal + start, n, room)
            for k in range(n):
                if room[k] != room[k]:
                    return start + k
        if own.m == -INFINITY:
            return first_legal(job, i)
    # No chunk before has a maximum: only what is higher replaces it.
    start = own.top // CHUNK * CHUNK
    n = min(c - start, CHUNK)
    load_logits(job, False, base + start, legal + start, n, room)
    return start + first_equal(room, room[own.top - start], n)


@inline
def belongs_or_nan(v):
    """Whether a prediction is a probability; NaN propagates."""
    return belongs(UNIT_DOMAIN, v) | (v != v)


@inline
def terms(job, i, start, n, own, other, spread, a):
    """p, c, w and log w of a chunk. Whether a value is no probability."""
    at, legal, keep = i * job.classes + start, i * job.legal_step + start, 1.0 - job.smoothing
    l, e, t, f, p, c, w, h = a.l, a.e, a.t, a.f, a.p, a.cost, a.w, a.h  # noqa: E741
    x, shares = ptr(job.x, at), ptr(job.shares, at)
    bad = 0
    if job.input_kind == LOGITS:
        factor = probabilities(job, False, at, legal, n, own, l, e, a.slope)
        for k in range(n):
            p[k] = np.float64(e[k]) * factor
            c[k] = (own.m - np.float64(l[k])) + own.log
            p[k] = 0.0 if c[k] == np.inf else p[k]  # where rounding is upward, exp(-inf) leaves a trace
        if start <= own.top < start + n:
            p[own.top - start] = 1.0 / (1.0 + own.s)  # the unit may be no float32
    elif job.input_kind == LOG_PROBS:
        for k in range(n):
            c[k] = -np.float64(value_at(x, k, job.like))
        if job.form == JENSEN_SHANNON or job.curved:
            for k in range(n):
                p[k] = exp_f64(np.float64(value_at(x, k, job.like)))
    else:
        for k in range(n):
            v = value_at(x, k, job.like)
            bad |= not belongs_or_nan(v)
            p[k] = np.float64(v)
        if job.form != JENSEN_SHANNON:
            for k in range(n):
                c[k] = -log_f64(p[k])
    if not job.soft:
        for k in range(n):
            w[k] = 0.0
    elif job.kind == LOGITS:
        factor = probabilities(job, True, at, 0, n, other, t, f, a.slope)
        for k in range(n):
            w[k] = np.float64(f[k]) * factor
            h[k] = (np.float64(t[k]) - other.m) - other.log
        if start <= other.top < start + n:
            w[other.top - start] = 1.0 / (1.0 + other.s)
    elif job.kind == LOG_PROBS:
        for k in range(n):
            v = np.float64(value_at(shares, k, job.like))
            h[k] = v
            w[k] = exp_f64(v)
    else:
        for k in range(n):
            v = value_at(shares, k, job.like)
            bad |= not belongs(UNIT_DOMAIN, v)
            w[k] = np.float64(v)
        if job.divergence:
            for k in range(n):
                h[k] = log_share(value_at(shares, k, job.like))
    if job.smoothing != 0.0 and job.masked:
        flags = ptr(job.legal, legal)
        for k in range(n):
            w[k] = fma(keep, w[k], spread if flags[k] else 0.0)
    elif job.smoothing != 0.0:
        for k in range(n):
            w[k] = fma(keep, w[k], spread)
    if job.weighted:
        weights = ptr(job.class_weight, start)
        for k in range(n):
            w[k] = w[k] * weights[k]
    return bad != 0


@inline
def weighed_cost(u, c):
    """The cost of a class, which if it is of weight 0 may be infinite, but not NaN."""
    return 0.0 if (u == 0.0) & (c == INFINITY) else u * c


@inline
def nan_of(c):
    """What a class that the target leaves out costs: nothing, unless its prediction is NaN."""
    return c if c != c else 0.0


@inline
def pulled(p, factor):
    """The share of a class in a row's gradient: a factor of infinity, of an infinite lse^2, has none where p is 0."""
    return p * factor if p != 0.0 else 0.0


@inline
def power(q, exponent):
    """q^exponent for q in [0, 1]."""
    if exponent == 0.0:
        return 1.0
    if exponent == 1.0:
        return q
    if exponent == 2.0:
        return q * q
    return power_f64(q, exponent)


@inline
def own_term(job, c, p, q):
    """f(c) of the index's class, and its derivatives; q = 1 - p."""
    value, derivative, bend, x, ratio, params = c, 1.0, 0.0, 1.0, 1.0, job.params
    if job.form == FOCAL:
        g = params[0]
        x = power(q, g)
        value = x * c if x != 0.0 else 0.0
        ratio = c / q if q > 0.0 else 1.0
        derivative = x * (1.0 + g * p * ratio) if p > 0.0 else x
        if g != 0.0 and p > 0.0 and q > 0.0:
            bend = g * p * (x / q) * (2.0 + ratio * ((g - 1.0) * p - q))
    elif job.form == POLY:
        for k in range(job.count):
            derivative = derivative + params[k] * p * x
            bend = bend - params[k] * p * x
            if k > 0:
                bend = bend + params[k] * p * p * ratio * k
            ratio = x
            x = x * q
            value = value + params[k] * x / (k + 1.0)
    return value, derivative, bend


@inline
def spread_of(job, i):
    """What smoothing gives to each class that takes part."""
    if job.smoothing == 0.0:
        return 0.0
    count = job.classes
    if job.masked:
        count, flags = 0, ptr(job.legal, i * job.legal_step)
        for k in range(job.classes):
            count += flags[k] != 0
    return job.smoothing / np.float64(count)


@inline
def _log_share_f32(w):
    return log_sum_f64(np.float64(w), 0.0)


# The logarithm of a probability; that of 0 and of what is none is not used. Every float32 is a normal float64.
log_share = by_type(_log_share_f32, log_f64)


@inline
def log_part(a, b):
    """log(a / m) for the mean m of a and b, none of them negative."""
    share = half_over_mean_f64(a, b, LEAST)
    return log_over_mean_f64(a, share, (a - b) * share, LEAST)


@apart
@inline
def jensen_terms(p, w, h, mine, both, n):
    """h = log(p / m) for the mean m of p and w, p h, and p h + w log(w / m)."""
    for k in range(n):
        both[k] = half_over_mean_f64(p[k], w[k], LEAST)
    for k in range(n):
        h[k] = log_over_mean_f64(p[k], both[k], (p[k] - w[k]) * both[k], LEAST)
    for k in range(n):
        both[k] = log_over_mean_f64(w[k], both[k], (w[k] - p[k]) * both[k], LEAST)
    for k in range(n):
        mine[k] = p[k] * h[k] if p[k] != 0.0 else 0.0
        both[k] = mine[k] + (w[k] * both[k] if w[k] != 0.0 else 0.0)


@inline
def slopes_of_shares(p, w, h, v, n):
    """Derivatives by p of p log(p / m) + w log(w / m), halved; h = log(p / m)."""
    for k in range(n):
        v[k] = 0.5 * h[k] if p[k] != 0.0 else (-INFINITY if w[k] != 0.0 else 0.34657359027997264)


@inline
def gradient_of_jensen(kind, p, w, h, drift, v, n):
    if kind == PROBS:
        slopes_of_shares(p, w, h, v, n)
    else:
        shift = drift if kind == LOGITS else 0.0
        for k in range(n):
            v[k] = 0.5 * p[k] * (h[k] - shift) if p[k] != 0.0 else 0.0


@apart
@inline
def curve(job, i, at, n, own, a, c, y, sloped):
    """Second derivatives of a chunk from class ``at`` on; ``sloped``: a.l and a.slope are prepared, else not bent."""
    p, cost, w, v, d = a.p, a.cost, a.w, a.v, a.d
    more, jensen, top, own_place = job.entropy, job.form == JENSEN_SHANNON, own.top - at, y - at if job.index else -1
    if job.input_kind != LOGITS:
        for k in range(n):
            if jensen:
                share = w[k] / (p[k] + w[k]) if w[k] != 0.0 else 0.0
                if job.input_kind == LOG_PROBS:
                    d[k] = 0.5 * p[k] * (log_part(p[k], w[k]) + share) if p[k] != 0.0 else 0.0
                else:
                    d[k] = 0.5 * share / p[k] if share != 0.0 else 0.0
            else:
                d[k] = 0.0 if job.input_kind == LOG_PROBS or w[k] == 0.0 else w[k] / p[k] / p[k]
        return 0
    top_rest = own.s / (1.0 + own.s)
    for k in range(n):
        q = top_rest if k == top else 1.0 - p[k]
        if jensen:
            t = w[k] / (p[k] + w[k]) if w[k] != 0.0 else 0.0
            t = log_part(p[k], w[k]) - c.drift + t
            d[k] = 0.5 * p[k] * ((q - p[k]) * t + p[k] * c.rest) if p[k] != 0.0 else 0.0
            continue
        t = q if k == own_place else p[k]
        d[k] = pulled(p[k] * q, c.factor) + 2.0 * job.z_loss * p[k] * p[k] + (c.bend * t * t if t != 0.0 else 0.0)
        if more != 0.0 and p[k] != 0.0:
            d[k] = d[k] + more * p[k] * ((q - p[k]) * (c.entropy - cost[k]) + q)
    if sloped:
        second = -2.0 * job.temperature / (job.softcap * job.softcap)
        for k in range(n):
            slope = np.float64(a.slope[k])
            if slope == 0.0:
                d[k] = 0.0
            elif second == 0.0:
                d[k] = d[k] * slope * slope
            else:
                d[k] = d[k] * slope * slope + v[k] * (
                    second * (own.base + job.temperature * np.float64(a.l[k])) * slope
                )
    return 0


@inline
def weight_of(job, y):
    return job.class_weight[y] if job.weighted else 1.0


@inline
def own_class(job, i, y, own, pull, spread, entropy, x_y, slope, e_y):
    """What an index's class adds: its loss, weights of the derivatives of its cost, the gradient there."""
    u = (1.0 - job.smoothing) * weight_of(job, y)
    if job.factored:
        u = u * np.float64(value_at(job.factor, i, job.like))
    exp_logits(job, False, i * job.classes + y, i * job.legal_step + y, 1, own, x_y, e_y, slope)
    gap = own.m - np.float64(x_y[0])
    whole = 1.0 + own.s
    part = np.float64(e_y[0]) / own.unit
    p_y = part / whole
    q_y = (own.s if gap == 0.0 else whole - part) / whole
    c_y = gap + own.log
    value, derivative, bend = own_term(job, c_y, p_y, q_y)
    value = weighed_cost(u, value)
    bend = u * bend
    u = u * derivative
    g_y = pulled(p_y, pull) - (u * q_y + spread * weight_of(job, y))
    if job.entropy != 0.0:
        g_y = g_y + (job.entropy * p_y * (entropy - c_y) if p_y != 0.0 else 0.0)
    return value, u, bend, g_y


@inline
def put_extras(job, i, lse, entropy, own, room):
    if job.extras:
        put(job.lse, i, lse)
        put(job.entropies, i, entropy)
        job.top[i] = likeliest(job, i, own, room)


@apart
@inline
def clear_left_out(d, flags, n):
    """Second derivatives of classes that take no part are 0. Not inlined: LLVM would drop the loop."""
    for k in range(n):
        if flags[k] == 0:
            d[k] = 0.0
    return 0


@inline
def soft_row(job, i, y, weight):
    """The loss of a row, its weight included, and whether a share is no probability."""
    c, base, bad = job.classes, i * job.classes, False
    room, doubles, lanes, sums = job.work, job.doubles, ptr(job.lanes, LANES), ptr(job.lanes, FOLDED)
    a = Chunk(
        ptr(room, 0), ptr(room, CHUNK), ptr(room, 2 * CHUNK), ptr(room, 3 * CHUNK),
        ptr(room, 4 * CHUNK), ptr(doubles, 0), ptr(doubles, CHUNK), ptr(doubles, 2 * CHUNK), ptr(doubles, 3 * CHUNK),
        ptr(doubles, 4 * CHUNK), ptr(doubles, 5 * CHUNK),
    )  # fmt: skip
    p, cost, w, h, v = a.p, a.cost, a.w, a.h, a.v
    own = other = Sum(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0, False)
    u, g_y, value, lse = 0.0, 0.0, 0.0, 0.0
    spread, mass, entropy, drift, more = spread_of(job, i), 0.0, 0.0, 0.0, job.entropy
    pull = bend = rest = 0.0
    shared = job.soft or job.smoothing != 0.0
    jensen, entropic = job.form == JENSEN_SHANNON, more != 0.0 or job.extras
    logits = job.input_kind == LOGITS
    bent = logits and job.softcap > 0.0
    temperature = job.temperature if logits else 1.0
    if logits:
        own = sum_row(job, False, i, a.l, a.e, a.slope)
        lse = (own.m + own.shift) + own.log
        if own.infinite and own.m == own.m:
            lse = INFINITY
    if job.z_loss != 0.0:
        pull = 2.0 * job.z_loss * lse
    if job.soft and job.kind == LOGITS:
        other = sum_row(job, True, i, a.t, a.f, a.slope)
    # A divergence from what is no logits needs none of these sums.
    summed = (shared or entropic) and (logits or jensen)
    if summed:
        for k in range(5 * LANES):
            lanes[k] = 0.0
        for k in range(5 * 2):
            sums[k] = 0.0
        for start in range(0, c, CHUNK):
            n = min(c - start, CHUNK)
            bad |= terms(job, i, start, n, own, other, spread, a)
            if shared:
                add_lanes(lanes, w, n)
            if entropic:
                for k in range(n):
                    v[k] = p[k] * cost[k] if p[k] != 0.0 else 0.0
                add_lanes(ptr(lanes, LANES), v, n)
            if jensen:
                jensen_terms(p, w, h, v, a.d, n)
                add_lanes(ptr(lanes, 2 * LANES), v, n)
                add_lanes(ptr(lanes, 4 * LANES), a.d, n)
                if job.curved:
                    for k in range(n):
                        v[k] = p[k] * (w[k] / (p[k] + w[k])) if p[k] != 0.0 else 0.0
                    add_lanes(ptr(lanes, 3 * LANES), v, n)
            for k in range(5 if jensen else 2):
                fold(ptr(lanes, k * LANES), ptr(sums, 2 * k))
        mass, entropy, drift = folded(sums), folded(ptr(sums, 2)), folded(ptr(sums, 4))
        rest, value = folded(ptr(sums, 6)), 0.5 * folded(ptr(sums, 8))
    if job.index:
        # The room of the second sum: an index has no teacher.
        own_value, u, bend, g_y = own_class(
            job, i, y, own, mass + pull, spread, entropy, a.t, ptr(room, 5 * CHUNK), a.f
        )
        value = value + own_value
    if job.z_loss != 0.0:
        value = value + job.z_loss * lse * lse
    value = value - more * entropy
    put_extras(job, i, lse, entropy, own, ptr(room, 5 * CHUNK))
    if not job.differentiated and (jensen or not shared):
        return value * weight, bad
    scale = job.scale * weight / temperature
    factor = u + mass + pull
    clear(lanes)
    sums[0] = sums[1] = 0.0
    for start in range(0, c, CHUNK):
        n = min(c - start, CHUNK)
        if c > CHUNK or not summed:
            bad |= terms(job, i, start, n, own, other, spread, a)
        if jensen:
            if c > CHUNK:
                for k in range(n):
                    h[k] = log_part(p[k], w[k])
        elif job.divergence:
            for k in range(n):
                v[k] = w[k] * (h[k] + cost[k]) if w[k] != 0.0 else nan_of(cost[k])
        else:
            for k in range(n):
                v[k] = w[k] * cost[k] if w[k] != 0.0 else nan_of(cost[k])
        if shared and not jensen:
            add_lanes(lanes, v, n)
            fold(lanes, sums)
        if not job.differentiated:
            continue
        if jensen:
            gradient_of_jensen(job.input_kind, p, w, h, drift, v, n)
        elif logits:
            if abs(factor) == INFINITY:
                for k in range(n):
                    v[k] = pulled(p[k], factor)
            else:
                for k in range(n):
                    v[k] = p[k] * factor
            if shared:
                for k in range(n):
                    v[k] = v[k] - w[k]
            if more != 0.0:
                for k in range(n):
                    v[k] = v[k] + (more * p[k] * (entropy - cost[k]) if p[k] != 0.0 else 0.0)
        elif job.input_kind == LOG_PROBS:
            for k in range(n):
                v[k] = -w[k]
        else:
            for k in range(n):
                v[k] = -(w[k] / p[k]) if w[k] != 0.0 else 0.0
        if job.index and start <= y < start + n:
            v[y - start] = g_y
        slopes = a.slope
        if job.curved:
            curve(job, i, start, n, own, a, Curve(factor, bend, entropy, drift, rest), y, bent)
        if bent:
            for k in range(n):
                v[k] = v[k] * np.float64(slopes[k]) if slopes[k] != 0.0 else 0.0
        if logits and job.masked:
            flags = ptr(job.legal, i * job.legal_step + start)
            for k in range(n):
                v[k] = v[k] if flags[k] else 0.0
            if job.curved:
                clear_left_out(a.d, flags, n)
        if job.curved:
            second = ptr(job.hess, base + start)
            for k in range(n):
                put(second, k, a.d[k] / temperature * scale)
        g = ptr(job.grad, base + start)
        for k in range(n):
            put(g, k, v[k] * scale)
    return (value + folded(sums)) * weight, bad
