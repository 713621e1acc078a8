"""The short form: a few works of each loss, or a sweep over sizes for a picture."""

from __future__ import annotations

from collections.abc import Iterable

from fastloss.registry import LOSSES

from .timing import Effort
from .works import Work

__all__ = ["CURVE_EFFORT", "TABLE_EFFORT", "curve", "losses", "table"]

TABLE_EFFORT = Effort(9, 1e-3)
CURVE_EFFORT = Effort(5, 1e-3)

_TABLE: dict[str, tuple[tuple[int, ...], ...]] = {
    "elementwise": ((32,), (10**4,), (10**6,)),
    "rows": ((32, 10), (4096, 10), (1024, 1000)),
    "softmax": ((32, 10), (4096, 10), (1024, 1000)),
    "gather": ((32, 4), (65536, 18)),
}
_COLUMNS = {"elementwise": (), "rows": (10,), "softmax": (10,), "gather": (10,)}


def losses() -> dict[str, str]:
    """Return the names of the losses by their short ones."""
    return {Work(name, "float32", (1,)).short: name for name in LOSSES}


def table(names: Iterable[str]) -> list[Work]:
    """Return small, middling and large works."""
    return [Work(name, "float32", shape) for name in names for shape in _TABLE[LOSSES[name].kind]]


def curve(names: Iterable[str]) -> list[Work]:
    """Return works of 1 to 10 million elements; rows have ten."""
    works = []
    for name in names:
        columns = _COLUMNS[LOSSES[name].kind]
        works += [Work(name, "float32", (10**k, *columns)) for k in range(8 - len(columns))]
    return works
