"""Sizes of targets that a loss may be divided by."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss import _run, _validate

NORMS = ("mean", "range", "std", "iqr")


def target_norm(norm: Any, target: Any, mask: Any) -> Any:
    """The named norm of the kept targets, NaN if it is 0; anything but a name is returned as it is."""
    if not isinstance(norm, str):
        return norm
    size = _named(norm, target, mask)
    return size if size > 0 else np.nan


def _named(norm: str, target: Any, mask: Any) -> float:
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))} or a number, got {norm!r}")
    y = _validate.plain("target", target)
    if y.dtype.kind not in "biuf" and y.dtype.name != "bfloat16":
        raise TypeError(f"target must be of a real type, got {y.dtype}")
    if mask is not None:
        y = y[_run.spread(mask, y.shape)]
    if not y.size:
        return np.nan
    if y.dtype.kind != "f" or y.itemsize < 4:
        y = y.astype(np.float64)
    with np.errstate(all="ignore"):
        if norm == "mean":
            return float(np.mean(np.abs(y), dtype=np.float64))
        if norm == "range":
            return float(y.max()) - float(y.min())
        if norm == "std":
            return float(np.std(y, dtype=np.float64))
        high, low = np.percentile(y, [75, 25])
        return float(high) - float(low)
