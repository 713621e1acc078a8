"""The size of the targets in a file, which a normalised loss is divided by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from .._exact import ExactSum
from .._norms import NORMS
from . import CommandError
from ._npy import NpyFile

_BATCH_BYTES = 4 << 20


def norm_of(norm: str, target: NpyFile, mask: NpyFile | None) -> float:
    """Return the named norm of the kept targets, NaN if it is 0; the interquartile range takes them all into memory."""
    if norm not in NORMS:
        raise CommandError(f"--param norm must be a number or one of {', '.join(NORMS)}, got {norm!r}")
    for file in (target, mask):
        if file is not None and file.once:
            raise file.error(f"can be read once only, but norm={norm} looks at all targets first; give a number")
    with np.errstate(all="ignore"):
        size = _SIZES[norm](lambda: _kept(target, mask))
    if math.isinf(size):
        raise target.error(f"the targets' {norm} is {size}")
    return size if size > 0.0 else math.nan


def _kept(target: NpyFile, mask: NpyFile | None) -> Iterator[np.ndarray]:
    """Batches of the kept targets, in float64."""
    rows, step = target.shape[0], max(1, _BATCH_BYTES // max(1, target.row_bytes))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        values = target.rows(start, stop)
        if values.dtype.kind == "c":
            raise target.error(f"target must be of a real type, got {values.dtype}")
        values = values if mask is None else values[mask.rows(start, stop)]
        yield values.astype(np.float64).reshape(-1)


Batches = Callable[[], Iterator[np.ndarray]]


def _mean(batches: Batches, change: Callable[[np.ndarray], np.ndarray]) -> float:
    total, count = ExactSum(), 0
    for values in batches():
        total.add(change(values))
        count += values.size
    return total.value() / count if count else math.nan


def _range(batches: Batches) -> float:
    ends = [(values.min(), values.max()) for values in batches() if values.size]
    return float(np.max([high for _, high in ends]) - np.min([low for low, _ in ends])) if ends else math.nan


def _deviation(batches: Batches) -> float:
    mean = _mean(batches, lambda values: values)
    size = _mean(batches, lambda values: np.abs(values - mean))
    power = math.frexp(size)[1] if math.isfinite(size) else 0  # squares may leave the range of floats
    square = _mean(batches, lambda values: np.ldexp(values - mean, -power) ** 2)
    return math.ldexp(math.sqrt(square), power)


def _quartiles(batches: Batches) -> float:
    kept = np.concatenate([np.empty(0), *batches()])
    high, low = np.percentile(kept, [75, 25]) if kept.size else (math.nan, math.nan)
    return float(high) - float(low)


_SIZES: dict[str, Callable[[Batches], float]] = {
    "mean": lambda batches: _mean(batches, np.abs),
    "range": _range,
    "std": _deviation,
    "iqr": _quartiles,
}
