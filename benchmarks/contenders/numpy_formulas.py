"""The formulas of ``plain_numpy.py``."""

from __future__ import annotations

from .. import plain_numpy
from ..works import Work
from ._contender import Call

__all__ = ["prepare"]


def prepare(work: Work, threads: int) -> Call | None:
    """Return the call; NumPy's loops have one thread whatever is asked for."""
    loss, a = getattr(plain_numpy, work.loss, None), work.arrays()
    return loss and (lambda: loss(**a))
