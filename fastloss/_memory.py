"""Memory for large gradients, used again by the next call that needs as much.

Memory fresh from the operating system is cleared page by page while it is first written: 0.4 ns per
float32 element, a quarter of a call on 10^7 elements. So the last large block whose array is gone is
kept, one in all; smaller ones the C library keeps by itself.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["empty", "release_memory"]

LEAST = 2**21  # bytes; below, the C library keeps them by itself
MOST = 2**30  # bytes beyond which nothing is kept
_kept: list[np.ndarray] = []


class _Lease:
    """Owner of an array's memory; NumPy holds it until the last array over that memory is gone."""

    block: np.ndarray | None = None  # until there is one: to ask for it may fail

    def __init__(self, size: int) -> None:
        block: np.ndarray | None
        try:
            block = _kept.pop()
        except IndexError:
            block = None
        if block is None or not size <= block.size <= size + size // 4:
            block = None  # freed before another is asked for
            block = np.empty(size, np.uint8)
        self.block, self.keep = block, _kept
        self.__array_interface__ = {**block.__array_interface__, "shape": (size,)}

    def __del__(self) -> None:
        if self.block is not None and self.block.size <= MOST and not self.keep:
            self.keep.append(self.block)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """As ``np.empty``."""
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST:
        return np.empty(shape, dtype)
    return np.asarray(_Lease(size)).view(dtype).reshape(shape)


def release_memory() -> None:
    """Give memory back that is kept for the next large gradient.

    Gradients of 2 MiB and more are written into memory that is used again once the last array over it is gone;
    one block of at most 1 GiB is kept in all. Without this, a quarter of a call on 10^7 elements goes into
    clearing fresh memory.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.release_memory()
    """
    _kept.clear()
