"""Losses that are cross-entropy but for one value per row; ``_cython/soft_heads.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import SIDE
from fastloss._how import FOCAL, LOGITS, POLY
from fastloss._numba._jit import apart, inline, ptr
from fastloss._numba.blocks import value_at
from fastloss._numba.primitives_generated import power_f64
from fastloss._numba.rows import (
    FACTOR,
    G_Y,
    GAP,
    LOSS,
    MAXIMUM,
    OTHERS,
    OWN,
    SCALE,
    SLOPE,
    SMOOTH,
    SPARE,
    TERM,
    W_Y,
    WEIGHT,
    S,
    U,
    side_gaps,
    side_logs,
)  # fmt: skip


def is_head(how, target, shares, legal, extras):
    """Whether a job is one of these."""
    plain = how.softcap == 0.0 and how.temperature == 1.0 and how.entropy == 0.0 and how.input_kind == LOGITS
    return plain and target is not None and shares is None and legal is None and extras is None


@inline
def side_focal(c, p, q, slope, gamma, n):
    """f(c) in c's place, and its derivative; slope is 1 before, as in side_poly."""
    if gamma == 1.0:
        for r in range(n):
            slope[r] = q[r]
    elif gamma == 2.0:
        for r in range(n):
            slope[r] = q[r] * q[r]
    elif gamma != 0.0:
        for r in range(n):
            slope[r] = power_f64(q[r], gamma)
    for r in range(n):
        x = slope[r]
        slope[r] = x * (1.0 + gamma * p[r] * (c[r] / q[r] if q[r] > 0.0 else 1.0)) if p[r] > 0.0 else x
        c[r] = x * c[r] if x != 0.0 else 0.0


@inline
def side_poly(c, p, q, slope, x, params, count, n):
    for r in range(n):
        x[r] = 1.0
    for k in range(count):
        for r in range(n):
            slope[r] = slope[r] + params[k] * p[r] * x[r]
            x[r] = x[r] * q[r]
            c[r] = c[r] + params[k] * x[r] / (k + 1.0)


@inline
def open_heads(room, factor, first, n):
    """The factors of rows."""
    u = ptr(room, U * SIDE)
    for r in range(n):
        u[r] = u[r] * np.float64(value_at(factor, first + r, room))


@apart
@inline
def finish_heads(room, n, smoothing, classes, w_sum, head, count):
    """As finish_sides, with another f(c_y) and lse^2; nothing is done twice, of what it has done before."""
    s, smooth, u, w_y = ptr(room, S * SIDE), ptr(room, SMOOTH * SIDE), ptr(room, U * SIDE), ptr(room, W_Y * SIDE)
    weight, scale, gap = ptr(room, WEIGHT * SIDE), ptr(room, SCALE * SIDE), ptr(room, GAP * SIDE)
    own, others, factor = ptr(room, OWN * SIDE), ptr(room, OTHERS * SIDE), ptr(room, FACTOR * SIDE)
    g_y, losses, m = ptr(room, G_Y * SIDE), ptr(room, LOSS * SIDE), ptr(room, MAXIMUM * SIDE)
    slope, c, x = ptr(room, SLOPE * SIDE), ptr(room, TERM * SIDE), ptr(room, SPARE * SIDE)
    p, q = own, others  # in their place
    v = smoothing / np.float64(classes)
    z_loss, form, mass = head[0], head[1], v * w_sum
    side_gaps(u, gap, n)
    side_logs(s, gap, own, others, losses, n)
    for r in range(n):
        sums = 1.0 + s[r]
        c[r] = gap[r] + losses[r]
        p[r] = own[r] / sums
        q[r] = others[r] / sums
        slope[r] = 1.0
    if form == FOCAL:
        side_focal(c, p, q, slope, head[2], n)
    elif form == POLY:
        side_poly(c, p, q, slope, x, ptr(head, 2), count - 2, n)
    for r in range(n):
        value = 0.0 if (u[r] == 0.0) & (c[r] == np.inf) else u[r] * c[r]
        u[r] = u[r] * slope[r]
        lse = m[r] + losses[r]
        extra = v * (smooth[r] + w_sum * losses[r]) if v != 0.0 else 0.0
        pull = 2.0 * z_loss * lse if z_loss != 0.0 else 0.0
        value = (value + extra) + (z_loss * lse * lse if z_loss != 0.0 else 0.0)
        losses[r] = value * weight[r]
        factor[r] = ((u[r] + mass) + pull) / (1.0 + s[r]) * scale[r]
        felt = p[r] * (mass + pull) if p[r] != 0.0 else 0.0
        g_y[r] = (felt - (u[r] * q[r] + v * w_y[r])) * scale[r]
