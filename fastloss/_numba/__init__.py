"""The backend "numba": kernels compiled on first use and cached on disk."""

from __future__ import annotations

from collections import defaultdict

import numba
import numpy as np

from fastloss._blocks import BLOCK, CHUNK, LANES, NARROW, SQUARES, block_rows, blocks_of
from fastloss._numba import elementwise as elements
from fastloss._numba import (
    elementwise_generated,
    gather,
    margins,
    narrow,
    pool,
    soft,
    soft_blocks,
    soft_heads,
    soft_narrow,
    wide,
)
from fastloss._numba._jit import describe_cache
from fastloss._numba.blocks import BFLOAT, HALF
from fastloss._numba.rows import SIDES, target_weight_blocks
from fastloss._threads import FINER, SPAN, ended
from fastloss._threads import GRAIN as GRAIN
from fastloss.registry import LOOPS, LOSSES

name = "numba"
plain_elementwise = plain_rows = plain_softmax = plain_td_loss = None  # no shorter way for plain arrays
_NO_FLAGS = np.empty(0, np.bool_)
_NO_DOUBLES = np.empty(0)
_NO_INDICES = np.empty(0, np.int64)
_MODES = ("loss", "loss_grad", "grad_hess")


def describe() -> str:
    """A line for show_config()."""
    return f"numba {numba.__version__}; kernels {describe_cache(target_weight_blocks)}"


class _Memory:
    """Lends an array's memory under another description."""

    def __init__(self, array):
        self.owner = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def _readable(array):
    """The array as kernels take it: float16 and bfloat16 as integers, never marked read-only.

    Numba would compile every kernel once more for read-only arrays; kernels write to their outputs only.
    """
    half = array.itemsize == 2 and array.dtype.kind in "fV"  # V: bfloat16, of a package of its own
    if half:
        array = array.view(HALF if array.dtype.kind == "f" else BFLOAT)
    return array if array.flags.writeable else np.asarray(_Memory(array))


def _compute(x):
    """Suffix of the kernels and dtype that they compute in."""
    return ("f64", np.float64) if x.dtype == np.float64 else ("f32", np.float32)


def _entries(weight, mask):
    if weight is None:
        weight = _NO_DOUBLES
    elif weight.dtype != np.float64 and weight.dtype != np.float32:
        weight = weight.astype(np.float64)  # rare dtypes are not worth a compilation each
    return _readable(weight), _NO_FLAGS if mask is None else _readable(mask)


def _room(size, dtype):
    """Memory for a kernel's chunks that begins with a cache line: vectors that straddle two take twice as long."""
    memory = np.empty(size * dtype(0).itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size * dtype(0).itemsize].view(dtype)


# Rooms that no call uses, by size and type: to make them takes longer than a small call, and kernels leave nothing in
# them. Nothing of a thread's own: greenlets share one, and a signal handler calls in the middle of a call.
_spare: defaultdict[tuple, list] = defaultdict(list)


def _rooms(size, dtype):
    """Room for chunks, for flags of a chunk, for lanes."""
    return _room(size, dtype), np.empty(CHUNK, np.bool_), _room(3 * LANES + SIDES, np.float64)


def _run(kernel, arguments, partials, size, threads, dtype, room):
    """Run a kernel over blocks of ``size`` elements."""
    blocks, spare, bad = partials.size, _spare[room, dtype], None
    work = blocks * size
    try:
        rooms = spare.pop()
    except IndexError:
        rooms = _rooms(room, dtype)
    if threads > 1 and blocks > 1:
        bad = pool.shared().launch(kernel, (*arguments, partials), rooms, blocks, size, threads)
    if bad is None and work <= SPAN:
        bad = kernel(*arguments, partials, 0, blocks, *rooms)
    elif bad is None:
        bad, pieces = False, min(blocks, work // SPAN + 1)
        for k in range(pieces):  # Ctrl-C is seen between pieces
            bad |= kernel(*arguments, partials, blocks * k // pieces, blocks * (k + 1) // pieces, *rooms)
    spare.append(rooms)
    if FINER * work >= 2 * GRAIN:
        ended()
    return bad


def _loop(index, mode, suffix):
    """Address of a generated loop."""
    return getattr(elementwise_generated, f"{LOOPS[index].name}_{_MODES[mode]}_{suffix}").address


def elementwise(loss, mode, x, y, third, params, weight, mask, scale, losses, grad, hess, partials, threads):
    facts, (suffix, dtype) = LOSSES[loss], _compute(x)
    if y.dtype in (HALF, BFLOAT):
        y = y.astype(dtype)  # integers that would be taken for half precision
    plain, by_third, *domains, _ = facts.codes
    index, form = plain if third is None else by_third, 0 if mode == SQUARES else mode
    none = _readable(np.empty(0, x.dtype))
    outputs = [none if a is None else _readable(a) for a in (losses, grad, hess)]
    in_place = grad is not None and np.may_share_memory(grad, x)

    def run(exact):
        arguments = (
            _loop(index, form, suffix), exact, mode, (domains[0], domains[1], domains[2] if third is not None else 0),
            _readable(x), _readable(y), none if third is None else _readable(third), np.array(params, np.float64),
            *_entries(weight, mask), float(scale), *outputs, in_place,
        )  # fmt: skip
        return _run(elements.elementwise_blocks, arguments, partials, BLOCK, threads, dtype, elements.ROOM)

    # The loop in float64 is compiled only if there are targets that need it: kernels say so, but not before an input is
    # overwritten.
    if in_place and _are_large(y, x):
        return run(_loop(index, form, "f64"))
    bad = run(0)
    return run(_loop(index, form, "f64")) if bad and _are_large(y, x) else bad


def _are_large(y, x):
    """Whether targets are integers that a float32 may not hold, beside predictions that are computed with in one."""
    if y.dtype.kind not in "iu" or y.itemsize < 4 or x.dtype == np.float64 or y.size == 0:
        return False
    return y.max() >= 2**24 or y.min() <= -(2**24)


def _targets(target):
    """Indices as kernels take them: int64 or int32 in place, rare dtypes converted."""
    if target.dtype in (np.int64, np.int32, np.uint8):
        return _readable(target)
    if target.dtype == np.uint64:
        target = np.minimum(target, np.uint64(2**63 - 1))
    return target.astype(np.int64)


def rows(loss, x, target, params, class_weight, ignore_index, weight, mask, scale, losses, grad, partials, threads):
    _, dtype = _compute(x)
    if loss in margins.KINDS:
        own = margins.KINDS[loss], np.array(params, np.float64)
        kernel, room = margins.margin_blocks, margins.ROOM
    else:
        own = *params, _NO_DOUBLES, _readable(np.empty(0, x.dtype))
        few = x.shape[1] <= NARROW
        kernel, room = (narrow.narrow_blocks, narrow.ROOM) if few else (wide.wide_blocks, wide.ROOM)
    arguments = (
        _readable(x.reshape(-1)), x.shape[1], _targets(target),
        _NO_DOUBLES if class_weight is None else _readable(class_weight),
        ignore_index, *own, *_entries(weight, mask), scale,
        _readable(np.empty(0, x.dtype) if losses is None else losses),
        _readable(np.empty(0, x.dtype) if grad is None else grad.reshape(-1)),
        grad is not None and np.may_share_memory(grad, x),
    )  # fmt: skip
    return _run(kernel, arguments, partials, block_rows(x.shape[1]) * x.shape[1], threads, dtype, room)


def target_weight(target, classes, class_weight, ignore_index, weight, mask):
    partials = np.empty(blocks_of(target.size))
    arguments = (
        _targets(target), classes, _NO_DOUBLES if class_weight is None else _readable(class_weight), ignore_index,
        *_entries(weight, mask),
    )  # fmt: skip
    return partials, _run(target_weight_blocks, arguments, partials, BLOCK, 1, np.float64, 2 * CHUNK)


def td_loss(
    q, actions, rewards, next_q, terminated, gamma, online, legal, loss, delta, weight, mask, scale, losses, grad,
    td_error, partials, threads,
):  # fmt: skip
    suffix, dtype = _compute(q)
    none = np.empty(0, q.dtype)
    arguments = (
        _readable(q.reshape(-1)), q.shape[1], _targets(actions), _readable(rewards), _readable(next_q.reshape(-1)),
        _readable(terminated), gamma, _readable(none if online is None else online.reshape(-1)),
        _NO_FLAGS if legal is None else _readable(legal.reshape(-1)),
        _loop(LOSSES[f"{loss}_loss"].index, 1, suffix), np.array([delta]),
        *_entries(weight, mask), scale, _readable(none if losses is None else losses),
        _readable(none if grad is None else grad.reshape(-1)), _readable(none if td_error is None else td_error),
    )  # fmt: skip
    return _run(gather.td_blocks, arguments, partials, block_rows(q.shape[1]) * q.shape[1], threads, dtype, gather.ROOM)


def softmax(
    x, target, shares, how, class_weight, ignore_index, legal, factor, weight, mask, scale, losses, grad, lse,
    entropies, top, hess, partials, threads,
):  # fmt: skip
    _, dtype = _compute(x)
    classes, none = x.shape[1], _readable(np.empty(0, x.dtype))

    def flat(array):
        return none if array is None else _readable(array.reshape(-1))

    weight, mask = _entries(weight, mask)
    if hess is None and soft_heads.is_head(how, target, shares, legal, top):
        few, head = classes <= NARROW, np.array([how.z_loss, how.form, *how.params], np.float64)
        arguments = (
            flat(x), classes, _targets(target), _NO_DOUBLES if class_weight is None else _readable(class_weight),
            ignore_index, how.smoothing, head, flat(factor), weight, mask, scale, flat(losses), flat(grad),
            grad is not None and np.may_share_memory(grad, x),
        )  # fmt: skip
        kernel, room = (narrow.narrow_blocks, narrow.ROOM) if few else (wide.wide_blocks, wide.ROOM)
        return _run(kernel, arguments, partials, block_rows(classes) * classes, threads, dtype, room)
    numbers = how.smoothing, how.temperature, how.softcap, how.z_loss, how.entropy, *how.params
    # One type for each array, so that kernels differ in the dtype of x alone.
    arguments = (
        flat(x), classes, _NO_INDICES if target is None else _targets(target).astype(np.int64, copy=False),
        flat(shares), np.array(numbers, np.float64), how.form, how.kind, how.input_kind, bool(how.divergence),
        _NO_DOUBLES if class_weight is None else _readable(class_weight), ignore_index,
        (_NO_FLAGS if legal is None else _readable(legal.reshape(-1))).view(np.uint8), flat(factor),
        weight.astype(np.float64, copy=False), mask, float(scale), flat(losses), flat(grad), flat(lse),
        flat(entropies), _NO_INDICES if top is None else top,
    )  # fmt: skip
    if classes <= NARROW and hess is None:
        kernel, room = soft_narrow.soft_tiles, soft_narrow.ROOM
    else:
        kernel, room, arguments = soft_blocks.soft_blocks, soft.ROOM, (*arguments, flat(hess))
    return _run(kernel, arguments, partials, block_rows(classes) * classes, threads, dtype, room)
