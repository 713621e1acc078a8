"""The temporal-difference loss; ``_cython/gather.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import BLOCK, LANES, SIDE
from fastloss._numba._jit import by_type, fma, inline, kernel
from fastloss._numba.blocks import add_lanes, clear, load_weights, multiply, put, select, store, total, value_at
from fastloss._numba.elementwise_generated import (
    huber_loss_loss_grad_f32,
    huber_loss_loss_grad_f64,
    mse_loss_loss_grad_f32,
    mse_loss_loss_grad_f64,
    smooth_l1_loss_loss_grad_f32,
    smooth_l1_loss_loss_grad_f64,
)

ROOM = 6 * SIDE  # elements of work that the kernel needs

huber = by_type(huber_loss_loss_grad_f32, huber_loss_loss_grad_f64)
mse = by_type(mse_loss_loss_grad_f32, mse_loss_loss_grad_f64)
smooth_l1 = by_type(smooth_l1_loss_loss_grad_f32, smooth_l1_loss_loss_grad_f64)


@inline
def best_value(values, start, legal, count, work):
    """Largest legal value, 0 if there is none; NaN wins, as everywhere. Without branches."""
    lowest = work.dtype.type(-np.inf)
    best, nan, some = lowest, False, legal.size == 0
    for a in range(start, start + count):
        v = value_at(values, a, work)
        if legal.size > 0:
            v = v if legal[a] else lowest
            some |= legal[a]
        nan |= v != v
        best = v if v > best else best
    if not some:
        return work.dtype.type(0.0)
    # Of 0 and -0 either may have won; adding 0 makes it 0.
    return work.dtype.type(np.nan) if nan else best + work.dtype.type(0.0)


@inline
def best_next(next_q, online, legal, base, count, work):
    """Value of the best legal next action; 0 if there is none."""
    if online.size == 0:
        return best_value(next_q, base, legal, count, work)
    top, best = -1, work.dtype.type(-np.inf)
    for a in range(count):
        if legal.size > 0 and not legal[base + a]:
            continue
        v = value_at(online, base + a, work)
        if top < 0 or v > best or (v != v and best == best):
            best = v
            top = a
    if top < 0:
        return work.dtype.type(0.0)
    return best if best != best else value_at(next_q, base + top, work)


@kernel
def td_blocks(
    q, count, actions, rewards, next_q, terminated, gamma, online, legal, kind, params, weight, mask, scale, losses,
    grad, td_error, partials, first, last, work, flags, lanes,
):  # fmt: skip
    bad = False
    n = actions.size
    rows = max(1, BLOCK // count)
    gamma = work.dtype.type(gamma)
    scale = work.dtype.type(scale)
    zero = work.dtype.type(0.0)
    for block in range(first, last):
        clear(lanes)
        end = min((block + 1) * rows, n)
        for start in range(block * rows, end, SIDE):
            size = min(end - start, SIDE)
            value, target = work[:size], work[SIDE : SIDE + size]
            ls, gs = work[2 * SIDE : 2 * SIDE + size], work[3 * SIDE : 3 * SIDE + size]
            errors, weights, kept = work[4 * SIDE : 4 * SIDE + size], work[5 * SIDE : 5 * SIDE + size], flags[:size]
            for r in range(size):
                i = start + r
                value[r] = zero
                target[r] = zero
                kept[r] = False
                if mask.size > 0 and not mask[i // (n // mask.size)]:
                    continue
                a = np.int64(actions[i])
                if a < 0 or a >= count:
                    bad = True
                    continue
                kept[r] = True
                value[r] = value_at(q, i * count + a, work)
                reward = value_at(rewards, i, work)
                next_value = zero if terminated[i] else best_next(next_q, online, legal, i * count, count, work)
                target[r] = fma(gamma, next_value, reward)
            if kind == 0:
                huber(value, target, params, scale, ls, gs, gs)
            elif kind == 1:
                mse(value, target, params, scale, ls, gs, gs)
            else:
                smooth_l1(value, target, params, scale, ls, gs, gs)
            for r in range(size):
                errors[r] = target[r] - value[r]
            if weight.size > 0:
                load_weights(weight, n, start, weights)
                multiply(ls, weights)
                multiply(gs, weights)
            select(ls, kept)
            add_lanes(lanes[:LANES], ls)
            if losses.size > 0:
                store(ls, losses, start)
            if td_error.size > 0:
                store(errors, td_error, start)
            if grad.size > 0:
                for k in range(start * count, (start + size) * count):
                    put(grad, k, zero)
                for r in range(size):
                    if kept[r]:
                        put(grad, (start + r) * count + np.int64(actions[start + r]), gs[r])
        partials[block] = total(lanes)
    return bad
