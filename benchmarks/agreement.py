"""The check that all contenders compute the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import plain_numpy
from .contenders import Contender
from .works import Work

# Of the loss, and of the largest gradient: a wrong formula shows, float32 sums in any order pass.
_TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


class Disagreement(Exception):
    """A contender computes something else."""


def expected(work: Work) -> tuple[float, np.ndarray] | None:
    """Loss and gradient in float64, or None where nobody wrote them down."""
    loss = getattr(plain_numpy, work.loss, None)
    if loss is None:
        return None
    arrays = work.arrays().items()
    loss, grad, *_ = loss(**{k: v.astype(np.float64) if v.dtype == work.dtype else v for k, v in arrays})
    return float(loss), grad


def disagreement(work: Work, contender: Contender, result: tuple[Any, ...], truth: tuple[float, np.ndarray]) -> str:
    """What is wrong with a contender's result, or an empty string."""
    loss, grad = (np.asarray(value.detach() if hasattr(value, "detach") else value) for value in result[:2])
    tolerance = _TOLERANCE[work.dtype]
    problems = []
    if grad.dtype != work.dtype or grad.shape != work.shape:
        return f"{contender.name}: gradient is {grad.dtype} {grad.shape}, not {work.dtype} {work.shape}"
    scale = 1 if contender.reduces else work.shape[0]
    loss = float(loss) if contender.reduces else float(loss.mean())
    if not abs(loss - truth[0]) <= tolerance * abs(truth[0]):
        problems.append(f"loss {loss!r}, not {truth[0]!r}")
    error, largest = np.abs(grad / scale - truth[1]).max(), np.abs(truth[1]).max()
    if not error <= tolerance * largest:
        problems.append(f"gradient off by {error:.3g}, the largest is {largest:.3g}")
    return f"{contender.name}: {'; '.join(problems)}" if problems else ""
