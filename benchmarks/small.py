"""What a call costs on 1, 32 and 256 samples."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import fastloss as fl

from .contenders import Call, Contender
from .contenders.fastloss_calls import arguments
from .headline import measure as measure_works
from .headline import present
from .timing import Effort
from .works import Work

__all__ = ["measure"]

_SAMPLES = (1, 32, 256)
_SHAPES: dict[str, tuple[int, ...]] = {
    "binary_cross_entropy_with_logits": (),
    "huber_loss": (),
    "mse_loss": (),
    "cross_entropy": (10,),
    "td_loss": (4,),
}


def measure(effort: Effort) -> list[dict[str, Any]]:
    """Time small calls: fastloss, scikit-learn's bare kernel, and the limit."""
    works = [Work(loss, "float32", (n, *more)) for loss, more in _SHAPES.items() for n in _SAMPLES]
    contenders = present(["fastloss-cython", "fastloss-numba", "scikit-learn", "limit"])
    if "fastloss-cython" in contenders:
        contenders["out"] = Contender("out", "fastloss, Cython, out=", (), _with_out)
    return measure_works(works, contenders, 1, effort)


def _with_out(work: Work, threads: int) -> Call:
    arrays, options = arguments(work)
    return partial(getattr(fl, work.loss), *arrays, **options, out=np.empty_like(arrays[0]), backend="cython")
