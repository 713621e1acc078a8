"""The limit: the memory that a call has to move, with next to no arithmetic; and a bare copy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from fastloss.registry import LOSSES

from ..works import MEMORY_SIZED, Work
from ._contender import Call

__all__ = ["copy", "fresh", "warm"]

_WORTH_A_THREAD = 10**5  # elements, below which handing over costs more than it saves


def fresh(work: Work, threads: int) -> Call:
    """Return the call that writes into new arrays, as the contenders that return a gradient do."""
    kernel, inputs, shapes = _setting(work)
    dtype = np.dtype(work.dtype)
    if threads == 1 or work.size < _WORTH_A_THREAD:
        return lambda: (kernel(*inputs, *[np.empty(shape, dtype) for shape in shapes]),)
    return lambda: (_in_parts(kernel, [*inputs, *[np.empty(shape, dtype) for shape in shapes]], threads),)


def warm(work: Work, threads: int) -> Call | None:
    """Return the call that writes into the same arrays each time: no page faults. None for small works."""
    if work.size < MEMORY_SIZED:
        return None
    kernel, inputs, shapes = _setting(work)
    arrays = [*inputs, *(np.zeros(shape, work.dtype) for shape in shapes)]
    return lambda: (_in_parts(kernel, arrays, threads),)


def copy(work: Work, threads: int) -> Call | None:
    """Return ``np.copyto`` into a warm array, of which reads and writes are as many bytes as the work's."""
    if work.size < MEMORY_SIZED:
        return None
    source = np.ones(work.traffic // 2, np.uint8)
    target = np.zeros_like(source)
    return lambda: (_in_parts(np.copyto, [target, source], threads),)


def _setting(work: Work) -> tuple[Callable[..., Any], list[Any], list[tuple[int, ...]]]:
    """Return the kernel, its inputs, and the shapes of its outputs."""
    from .. import limit_loops

    kind = LOSSES[work.loss].kind
    shapes = [work.shape, work.shape[:1]] if kind == "gather" else [work.shape]
    arrays = list(work.arrays().values())
    return getattr(limit_loops, kind), arrays[:2] if kind == "elementwise" else arrays, shapes


def _in_parts(function: Callable[..., Any], arrays: Sequence[Any], parts: int) -> Any:
    """Call a function that releases the GIL on slices of rows, one per thread."""
    if parts == 1:
        return function(*arrays)
    rows = len(arrays[0])
    bounds = [rows * k // parts for k in range(parts + 1)]
    slices = [[a[start:stop] for a in arrays] for start, stop in pairwise(bounds)]
    others = [_pool(parts).submit(function, *arguments) for arguments in slices[1:]]
    function(*slices[0])
    return [other.result() for other in others]


@functools.cache
def _pool(parts: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(parts - 1, thread_name_prefix="limit")
