"""Accuracy over batches of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._exact import ExactSum


class Hits:
    """The share of rows whose largest value is the target's: of equal ones the first counts, NaN never."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._ignored = params.get("ignore_index", -100)
        self._legal = params.get("class_mask")
        self._right, self._all = ExactSum(), ExactSum()

    def count(self, arrays: dict[str, np.ndarray]) -> None:
        """Count the rows of a batch, each by its weight."""
        values, target = arrays["input"], arrays["target"]
        legal = arrays.get("class_mask", self._legal)
        if legal is not None:
            values = np.where(legal, values, -np.inf)
        if not values.size:
            return
        top = values.argmax(-1)
        highest = np.take_along_axis(values, top[..., None], -1)[..., 0]
        right = (top == target) & (highest > -np.inf)  # neither NaN nor a row without a legal class
        weight = _spread(arrays.get("sample_weight", np.ones(())), target.shape)
        kept = (target != self._ignored) & _spread(arrays.get("mask", np.ones((), bool)), target.shape)
        self._right.add(weight[right & kept])
        self._all.add(weight[kept])

    @property
    def share(self) -> float:
        """The accuracy, NaN over nothing."""
        whole = self._all.value()
        return self._right.value() / whole if whole else math.nan


def _spread(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of leading dimensions for every row."""
    return np.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)
