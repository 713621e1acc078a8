"""Sums of floats without rounding errors."""

from __future__ import annotations

import math

import numpy as np

_PIECE = 1 << 15  # values added at a time
_FEW = 64  # values for which a loop in Python is faster


class ExactSum:
    """A sum of floats without rounding errors: its value depends on neither order nor grouping."""

    def __init__(self) -> None:
        self._units = 0  # of 2^-1074, of which every finite float is a multiple
        self._special = 0.0

    def add(self, values: np.ndarray, times: int = 1) -> None:
        """Add every value, ``times`` times."""
        values = values.reshape(-1).astype(np.float64, copy=False)
        if values.size < _FEW:
            self._add_each(values, times)
            return
        for start in range(0, values.size, _PIECE):
            self._add_piece(values[start : start + _PIECE].copy(), times)

    def _add_piece(self, rest: np.ndarray, times: int) -> None:
        # All values are rounded to multiples of one power of two, so coarse that their sum is exact; what is left of
        # them follows likewise. Two or three rounds are enough for most values.
        while True:
            top = float(np.abs(rest).max())
            if top == 0.0:
                return
            exponent = math.frexp(top)[1]
            if not -math.inf < top < math.inf or exponent > 1000:
                self._add_each(rest, times)
                return
            # Floats beside `shift` are multiples of 2^(exponent - 38); 2^15 of them stay below 2^53 such steps.
            shift = math.ldexp(1.5, exponent + 14)
            high = (rest + shift) - shift
            rest -= high
            self._add_number(float(high.sum()), times)

    def _add_each(self, values: np.ndarray, times: int) -> None:
        for value in values.tolist():
            self._add_number(value, times)

    def _add_number(self, value: float, times: int) -> None:
        if math.isfinite(value):
            numerator, denominator = value.as_integer_ratio()
            self._units += times * numerator << (1075 - denominator.bit_length())
        elif times:
            self._special += value

    def merge(self, other: ExactSum) -> None:
        self._units += other._units
        self._special += other._special

    def value(self) -> float:
        if self._special != 0.0:  # an infinity or NaN
            return self._special
        try:
            return self._units / (1 << 1074)
        except OverflowError:
            return math.inf if self._units > 0 else -math.inf
