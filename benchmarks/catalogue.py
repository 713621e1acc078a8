"""Every loss of the registry over a million elements, beside the reference and PyTorch."""

from __future__ import annotations

from typing import Any

from .headline import measure as measured
from .headline import present
from .timing import Effort
from .works import CATALOGUE

__all__ = ["measure"]

_NAMES = ("fastloss-cython", "fastloss-numba", "fastloss-numpy", "numpy", "pytorch")


def measure(effort: Effort) -> list[dict[str, Any]]:
    """Check and time all losses on one thread; returns an entry for each work."""
    works = [work for work in CATALOGUE if work.size <= effort.largest]
    return measured(works, present(_NAMES), 1, Effort(min(effort.rounds, 7), effort.sample_seconds))
