"""Softmax losses of many classes, worked out by sums; ``_cython/soft_wide.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import CHUNK, LANES
from fastloss._how import JENSEN_SHANNON, LOG_PROBS, LOGITS
from fastloss._numba._jit import apart, inline, ptr
from fastloss._numba.blocks import belongs, put, value_at
from fastloss._numba.rows import INFINITY
from fastloss._numba.soft import (
    FOLDED,
    UNIT_DOMAIN,
    exp_given,
    exp_logits,
    find_top,
    finish_sum,
    given_logits,
    log_share,
    nan_of,
    own_class,
    put_extras,
)  # fmt: skip
from fastloss._numba.wide import absorb, add_chunk, fold, folded, is_short, sum_exponentials


@inline
def is_wide(job):
    """Whether a job of many classes is of this kind."""
    logits = job.input_kind == LOGITS and job.softcap == 0.0
    shares = job.kind != LOG_PROBS and not job.masked and not job.weighted and job.entropy == 0.0
    return (
        logits
        and job.form != JENSEN_SHANNON
        and job.smoothing == 0.0
        and not job.curved
        and (shares or not job.soft)
    )  # fmt: skip


@apart
@inline
def add_turns(lanes, m, logits, e, n):
    """Add e_k (m - l_k), guarded by the infinite factor: where rounding is upward, exp(-inf) leaves a trace."""
    for start in range(0, n, LANES):
        x, v = ptr(logits, start), ptr(e, start)
        for j in range(min(n - start, LANES)):
            d = m - np.float64(x[j])
            lanes[j] += 0.0 if d == INFINITY else np.float64(v[j]) * d


@apart
@inline
def add_shares(mass, cost, m, logits, w, n):
    for start in range(0, n, LANES):
        x, v = ptr(logits, start), ptr(w, start)
        for j in range(min(n - start, LANES)):
            t = np.float64(v[j])
            mass[j] += t
            cost[j] += (m - np.float64(x[j])) * t if t != 0.0 else 0.0


@apart
@inline
def add_divergences(mass, cost, m, logits, w, logs, n):
    """As add_shares, with the shares' own entropy."""
    for k in range(n):
        logs[k] = log_share(w[k])
    for start in range(0, n, LANES):
        x, v, h = ptr(logits, start), ptr(w, start), ptr(logs, start)
        for j in range(min(n - start, LANES)):
            t = np.float64(v[j])
            mass[j] += t
            cost[j] += t * (h[j] + (m - np.float64(x[j]))) if t != 0.0 else 0.0


@apart
@inline
def add_teacher(cost, m, m_t, divergence, logits, t, f, n):
    for start in range(0, n, LANES):
        x, h, v = ptr(logits, start), ptr(t, start), ptr(f, start)
        size = min(n - start, LANES)
        if divergence:
            for j in range(size):
                w = np.float64(v[j])
                cost[j] += w * ((np.float64(h[j]) - m_t) + (m - np.float64(x[j]))) if w != 0.0 else 0.0
        else:
            for j in range(size):
                w = np.float64(v[j])
                cost[j] += (m - np.float64(x[j])) * w if w != 0.0 else 0.0


@apart
@inline
def scale_wide(e, factor, g, n):
    for k in range(n):
        put(g, k, np.float64(e[k]) * factor)


@apart
@inline
def scale_shares_short(e, factor, w, share, g, n):
    for k in range(n):
        put(g, k, e[k] * factor - w[k] * share)


@apart
@inline
def scale_short(e, factor, g, n):
    for k in range(n):
        put(g, k, e[k] * factor)


@apart
@inline
def scale_shares(e, factor, w, share, g, n):
    for k in range(n):
        put(g, k, np.float64(e[k]) * factor - np.float64(w[k]) * share)


@apart
@inline
def scale_turns(e, factor, logits, m, bonus, g, n):
    """g = e (factor - bonus (m - l))."""
    for k in range(n):
        v, d = np.float64(e[k]), m - np.float64(logits[k])
        put(g, k, v * factor - bonus * (0.0 if d == INFINITY else v * d))


@apart
@inline
def load_shares(job, at, t, n):
    """Whether one of n shares is no probability."""
    source, bad = ptr(job.shares, at), 0
    for k in range(n):
        v = value_at(source, k, job.like)
        bad |= not belongs(UNIT_DOMAIN, v)
        t[k] = v
    return bad != 0


@apart
@inline
def clear_illegal(legal, g, n):
    """A class that takes no part has a gradient of 0 also in a row whose factor is not finite."""
    for k in range(n):
        if not legal[k]:
            put(g, k, 0.0)


@inline
def put_at(g, k, value):
    # Numba drops the body of ``put`` itself where it is inlined after calls of functions that are apart.
    put(g, k, value)


@inline
def wide_row(job, i, y, weight):
    """The loss of a row, its weight included, and whether a share is no probability."""
    real, room = job.like.dtype.type, job.work
    c, base, legal, bad = job.classes, i * job.classes, i * job.legal_step, False
    several, teacher, entropic = c > CHUNK, job.soft and job.kind == LOGITS, job.entropy != 0.0 or job.extras
    logits, e, t, f = ptr(room, 0), ptr(room, CHUNK), ptr(room, 2 * CHUNK), ptr(room, 3 * CHUNK)
    slope = ptr(room, 4 * CHUNK)
    sums, turn, mass_lanes = ptr(job.lanes, LANES), ptr(job.lanes, 2 * LANES), ptr(job.lanes, 3 * LANES)
    cost, turns = ptr(job.lanes, 4 * LANES), ptr(job.lanes, FOLDED)
    masses, costs = ptr(turns, 2), ptr(turns, 4)
    own_sum = own_lost = other_sum = other_lost = 0.0
    pull = mass = shared = entropy = value = u = g_y = share = w_top = 0.0
    own = find_top(job, False, i, logits)
    other = find_top(job, True, i, t) if teacher else own
    for k in range(3 * LANES):
        turn[k] = 0.0
    for k in range(6):
        turns[k] = 0.0
    for start in range(0, c, CHUNK):
        n = min(c - start, CHUNK)
        if several:
            given_logits(job, False, base + start, legal + start, n, own.infinite, logits)
        exp_given(job, False, logits, own, e, slope, n)
        if start <= own.top < start + n:
            e[own.top - start] = real(0.0)
        own_sum, own_lost = add_chunk(own_sum, own_lost, sum_exponentials(e, sums, n))
        if entropic:
            add_turns(turn, own.m, logits, e, n)
            fold(turn, turns)
        if teacher:
            if several:
                given_logits(job, True, base + start, 0, n, other.infinite, t)
            exp_given(job, True, t, other, f, slope, n)
            if start <= other.top < start + n:
                f[other.top - start] = real(0.0)
                share = own.m - np.float64(logits[other.top - start])  # what the maximum's own term is
            other_sum, other_lost = add_chunk(other_sum, other_lost, sum_exponentials(f, sums, n))
            add_teacher(cost, own.m, other.m, job.divergence, logits, t, f, n)
            if start <= own.top < start + n:
                w_top = np.float64(f[own.top - start])
        elif job.soft:
            bad |= load_shares(job, base + start, t, n)
            if job.divergence:
                add_divergences(mass_lanes, cost, own.m, logits, t, job.doubles, n)
            else:
                add_shares(mass_lanes, cost, own.m, logits, t, n)
            fold(mass_lanes, masses)
            if start <= own.top < start + n:
                w_top = np.float64(t[own.top - start])
        if job.soft:
            fold(cost, costs)
    own = finish_sum(own, own_sum + own_lost)
    lse = (own.m + own.shift) + own.log
    if own.infinite and own.m == own.m:
        lse = INFINITY
    if job.z_loss != 0.0:
        pull = 2.0 * job.z_loss * lse
    if entropic:
        entropy = own.log + folded(turns) / (own.unit * (1.0 + own.s))
    if teacher:
        other = finish_sum(other, other_sum + other_lost)
        mass = 1.0
        shared = (folded(costs) / other.unit + share) / (1.0 + other.s) + (
            own.log - (other.log if job.divergence else 0.0)
        )
    elif job.soft:
        mass = folded(masses)
        shared = folded(costs) + (mass * own.log if mass != 0.0 else nan_of(own.log))
    if job.index:
        # The room of the second sum: an index has no teacher.
        value, u, _, g_y = own_class(job, i, y, own, mass + pull, 0.0, entropy, t, slope, f)
    if job.z_loss != 0.0:
        shared = shared + job.z_loss * lse * lse
    put_extras(job, i, lse, entropy, own, ptr(room, 4 * CHUNK))
    shared = (value + shared - job.entropy * entropy) * weight
    if not job.differentiated:
        return shared, bad
    scale = job.scale * weight / job.temperature
    p = 1.0 / (1.0 + own.s)
    factor = (u + mass + pull + job.entropy * (entropy - own.log)) * scale
    pulled_up = own.infinite and abs(factor) == INFINITY
    factor_e = 1.0 if pulled_up else factor * p / own.unit
    share = scale
    if teacher:
        share = scale / (other.unit * (1.0 + other.s))
        w_top = w_top / (other.unit * (1.0 + other.s)) if own.top != other.top else 1.0 / (1.0 + other.s)
    for start in range(0, c, CHUNK):
        n = min(c - start, CHUNK)
        g = ptr(job.grad, base + start)
        if several:
            exp_logits(job, False, base + start, legal + start, n, own, logits, e, slope)
        if several and teacher:
            exp_logits(job, True, base + start, 0, n, other, t, f, slope)
        elif several and job.soft:
            load_shares(job, base + start, t, n)
        w = f if teacher else t
        if pulled_up:
            absorb(e, factor, n, 1)
        if job.entropy != 0.0:
            scale_turns(e, factor_e, logits, own.m, job.entropy * scale * p / own.unit, g, n)
        elif job.soft and is_short(factor_e, job.like) and is_short(share, job.like):
            scale_shares_short(e, real(factor_e), w, real(share), g, n)
        elif job.soft:
            scale_shares(e, factor_e, w, share, g, n)
        elif is_short(factor_e, job.like):
            scale_short(e, real(factor_e), g, n)
        else:
            scale_wide(e, factor_e, g, n)
        # The maxima's exponentials are 1, whatever their units are rounded to.
        if start <= own.top < start + n:
            put_at(g, own.top - start, p * factor - w_top * scale)
        if teacher and start <= other.top < start + n and own.top != other.top:
            at = other.top - start
            put_at(g, at, np.float64(e[at]) * factor_e - scale / (1.0 + other.s))
        if job.index and start <= y < start + n:
            put_at(g, y - start, 0.0 if job.masked and job.legal[legal + y] == 0 else g_y * scale)
        if job.masked and not abs(factor_e) < INFINITY:
            clear_illegal(ptr(job.legal, legal + start), g, n)
    return shared, bad
