"""Elementwise losses: any of the generated loops over a range of blocks; ``_cython/elementwise.pxi``."""

import numpy as np
from numba.core import types
from numba.extending import overload

from fastloss._blocks import BLOCK, CHUNK, LANES, SQUARES
from fastloss._numba._jit import bare, bits, f32, f64, fetcher, inline, kernel, ptr, run_loop, u32
from fastloss._numba.blocks import (
    chunk_bounds,
    clear,
    copy,
    finish_chunk,
    is_moderate,
    is_narrow,
    load_mask,
    outside,
    results,
    total,
    value_at,
    view,
)

fetch = fetcher(CHUNK)
ROOM = 20 * CHUNK  # elements of work that the kernel needs: chunks, and one more in float64


@inline
def view_third(third, start, stop, n, room):
    """A chunk of the third array; a short one is repeated."""
    if third.size == n:
        return view(third, start, stop, room)
    filled = room[: stop - start]
    k = start % third.size
    for i in range(filled.size):
        filled[i] = value_at(third, k, room)
        k = k + 1 if k + 1 < third.size else 0
    return filled


@inline
def large_integers(domain, targets):
    """Whether targets, which are integers, may be more than a float32 holds."""
    largest = u32(0)
    if 1 <= domain <= 3:
        return False
    for i in range(targets.size):
        k = bits(targets[i]) & u32(0x7FFFFFFF)
        largest = k if k > largest else largest
    return largest >= bits(f32(16777216.0))


def exact_targets(loop, domain, y, start, params, scale, xs, ys, zs, ls, gs, hs, room):
    """Compute once more in float64 what depends on targets that a float32 does not hold, each element for itself.

    Returns whether there may be such targets and no loop for them has been given.
    """


@overload(exact_targets)
def _exact_targets(loop, domain, y, start, params, scale, xs, ys, zs, ls, gs, hs, room):
    if xs.dtype != types.float32 or not isinstance(y.dtype, types.Integer) or y.dtype.bitwidth < 32:
        return lambda loop, domain, y, start, params, scale, xs, ys, zs, ls, gs, hs, room: False

    def compute(loop, domain, y, start, params, scale, xs, ys, zs, ls, gs, hs, room):
        if not large_integers(domain, ys):
            return False
        if loop == 0:
            return True
        wide, count = room.view(np.float64), 0
        places = wide[:CHUNK].view(np.int64)
        for i in range(ys.size):
            exact = f64(y[start + i])
            if exact != ys[i]:
                places[count] = i
                wide[CHUNK + count], wide[2 * CHUNK + count], wide[3 * CHUNK + count] = f64(xs[i]), exact, f64(zs[i])
                count += 1
        x64, y64, z64 = wide[CHUNK : CHUNK + count], wide[2 * CHUNK : 2 * CHUNK + count], wide[3 * CHUNK :]
        l64, g64, h64 = wide[4 * CHUNK :], wide[5 * CHUNK :], wide[6 * CHUNK :]
        if count > 0:
            run_loop(loop, x64, y64, z64, params, scale, l64, g64, h64)
        for k in range(count):
            ls[places[k]], gs[places[k]], hs[places[k]] = l64[k], g64[k], h64[k]
        return False

    return compute


@kernel
def elementwise_blocks(
    loop, exact_loop, mode, domains, x, y, third, params, weight, mask, scale, losses, grads, hessians, in_place,
    partials, first, last, work, flags, lanes,
):  # fmt: skip
    x, y, third, weight, mask, losses = bare(x), bare(y), bare(third), bare(weight), bare(mask), bare(losses)
    grads, hessians, work, flags, lanes = bare(grads), bare(hessians), bare(work), bare(flags), bare(lanes)
    bad = False
    n = x.size
    lanes, weights = lanes[:LANES], lanes[LANES : LANES + CHUNK]
    # Factors of gradients are applied in double where they differ per element or leave float32's range.
    apart = weight.size > 0 or not is_moderate(scale)
    loop_scale = 1.0 if apart else scale
    narrow = is_narrow(weight, grads, scale) and mode != SQUARES
    for block in range(first, last):
        clear(lanes)
        for chunk in range(BLOCK // CHUNK):
            start, stop = chunk_bounds(block, chunk, n)
            if start >= stop:
                break
            xs = view(x, start, stop, work[:CHUNK])
            if in_place:
                xs = copy(xs, work[:CHUNK])
            ys = view(y, start, stop, work[CHUNK : 2 * CHUNK])
            zs = view_third(third, start, stop, n, work[5 * CHUNK :]) if third.size > 0 else xs
            ls = work[2 * CHUNK : 2 * CHUNK + stop - start]
            g_room, h_room = work[3 * CHUNK : 4 * CHUNK], work[4 * CHUNK : 5 * CHUNK]
            gs = g_room[: stop - start] if narrow else results(grads, start, stop, g_room)
            hs = h_room[: stop - start] if narrow else results(hessians, start, stop, h_room)
            kept = load_mask(mask, n, start, flags[: stop - start]) if mask.size > 0 else mask
            if weight.size == n:
                fetch(ptr(weight, start))
            # Afterwards, when the values are in the cache: the loop has time to wait for them, these checks have not.
            if run_loop(loop, xs, ys, zs, params, loop_scale, ls, gs, hs):
                bad |= outside(domains[1], ys, kept, True) | outside(domains[0], xs, kept, False)
                bad |= outside(domains[2], zs, kept, False)
            bad |= exact_targets(
                exact_loop, domains[1], y, start, params, loop_scale, xs, ys, zs, ls, gs, hs, work[6 * CHUNK :]
            )
            room = weights[: ls.size if apart or mode == SQUARES else 0]
            finish_chunk(
                ls, gs, hs, weight, mask, scale, losses, grads, hessians, room, kept, lanes, n, start, mode, narrow,
                work[6 * CHUNK :],
            )  # fmt: skip
        partials[block] = total(lanes)
    return bad
