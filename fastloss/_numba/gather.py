"""The temporal-difference loss; ``_cython/gather.pxi`` operation by operation."""

import numpy as np

from fastloss._blocks import BLOCK, LANES, NARROW, SIDE
from fastloss._numba._jit import bare, fma, inline, kernel, run_loop
from fastloss._numba.blocks import (
    add_lanes,
    clear,
    load_mask,
    load_weights,
    put,
    select,
    store,
    total,
    value_at,
    view,
)
from fastloss._numba.tiles import transpose

ROOM = 7 * SIDE + 2 * NARROW * SIDE  # elements of work that the kernel needs


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


@inline
def best_beside(next_q, legal, first, n, count, best, nan, work):
    """``best_next`` of few actions, for rows side by side: one action after the other."""
    base, room = first * count, NARROW * SIDE
    flat, x = work[: n * count], work[room : room + n * count]
    zero, one, lowest = work.dtype.type(0.0), work.dtype.type(1.0), work.dtype.type(-np.inf)
    source = view(next_q, base, base + n * count, flat)
    if legal.size > 0:
        allowed = legal[base : base + n * count]
        for i in range(n * count):
            v = source[i]
            flat[i] = v if allowed[i] else lowest
        source = flat
    transpose(source, count, x, n, n, count)
    for r in range(n):
        best[r] = lowest
        nan[r] = zero
    for k in range(0, count, 4):
        k1, k2, k3 = min(k + 1, count - 1), min(k + 2, count - 1), min(k + 3, count - 1)
        x0, x1 = x[k * n : (k + 1) * n], x[k1 * n : (k1 + 1) * n]
        x2, x3 = x[k2 * n : (k2 + 1) * n], x[k3 * n : (k3 + 1) * n]
        for r in range(n):
            a, b, c, d, v = x0[r], x1[r], x2[r], x3[r], best[r]
            v = a if a > v else v
            v = b if b > v else v
            v = c if c > v else v
            best[r] = d if d > v else v
            some = (a != a) | (b != b) | (c != c) | (d != d)
            nan[r] = nan[r] + (one if some else zero)
    for r in range(n):
        # Of 0 and -0 either may have won; adding 0 makes it 0.
        v = best[r] + zero
        best[r] = v if nan[r] == zero else work.dtype.type(np.nan)
    if legal.size > 0:
        for r in range(n):
            if best[r] == lowest:
                some = False
                for k in range(base + r * count, base + (r + 1) * count):
                    some |= legal[k]
                best[r] = best[r] if some else zero


@kernel
def td_blocks(
    q, count, actions, rewards, next_q, terminated, gamma, online, legal, loop, params, weight, mask, scale, losses,
    grad, td_error, partials, first, last, work, flags, lanes,
):  # fmt: skip
    q, actions, rewards, next_q, terminated = bare(q), bare(actions), bare(rewards), bare(next_q), bare(terminated)
    online, legal, weight, mask, losses = bare(online), bare(legal), bare(weight), bare(mask), bare(losses)
    grad, td_error, work, flags, lanes = bare(grad), bare(td_error), bare(work), bare(flags), bare(lanes)
    bad = False
    n = actions.size
    rows = max(1, BLOCK // count)
    gamma, scale = np.float64(gamma), np.float64(scale)
    zero, one = work.dtype.type(0.0), np.float64(1.0)
    lanes, chosen_room, doubles = lanes[:LANES], lanes[LANES : LANES + SIDE].view(np.int64), lanes[LANES + SIDE :]
    side, room = work[: 7 * SIDE], work[7 * SIDE :]
    for block in range(first, last):
        clear(lanes)
        end = min((block + 1) * rows, n)
        for start in range(block * rows, end, SIDE):
            size = min(end - start, SIDE)
            value, target = side[:size], side[SIDE : SIDE + size]
            ls, gs = side[2 * SIDE : 2 * SIDE + size], side[3 * SIDE : 3 * SIDE + size]
            errors, best = side[4 * SIDE : 4 * SIDE + size], side[5 * SIDE : 5 * SIDE + size]
            nan, values, weights = side[6 * SIDE : 6 * SIDE + size], doubles[:size], doubles[SIDE : SIDE + size]
            kept, chosen, part = flags[:size], chosen_room[:size], actions[start : start + size]
            if mask.size > 0:
                given = load_mask(mask, n, start, kept)
                for r in range(size):
                    kept[r] = given[r]
            else:
                for r in range(size):
                    kept[r] = True
            for r in range(size):
                a = np.int64(part[r])
                a = a if kept[r] else 0
                outside = (a < 0) | (a >= count)
                bad |= outside
                kept[r] &= not outside
                chosen[r] = 0 if outside else a
            ended = terminated[start : start + size]
            # Of so many in float64, transposing costs more than it saves.
            if gamma == 0.0:
                for r in range(size):  # what comes next is worth nothing, whatever it is
                    best[r] = zero
            elif online.size == 0 and count * work.itemsize <= 4 * NARROW:
                best_beside(next_q, legal, start, size, count, best, nan, room)
            else:
                for r in range(size):
                    best[r] = zero
                    if kept[r] and not ended[r]:
                        best[r] = best_next(next_q, online, legal, (start + r) * count, count, work)
            for r in range(size):
                v = np.float64(best[r])
                v = 0.0 if ended[r] else v
                v = fma(gamma, v, np.float64(value_at(rewards, start + r, work)))
                target[r] = v if kept[r] else zero
            for r in range(size):
                v = value_at(q, (start + r) * count + chosen[r], work)
                value[r] = v if kept[r] else zero
            run_loop(loop, value, target, target, params, one, ls, gs, gs)
            for r in range(size):
                errors[r] = target[r] - value[r]
            # Neither costs anything where nothing is kept; a weight may still be NaN there.
            if weight.size > 0:
                load_weights(weight, n, start, weights)
                select(weights, kept)
                # Each loop writes one array: of more, LLVM can't tell that they lie apart.
                for r in range(size):
                    values[r] = np.float64(ls[r]) * weights[r]
                add_lanes(lanes, values, values.size)
                for r in range(size):
                    weights[r] = weights[r] * scale
                for r in range(size):
                    gs[r] = np.float64(gs[r]) * weights[r]
                if losses.size > 0:
                    for r in range(size):
                        ls[r] = values[r]
            else:
                for r in range(size):
                    gs[r] = np.float64(gs[r]) * scale
                add_lanes(lanes, ls, ls.size)
            if losses.size > 0:
                store(ls, losses, start)
            if td_error.size > 0:
                store(errors, td_error, start)
            if grad.size > 0:
                rows_of_grad = grad[start * count : (start + size) * count]
                for k in range(rows_of_grad.size):
                    put(rows_of_grad, k, zero)
                for r in range(size):
                    put(rows_of_grad, r * count + chosen[r], gs[r])
        partials[block] = total(lanes)
    return bad
