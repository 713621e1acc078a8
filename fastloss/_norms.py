"""Sizes of targets that a loss may be divided by."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss import _run, _validate

NORMS = ("mean", "range", "std", "iqr")


def target_norm(norm: Any, input: Any, target: Any, mask: Any) -> Any:
    """The named norm of the kept targets, NaN if it is 0; anything but a name is returned as it is."""
    if not isinstance(norm, str):
        return norm
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))} or a number, got {norm!r}")
    y = _validate.plain("target", target)
    if y.dtype.kind not in "biuf" and y.dtype.name != "bfloat16":
        raise TypeError(f"target must be of a real type, got {y.dtype}")
    kept = np.ones(y.shape, bool) if mask is None else _run.spread(mask, y.shape)
    values = y if mask is None else y[kept]
    if not values.size:
        return np.nan
    if values.dtype.kind != "f" or values.itemsize < 4:
        values = values.astype(np.float64)
    with np.errstate(all="ignore"):
        size = _named(norm, values)
        if not 1e-140 < size < 1e140:  # sums and squares may have left the range of float64
            shift = int(np.frexp(np.abs(values).max(initial=0.0, where=np.isfinite(values)))[1])
            size = float(np.ldexp(_named(norm, np.ldexp(values.astype(np.float64), -shift)), shift))
    if not np.isfinite(size):
        wrong = np.argwhere(kept & np.isinf(y))
        if wrong.size:
            at = tuple(int(k) for k in wrong[0])
            place = at[0] if len(at) == 1 else at
            raise ValueError(f"target must be finite where its {norm!r} is the norm, got {y[at]} at index {place}")
    kind = _validate.computed(_validate.plain("input", input).dtype)
    if size > 0 and not np.finfo(kind).tiny <= size <= np.finfo(kind).max:
        raise ValueError(f"target must have a {norm!r} within {kind}'s range to be the norm, got {size}")
    return size if size > 0 else np.nan


def _named(norm: str, y: np.ndarray) -> float:
    if norm == "mean":
        return float(np.mean(np.abs(y), dtype=np.float64))
    if norm == "range":
        return float(y.max()) - float(y.min())
    if norm == "std":
        return float(np.std(y, dtype=np.float64))
    high, low = np.percentile(y, [75, 25])
    return float(high) - float(low)
