"""fastloss itself, on a backend that is named."""

from __future__ import annotations

from typing import Any

import fastloss as fl
from fastloss.registry import LOSSES

from .. import GAMMA
from ..works import Work
from ._contender import Call, Prepare

__all__ = ["arguments", "on"]


def on(backend: str) -> Prepare:
    """Return the contender's function ``prepare`` for a backend."""

    def prepare(work: Work, threads: int) -> Call:
        fl.set_num_threads(threads)  # not per call: most callers leave n_threads out, and so does this
        loss, (arrays, options) = getattr(fl, work.loss), arguments(work)
        return lambda: loss(*arrays, **options, backend=backend)

    return prepare


def arguments(work: Work) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a work's call."""
    a = work.arrays()
    if LOSSES[work.loss].kind != "gather":
        return list(a.values()), {}  # prediction, target, and the third array of a loss that has one
    names = ("x", "actions", "rewards", "next_q", "terminated")
    return [a[name] for name in names], {"gamma": GAMMA, "sample_weight": a["weight"], "mask": a["mask"]}
