"""What commands ask about a loss: its full name, its own parameters, whether it has a Hessian."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import numpy as np

import fastloss as fl

from ..registry import LOSSES, Loss
from . import CommandError
from ._cases import ordinary

# Keywords that every loss has, and that are no parameters of its formula.
_COMMON = {"sample_weight", "mask", "reduction", "normalizer", "grad", "out", "n_threads", "backend"}


def full_name(given: str, names: Collection[str] = LOSSES) -> str:
    """Return the name of one of the losses `names`, of which an alias may be given."""
    # A short alias is the same function under another name.
    name = getattr(getattr(fl, given, None), "__name__", given)
    if name not in names:
        problem = "has no two-array form" if name in LOSSES else "is not a loss"
        raise CommandError(f"{given!r} {problem}; choose from {', '.join(sorted(names))}")
    return name


def own_parameters(name: str) -> dict[str, Any]:
    """Return the keywords that are a loss's own, with their defaults."""
    signature = inspect.signature(getattr(fl, name)).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY and p.name not in _COMMON}


def name_and_value(option: str, text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"{option} takes NAME=VALUE, got {text!r}")
    return name, value


def has_hessian(loss: Loss) -> bool:
    """Whether `grad_hess` takes the loss."""
    try:
        ordinary(loss, np.dtype(np.float64), 2)[0].hess("numpy")
    except TypeError:
        return False
    return True
