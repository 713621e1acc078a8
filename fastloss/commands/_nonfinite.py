"""Where a loss over many rows stops being finite."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import fastloss as fl

Place = tuple[int, ...]


@dataclass
class NonFinite:
    """The first loss that is NaN or infinite, and the number that made it so, if there is one."""

    loss: float
    index: Place
    file: str | None = None
    value: float | None = None
    at: Place | None = None

    def __str__(self) -> str:
        told = f"at {_told(self.index)}, "
        if self.file is None or self.at is None:
            return told + "from finite numbers"
        return told + f"where {self.file} has {self.value} at {_told(self.at)}"

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, by name."""
        return asdict(self)


def first_nonfinite(
    loss: str, params: dict[str, Any], arrays: dict[str, np.ndarray], start: int, paths: dict[str, str]
) -> NonFinite | None:
    """Find the first of some rows' losses that is not finite; `start` is the first row's place in the files."""
    # Losses of 16 bits would overflow on their way out.
    arrays = {key: a.astype(np.float32) if _is_float(a) and a.itemsize == 2 else a for key, a in arrays.items()}
    params = {key: p.astype(np.float32) if _is_half(p) else p for key, p in params.items()}
    function = getattr(fl, "mse_loss" if loss == "rmse_loss" else loss)  # the root is taken last
    x, target, *_ = arrays.values()
    given = {key: array for key, array in arrays.items() if key not in ("input", "target")}
    losses = function(x, target, **params, **given, reduction="none", grad=False).loss
    wrong = ~np.isfinite(losses)
    if not wrong.any():
        return None  # finite numbers whose sum is not
    place = tuple(int(k) for k in np.unravel_index(int(wrong.argmax()), wrong.shape))
    found = NonFinite(float(losses[place]), (start + place[0], *place[1:]))
    for test in (np.isnan, np.isinf) if math.isnan(found.loss) else (np.isinf, np.isnan):
        for key, array in arrays.items():
            part = array[place[: array.ndim]]
            if _is_float(array) and test(part).any():
                inner = tuple(int(k) for k in np.unravel_index(int(test(part).argmax()), part.shape))
                at = (*place[: array.ndim], *inner)
                found.file, found.value, found.at = paths[key], float(part[inner]), (start + at[0], *at[1:])
                return found
    return found


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _is_half(value: Any) -> bool:
    return isinstance(value, np.ndarray) and _is_float(value) and value.itemsize == 2


def _told(place: Place) -> str:
    return f"row {place[0]}" if len(place) == 1 else f"index {place}"
