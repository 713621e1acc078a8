"""Sizes that all backends share; partial sums, and with them the bits of every loss, depend on them."""

import math

import numpy as np

BLOCK = 4096  # elements per partial sum
CHUNK = 1024  # elements worked on at a time: inputs and results of a chunk fit into L1
LANES = 64  # accumulators of a sum
NARROW = 64  # up to this many classes, rows are worked on side by side
SIDE = 64  # that many rows
SQUARES = 3  # mode of an elementwise loss: as loss alone, but of its squares is the sum


def block_rows(classes: int) -> int:
    """Rows per partial sum of the row-wise losses."""
    return max(1, BLOCK // classes)


def blocks_of(n: int, size: int = BLOCK) -> int:
    """Number of partial sums of ``n`` entries."""
    return -(-n // size)


def exact_sum(partials: np.ndarray) -> float:
    """Sum of block sums, correctly rounded, so it depends on neither order nor grouping."""
    if partials.size == 1:
        return float(partials[0])
    try:
        return math.fsum(partials.tolist())
    except (OverflowError, ValueError):  # infinities of both signs, or beyond the largest float
        with np.errstate(invalid="ignore", over="ignore"):
            return float(partials.sum())
