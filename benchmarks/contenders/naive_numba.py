"""A plain loop under Numba, written in five minutes."""

from __future__ import annotations

from ..works import Work
from ._contender import Call

__all__ = ["prepare"]


def prepare(work: Work, threads: int) -> Call | None:
    """Return the call; the loops have one thread whatever is asked for."""
    from .. import naive_loops

    loss, a = getattr(naive_loops, work.loss, None), list(work.arrays().values())
    return loss and (lambda: loss(*a))
