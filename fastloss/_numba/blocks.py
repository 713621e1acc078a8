"""What all kernels share: conversion of dtypes chunk by chunk, weights, masks, sums.

Everything here mirrors ``_cython/blocks.pxi`` operation by operation, so both backends give the same
bits. Arrays that a call does without have size 0. ``work`` is a kernel's room for chunks in the type
it computes in, ``flags`` its room for a chunk of a mask, ``lanes`` its accumulators.
"""

import numpy as np
from numba.core import types
from numba.extending import overload

from fastloss._blocks import BLOCK, CHUNK, LANES, SQUARES
from fastloss._numba._jit import (
    bits,
    by_type,
    f32,
    f64,
    fma,
    from_bits,
    inline,
    ptr,
    toward_zero,
    u32,
    u64,
)  # fmt: skip

# float16 and bfloat16, which Numba does not know on the CPU, travel as integers that no kernel gets otherwise. Not as
# records: Numba names compiled functions after those by a number that differs between processes.
HALF, BFLOAT = np.dtype(np.uint16), np.dtype(np.int16)


@inline
def half_to_f32(h):
    # Moving exponent and fraction into place and multiplying by 2^112 is exact, subnormals included.
    h = u32(h)
    magnitude = u32((h & u32(0x7FFF)) << u32(13))
    k = bits(from_bits(magnitude) * f32(5.192296858534828e33))
    k = u32(k | u32(0x7F800000)) if magnitude >= u32(0x0F800000) else k
    return from_bits(u32(k | u32((h & u32(0x8000)) << u32(16))))


@inline
def f32_to_half(v):
    # Round to nearest even: by integer arithmetic where the result is normal, by adding 0.5 where it is not.
    k = bits(f32(v))
    sign = u32((k >> u32(16)) & u32(0x8000))
    magnitude = u32(k & u32(0x7FFFFFFF))
    normal = u32(u32(magnitude + u32(0xC8000FFF) + u32((magnitude >> u32(13)) & u32(1))) >> u32(13))
    subnormal = u32(bits(from_bits(magnitude) + f32(0.5)) - u32(0x3F000000))
    h = subnormal if magnitude < u32(0x38800000) else normal
    h = u32(0x7C00) if magnitude >= u32(0x477FF000) else h
    nan = u32(u32(0x7E00) | u32((magnitude >> u32(13)) & u32(0x3FF)))
    h = nan if magnitude > u32(0x7F800000) else h
    return np.uint16(h | sign)


@inline
def bfloat_to_f32(h):
    return from_bits(u32(u32(h) << u32(16)))


@inline
def f32_to_bfloat(v):
    k = bits(f32(v))
    rounded = u32(u32(k + u32(0x7FFF) + u32((k >> u32(16)) & u32(1))) >> u32(16))
    quiet = u32(u32(k >> u32(16)) | u32(0x40))
    return np.uint16(quiet if u32(k & u32(0x7FFFFFFF)) > u32(0x7F800000) else rounded)


def value_at(source, i, like):
    """Element ``i`` of an array of any dtype, in the type of ``like``'s elements."""


@overload(value_at, inline="always")
def _value_at(source, i, like):
    if source.dtype == types.uint16:
        return lambda source, i, like: like.dtype.type(half_to_f32(source[i]))
    if source.dtype == types.int16:
        return lambda source, i, like: like.dtype.type(bfloat_to_f32(source[i]))
    return lambda source, i, like: like.dtype.type(source[i])


def put(target, i, value):
    """Write element ``i`` of an array of any floating dtype."""


@overload(put, inline="always")
def _put(target, i, value):
    if target.dtype == types.uint16:

        def put_half(target, i, value):
            target[i] = f32_to_half(value)

        return put_half
    if target.dtype == types.int16:

        def put_bfloat(target, i, value):
            target[i] = np.int16(f32_to_bfloat(value))

        return put_bfloat

    def put_value(target, i, value):
        target[i] = value

    return put_value


def view(source, start, stop, room):
    """A chunk in the type of ``room``: in place where the array has it, else converted into ``room``."""


@overload(view)
def _view(source, start, stop, room):
    if source.dtype == room.dtype:
        return lambda source, start, stop, room: source[start:stop]

    def convert(source, start, stop, room):
        part, filled = source[start:stop], room[: stop - start]
        for i in range(filled.size):
            filled[i] = value_at(part, i, room)
        return filled

    return convert


def results(target, start, stop, room):
    """Where a chunk of results is computed: in place where the array has the type, else in ``room``."""


@overload(results)
def _results(target, start, stop, room):
    if target.dtype == room.dtype:
        return lambda target, start, stop, room: target[start:stop] if target.size > 0 else room[: stop - start]
    return lambda target, start, stop, room: room[: stop - start]


@inline
def store(values, target, start):
    part = target[start : start + values.size]
    for i in range(values.size):
        put(part, i, values[i])


def store_converted(values, target, start):
    """Store a chunk that ``results`` did not place in the array itself."""


@overload(store_converted)
def _store_converted(values, target, start):
    if values.dtype == target.dtype:
        return lambda values, target, start: None
    return lambda values, target, start: store(values, target, start)


@inline
def copy(values, room):
    copied = room[: values.size]
    for i in range(values.size):
        copied[i] = values[i]
    return copied


@inline
def load_weights(weight, n, start, room):
    # Weights of entries start to start + room.size; one value may stand for a run of entries.
    run = n // weight.size
    if run == 1:
        part = weight[start : start + room.size]
        for i in range(room.size):
            room[i] = part[i]
        return
    i, k = 0, start // run
    while i < room.size:
        value = weight[k]
        k += 1
        end = min(room.size, k * run - start)
        for j in range(i, end):
            room[j] = value
        i = end


@inline
def load_mask(mask, n, start, room):
    run = n // mask.size
    if run == 1:
        return mask[start : start + room.size]
    i, k = 0, start // run
    while i < room.size:
        value = mask[k]
        k += 1
        end = min(room.size, k * run - start)
        for j in range(i, end):
            room[j] = value
        i = end
    return room


@inline
def kept_weights(weight, n, start, mask, room):
    """Weights of a chunk in float64: 1 where there are none, 0 where masked."""
    if weight.size == 0:
        for i in range(room.size):
            room[i] = 1.0
    else:
        load_weights(weight, n, start, room)
    if mask.size > 0:
        select(room, mask)


@inline
def is_moderate(scale):
    """Whether float32 gradients can be scaled by it as the sum of two float32: neither it nor its rest is subnormal."""
    return 8.27180612553028e-25 <= abs(scale) <= 1.2089258196146292e24  # 2^-80, 2^80


@inline
def weigh(values, weights, scale):
    """Multiply results by weights and a common factor, in double, rounding once."""
    for i in range(values.size):
        values[i] = values[i] * (weights[i] * scale)


def is_narrow(weight, grads, scale):
    """Whether weigh_f32() is used: by type and scale, not by values.

    A product that is larger than the result does not vanish before it.
    """


@overload(is_narrow)
def _is_narrow(weight, grads, scale):
    if weight.dtype == grads.dtype == types.float32:
        return lambda weight, grads, scale: weight.size > 0 and 8.27180612553028e-25 <= scale <= 1.0
    return lambda weight, grads, scale: False


@inline
def weigh_f32(values, weights, scale, target):
    """weigh() in float32: product and scale are two float32 each, and their product is rounded once."""
    high = toward_zero(scale)
    low = f32(scale - high)
    most = u32(0)
    for i in range(values.size):
        product = values[i] * weights[i]
        excess = fma(-values[i], weights[i], product)
        k = bits(product) & u32(0x7FFFFFFF)
        most = k if k > most else most
        target[i] = fma(product, high, fma(product, low, -(excess * high)))
    if most >= bits(f32(np.inf)):
        # What is infinite or NaN, and products that only the scale brings back into float32's range.
        for i in range(values.size):
            if not abs(values[i] * weights[i]) < f32(np.inf):
                target[i] = values[i] * (weights[i] * scale)


@inline
def _weights_in_place(weight, n, start, mask, room):
    if weight.size == n and mask.size == 0:
        return weight[start : start + room.size]
    kept_weights(weight, n, start, mask, room)
    return room


def finish_narrow(ls, gs, hs, weight, scale, losses, grads, hessians, room, flags, lanes, n, start, mode):
    """What finish_chunk() does after the mask where is_narrow()."""


@overload(finish_narrow)
def _finish_narrow(ls, gs, hs, weight, scale, losses, grads, hessians, room, flags, lanes, n, start, mode):
    if not weight.dtype == grads.dtype == types.float32:
        return lambda ls, gs, hs, weight, scale, losses, grads, hessians, room, flags, lanes, n, start, mode: None

    def finish(ls, gs, hs, weight, scale, losses, grads, hessians, room, flags, lanes, n, start, mode):
        w = _weights_in_place(weight, n, start, flags, room[: ls.size])
        if mode != 2:
            add_weighed(lanes, ls, w, ls.size)
        if grads.size > 0:
            weigh_f32(gs, w, scale, grads[start : start + gs.size])
        if hessians.size > 0:
            weigh_f32(hs, w, scale, hessians[start : start + hs.size])
        if losses.size > 0:
            weigh(ls, w, 1.0)
            store(ls, losses, start)

    return finish


@inline
def select(values, mask):
    zero = values.dtype.type(0.0)
    for i in range(values.size):
        v = values[i]
        values[i] = v if mask[i] else zero


@inline
def belongs(domain, v):
    """Whether a value lies in one of the registry's domains."""
    if domain == 1:
        return (v >= 0) & (v <= 1)
    if domain == 2:
        return (v == 0) | (v == 1)
    if domain == 3:
        return (v == 0) | (v == 1) | (v == -1)
    if domain == 4:
        return v >= 0
    if domain == 5:
        return v > 0
    return v > -1


@inline
def _suspect_above_f32(values, shift, less, limit):
    # False only if all values + shift are from 0 to the limit, without 0 if less is 1: their bits as integers are in
    # order, those of what is negative, NaN, or 0 less 1 above all others.
    largest, less = u32(0), u32(less)
    for i in range(values.size):
        k = bits(values[i] + shift) - less
        largest = k if k > largest else largest
    return largest > bits(limit) - less


@inline
def _suspect_above_f64(values, shift, less, limit):
    # The same by subtraction: no vector instruction compares 64 bits without sign.
    above, less = u64(0), u64(less)
    for i in range(values.size):
        k = bits(values[i] + shift)
        above |= (k - less) | (bits(limit) - k)
    return above >> u64(63) != u64(0)


_suspect_above = by_type(_suspect_above_f32, _suspect_above_f64)


@inline
def suspect(domain, values):
    """False only if all values are in the domain."""
    one, zero = values.dtype.type(1.0), values.dtype.type(0.0)
    if domain == 1:
        return _suspect_above(values, zero, 0, one)
    if domain >= 4:
        return _suspect_above(values, one if domain == 6 else zero, domain != 4, values.dtype.type(np.inf))
    # Counted in the floats' own type: lanes as wide as theirs.
    bad, least = zero, zero if domain == 2 else -one
    for i in range(values.size):
        v = values[i]
        bad = bad if (v == zero) | (v == one) | (v == least) else one
    return bad != zero


@inline
def outside(domain, values, mask, target):
    """Whether a kept value is outside its domain. A prediction that is NaN is no error, it propagates."""
    if domain != 0 and suspect(domain, values):
        for i in range(values.size):
            v = values[i]
            if (mask.size == 0 or mask[i]) and not belongs(domain, v) and (target or v == v):
                return True
    return False


@inline
def clear(lanes):
    for j in range(LANES):
        lanes[j] = 0.0


@inline
def add_lanes(lanes, values, n):
    """lanes[i % LANES] += values[i]: independent sums in a fixed order, which the compiler vectorises."""
    quads = n // (4 * LANES)
    for i in range(quads):
        # Four rows of lanes at a time halve the traffic; the order of the additions stays.
        v = ptr(values, i * 4 * LANES)
        for j in range(LANES):
            lanes[j] = (((lanes[j] + v[j]) + v[LANES + j]) + v[2 * LANES + j]) + v[3 * LANES + j]
    for start in range(quads * 4 * LANES, n, LANES):
        v = ptr(values, start)
        for j in range(min(n - start, LANES)):
            lanes[j] += v[j]


@inline
def add_weighed(lanes, values, weights, n):
    """add_lanes() of products, which are not rounded to the values' type."""
    for start in range(0, n, LANES):
        v, w = ptr(values, start), ptr(weights, start)
        for j in range(min(n - start, LANES)):
            lanes[j] += f64(v[j]) * f64(w[j])


@inline
def add_and_weigh(lanes, values, grads, weights, scale, n):
    """add_weighed() and weigh() in one pass."""
    for start in range(0, n, LANES):
        v, w, part = ptr(values, start), ptr(weights, start), grads[start : start + LANES]
        for j in range(part.size):
            lanes[j] += v[j] * w[j]
            part[j] = part[j] * (w[j] * scale)


@inline
def add_squares(lanes, values, weights, n):
    """add_weighed() of squares. Taken in this order, a product is in range wherever the whole is."""
    for start in range(0, n, LANES):
        v, w = ptr(values, start), ptr(weights, start)
        for j in range(min(n - start, LANES)):
            lanes[j] += (f64(v[j]) * w[j]) * f64(v[j])


@inline
def total(lanes):
    """Sum of the lanes by halving."""
    for j in range(LANES // 8):
        a = (lanes[j] + lanes[j + 32]) + (lanes[j + 16] + lanes[j + 48])
        lanes[j] = a + ((lanes[j + 8] + lanes[j + 40]) + (lanes[j + 24] + lanes[j + 56]))
    a, b = (lanes[0] + lanes[4]) + (lanes[2] + lanes[6]), (lanes[1] + lanes[5]) + (lanes[3] + lanes[7])
    return a + b


@inline
def chunk_bounds(block, chunk, n):
    start = block * BLOCK + chunk * CHUNK
    return start, min(start + CHUNK, n)


@inline
def finish_chunk(
    ls, gs, hs, weight, mask, scale, losses, grads, hessians, room, flags, lanes, n, start, mode, narrow, narrow_room
):  # fmt: skip
    """Mask, weights and scale, sum and stores of a chunk of results; room for its weights, or an empty one."""
    if mask.size > 0:
        select(ls, flags)
        if grads.size > 0:
            select(gs, flags)
        if hessians.size > 0:
            select(hs, flags)
    if narrow:
        finish_narrow(ls, gs, hs, weight, scale, losses, grads, hessians, narrow_room, flags, lanes, n, start, mode)
        return
    apart = room.size > 0
    if apart:
        kept_weights(weight, n, start, flags, room)
    if mode == SQUARES:
        add_squares(lanes, ls, room, ls.size)
    elif mode == 1 and apart:
        add_and_weigh(lanes, ls, gs, room, scale, ls.size)
    elif mode == 0 and weight.size > 0:
        add_weighed(lanes, ls, room, ls.size)
    elif mode != 2:
        add_lanes(lanes, ls, ls.size)
    elif apart:
        weigh(gs, room, scale)
    if apart and hessians.size > 0:
        weigh(hs, room, scale)
    if losses.size > 0:
        if weight.size > 0:
            weigh(ls, room, 1.0)
        store(ls, losses, start)
    if grads.size > 0:
        store_converted(gs, grads, start)
    if hessians.size > 0:
        store_converted(hs, hessians, start)
