"""Elementwise losses: any of the generated loops over a range of blocks; ``_cython/elementwise.pxi``."""

from fastloss._blocks import BLOCK, CHUNK
from fastloss._numba._jit import bare, fetcher, inline, kernel, ptr, run_loop
from fastloss._numba.blocks import (
    chunk_bounds,
    clear,
    copy,
    finish_chunk,
    load_mask,
    outside,
    results,
    total,
    value_at,
    view,
)

fetch = fetcher(CHUNK)
ROOM = 6 * CHUNK  # elements of work that the kernel needs


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


@kernel
def elementwise_blocks(
    loop, mode, domains, x, y, third, params, weight, mask, scale, losses, grads, hessians, in_place, partials, first,
    last, work, flags, lanes,
):  # fmt: skip
    x, y, third, weight, mask, losses = bare(x), bare(y), bare(third), bare(weight), bare(mask), bare(losses)
    grads, hessians, work, flags, lanes = bare(grads), bare(hessians), bare(work), bare(flags), bare(lanes)
    bad = False
    n = x.size
    scale = work.dtype.type(scale)
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
            gs = results(grads, start, stop, work[3 * CHUNK : 4 * CHUNK])
            hs = results(hessians, start, stop, work[4 * CHUNK : 5 * CHUNK])
            kept = load_mask(mask, n, start, flags[: stop - start]) if mask.size > 0 else mask
            if weight.size == n:
                fetch(ptr(weight, start))
            # Afterwards, when the values are in the cache: the loop has time to wait for them, these checks have not.
            if run_loop(loop, xs, ys, zs, params, scale, ls, gs, hs):
                bad |= outside(domains[1], ys, kept, True) | outside(domains[0], xs, kept, False)
                bad |= outside(domains[2], zs, kept, False)
            finish_chunk(ls, gs, hs, weight, mask, losses, grads, hessians, work, kept, lanes, n, start, mode)
        partials[block] = total(lanes)
    return bad
