"""The kernel of ``soft.py`` and ``soft_wide.py``: blocks of rows, one after the other."""

import numpy as np

from fastloss._blocks import BLOCK, LANES, SIDE
from fastloss._numba._jit import bare, inline, kernel, ptr
from fastloss._numba.blocks import add_lanes, clear, put, total
from fastloss._numba.soft import REALS, Job, open_rows, soft_row
from fastloss._numba.soft_wide import is_wide, wide_row


@inline
def clear_row(job, i):
    """A row that counts as masked."""
    if job.differentiated:
        g = ptr(job.grad, i * job.classes)
        for k in range(job.classes):
            put(g, k, 0.0)
    if job.curved:
        second = ptr(job.hess, i * job.classes)
        for k in range(job.classes):
            put(second, k, 0.0)
    if job.extras:
        put(job.lse, i, 0.0)
        put(job.entropies, i, 0.0)
        job.top[i] = -1


@kernel
def soft_blocks(
    x, classes, target, shares, numbers, form, kind, input_kind, divergence, class_weight, ignore_index, legal, factor,
    weight, mask, scale, losses, grad, lse, entropies, top, hess, partials, first, last, work, flags, lanes,
):  # fmt: skip
    target, weight, mask, flags = bare(target), bare(weight), bare(mask), bare(flags)
    work, lanes, room = bare(work), lanes[:LANES], bare(lanes)
    weights_room, values_room = room[7 * LANES : 7 * LANES + SIDE], room[7 * LANES + SIDE : 7 * LANES + 2 * SIDE]
    y_room = room[7 * LANES + 2 * SIDE : 7 * LANES + 3 * SIDE].view(np.int64)
    step = classes if legal.size > classes else 0
    job = Job(
        work, ptr(work, 0), ptr(work[REALS:].view(np.float64), 0), ptr(room, 0), ptr(x, 0), ptr(shares, 0),
        ptr(class_weight, 0), ptr(legal, 0), ptr(factor, 0), ptr(grad, 0), ptr(lse, 0), ptr(entropies, 0), ptr(top, 0),
        ptr(hess, 0),
        target.size > 0, shares.size > 0, class_weight.size > 0, legal.size > 0, factor.size > 0, grad.size > 0,
        hess.size > 0, lse.size > 0, classes, step, form, kind, input_kind, divergence, scale,
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], ptr(numbers, 5), numbers.size - 5,
    )  # fmt: skip
    bad, wide = False, is_wide(job)
    n = x.size // classes
    rows = max(1, BLOCK // classes)
    for block in range(first, last):
        clear(lanes)
        stop = min((block + 1) * rows, n)
        for start in range(block * rows, stop, SIDE):
            size = min(stop - start, SIDE)
            y, weights, values = y_room[:size], weights_room[:size], values_room[:size]
            bad |= open_rows(target, start, n, classes, ignore_index, weight, mask, flags, y, weights)
            for r in range(size):
                values[r] = 0.0
                if y[r] < 0:
                    clear_row(job, start + r)
                elif wide:
                    values[r], wrong = wide_row(job, start + r, y[r], weights[r])
                    bad |= wrong
                else:
                    values[r], wrong = soft_row(job, start + r, y[r], weights[r])
                    bad |= wrong
            add_lanes(lanes, values, size)
            if losses.size > 0:
                for r in range(size):
                    put(losses, start + r, values[r])
        partials[block] = total(lanes)
    return bad
